package softnpu

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4"
	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/match"
)

// A guest reads its replies by a serial port, which in an emulated machine
// passes some ten kilobytes a second. So each part of a reply has its time.
const (
	replyPart     = 4 << 10
	replyPatience = 30 * time.Second
)

// Channel is the ASIC's end of a management channel: a socket, or the far end
// of a serial port.
type Channel interface {
	io.ReadWriteCloser
	SetWriteDeadline(time.Time) error
}

// ServeManagement answers what a guest writes to its management channel until
// the context or the channel ends, and closes it in the first case. Lines that are no requests are left
// alone, and requests that cannot be done are logged.
func (a *ASIC) ServeManagement(ctx context.Context, conn Channel) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // only to end Read and Write
	defer stop()
	lines := newLineReader(conn, MaxLine)
	out := replyWriter{to: conn}
	for {
		line, err := lines.next()
		switch {
		case errors.Is(err, errLongLine):
			a.log.warn("A line on the management channel was refused", "error", err)
			continue
		case ctx.Err() != nil, errors.Is(err, io.EOF):
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("management channel: %w", err)
		}
		request, ok := requestIn(line)
		if !ok {
			continue
		}
		reply := a.reply(request)
		if reply == nil {
			continue
		}
		if err := out.write(reply); errors.Is(err, errUnread) {
			a.log.warn("A reply on the management channel was given up", "error", err)
		} else if err != nil && ctx.Err() == nil {
			return fmt.Errorf("management channel: %w", err)
		}
	}
}

// replyWriter writes replies, each a line.
type replyWriter struct {
	to  Channel
	cut bool // the last line has no end
}

var errUnread = errors.New("the guest does not read its replies")

func (w *replyWriter) write(line []byte) error {
	line = append(line, '\n')
	if w.cut {
		line = append([]byte{'\n'}, line...)
	}
	for done := 0; done < len(line); {
		if err := w.to.SetWriteDeadline(time.Now().Add(replyPatience)); err != nil {
			return err
		}
		n, err := w.to.Write(line[done:min(done+replyPart, len(line))])
		done += n
		w.cut = w.cut && done == 0 || done > 0 && done < len(line)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("%w: it took %d of %d bytes, and then none in %v", errUnread, done, len(line), replyPatience)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// reply does a request as it came, and returns what to answer. It is nil where
// SoftNPU says nothing.
func (a *ASIC) reply(request []byte) []byte {
	r, err := UnmarshalRequest(request)
	ask, asked := r.(Ask)
	if asked {
		r = ask.Request
	}
	var result any
	if err == nil {
		result, err = a.Do(r)
	}
	if err != nil {
		a.log.warn("A request on the management channel failed", "error", err)
	}
	var reply []byte
	switch {
	case asked:
		answer := Answer{ID: ask.ID}
		if err == nil && result != nil {
			answer.Result, err = json.Marshal(result)
		}
		if err != nil {
			answer.Error, answer.Code = err.Error(), codeOf(err)
		}
		reply, err = marshalAnswer(answer)
	case err != nil || result == nil:
		return nil
	default:
		if radix, ok := result.(int); ok {
			return strconv.AppendInt(nil, int64(radix), 10)
		}
		reply, err = json.Marshal(result)
	}
	if err != nil {
		a.log.warn("A reply on the management channel cannot be written", "error", err)
		return nil
	}
	return reply
}

// maxEntries is how many entries the channel may add, since all of them are held
// by the host.
const maxEntries = 1 << 20

// errNoProgram is a request for tables where there are none.
var errNoProgram = errors.New("no program is loaded")

// Do does a request and returns its result, which is nil, or what
// [Answer.Result] says.
func (a *ASIC) Do(r Request) (any, error) {
	switch r := r.(type) {
	case RadixRequest:
		return a.Radix(), nil
	case CountersRequest:
		return a.Counters(), nil
	case ProgramLoad:
		if err := a.LoadSource(Source(r)); err != nil {
			return nil, fmt.Errorf("load program %s: %w", r.Main, err)
		}
		return nil, nil
	}
	p := a.program.Load()
	if p == nil {
		return nil, errNoProgram
	}
	switch r := r.(type) {
	case TablesRequest:
		return p.tables, nil
	case DumpRequest:
		return p.dump()
	case TableGet:
		return p.get(r)
	case TraceRequest:
		return a.trace(p, r)
	case TableAdd:
		return nil, p.add(r)
	case TableRemove:
		return nil, p.remove(r)
	case EntriesRequest:
		return p.counted(r)
	}
	if s, ok := p.pipeline.(stateful); ok {
		return p.state(s, r)
	}
	return nil, fmt.Errorf("%T is not a request to an ASIC", r)
}

// tracer is a pipeline that can tell the way of a packet.
type tracer interface {
	Trace(ingress uint16, frame []byte) *p4.Trace
}

func (a *ASIC) trace(p *program, r TraceRequest) (any, error) {
	t, ok := p.pipeline.(tracer)
	switch {
	case !ok:
		return nil, errors.New("the program cannot tell the way of a packet")
	case int(r.Port) > a.Radix():
		return nil, fmt.Errorf("there is no port %d: there are %d to %d", r.Port, CPUPort, a.Radix())
	case len(r.Frame) > MaxFrame:
		return nil, fmt.Errorf("the packet has %d bytes, and %d are allowed", len(r.Frame), MaxFrame)
	}
	return t.Trace(r.Port, r.Frame), nil
}

func (p *program) table(name string) (*Table, error) {
	t := p.byName[name]
	if t == nil {
		return nil, fmt.Errorf("the program has no table %q", name)
	}
	return t, nil
}

func (p *program) add(r TableAdd) error {
	t, err := p.table(r.Table)
	if err != nil {
		return err
	}
	action, ok := t.action(r.Action)
	if !ok {
		return fmt.Errorf("table %s has no action %q", t.Name, r.Action)
	}
	e := p4.Entry{Action: action.Name, Priority: r.Priority}
	if e.Match, err = DecodeKeys(t.Keys, r.Keys); err != nil {
		return fmt.Errorf("add to table %s: %w", t.Name, err)
	}
	if e.Args, err = DecodeArgs(action.Parameters, r.Arguments); err != nil {
		return fmt.Errorf("add to table %s: action %s: %w", t.Name, action.Name, err)
	}
	if p.added.Add(1) > maxEntries {
		err = fmt.Errorf("%d entries were added, and more are not allowed", maxEntries)
	} else {
		err = p.pipeline.Add(t.Name, e)
	}
	if err != nil {
		p.added.Add(-1)
		return fmt.Errorf("not added: %w", err) // it names the table
	}
	return nil
}

func (p *program) remove(r TableRemove) error {
	t, err := p.table(r.Table)
	if err != nil {
		return err
	}
	keys, err := DecodeKeys(t.Keys, r.Keys)
	if err != nil {
		return fmt.Errorf("remove from table %s: %w", t.Name, err)
	}
	if err := p.pipeline.Remove(t.Name, keys, r.Priority); err != nil {
		return fmt.Errorf("not removed: %w", err) // it names the table
	}
	p.added.Add(-1)
	return nil
}

// get finds an entry among all of its table, which is soon enough for what
// comes over a serial port.
func (p *program) get(r TableGet) (DumpEntry, error) {
	t, err := p.table(r.Table)
	if err != nil {
		return DumpEntry{}, err
	}
	entries, err := p.entries(t)
	if err != nil {
		return DumpEntry{}, err
	}
	for _, e := range entries {
		if bytes.Equal(e.Keys, r.Keys) && e.Priority == r.Priority {
			return e, nil
		}
	}
	return DumpEntry{}, fmt.Errorf("table %s: %w", t.Name, match.ErrNoEntry)
}

func (p *program) dump() (Dump, error) {
	all := Dump{}
	for i := range p.tables {
		t := &p.tables[i]
		var err error
		if all[t.Name], err = p.entries(t); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// entries returns the entries of a table in the bytes of the channel.
func (p *program) entries(t *Table) ([]DumpEntry, error) {
	entries, err := p.pipeline.Entries(t.Name)
	if err != nil {
		return nil, fmt.Errorf("dump table %s: %w", t.Name, err)
	}
	list := make([]DumpEntry, len(entries))
	for i, e := range entries {
		if list[i], err = dumpEntry(t, e); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// dumpEntry is an entry of a table in the bytes of the channel.
func dumpEntry(t *Table, e p4.Entry) (DumpEntry, error) {
	keys, err := EncodeKeys(t.Keys, e.Match)
	if err != nil {
		return DumpEntry{}, fmt.Errorf("dump table %s: %w", t.Name, err)
	}
	return DumpEntry{Action: e.Action, Keys: keys, Arguments: EncodeArgs(e.Args), Priority: e.Priority}, nil
}
