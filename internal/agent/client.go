package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"syscall"
	"time"

	"github.com/falcon-vm/falcon-go/internal/mux"
	"github.com/falcon-vm/falcon-go/internal/printable"
)

// ErrGone says that the agent, the guest or its server has gone in the middle of
// a call.
var ErrGone = errors.New("the connection to the agent in the guest has ended: the guest was reset, or the agent or the machine has ended")

// RemoteError is what failed in the guest.
type RemoteError struct{ Text string }

// Error implements error.
func (e *RemoteError) Error() string { return "in the guest: " + printable.Text(e.Text) }

// UnknownCallError says that the agent in a guest is too old for a call.
type UnknownCallError struct {
	// Version is the agent's.
	Version string
}

// Error implements error.
func (e *UnknownCallError) Error() string {
	return fmt.Sprintf("the agent in the guest has version %s and cannot do this, this program has version %s", printable.Line(e.Version), Version)
}

// TimeoutError says that a command was ended because its time was over.
type TimeoutError struct {
	// After is how long it was given.
	After time.Duration
	// Silent is set when the agent did not say that it was ended.
	Silent bool
}

// Error implements error.
func (e *TimeoutError) Error() string {
	if e.Silent {
		return fmt.Sprintf("timed out after %v; the agent in the guest does not say whether it was ended", e.After)
	}
	return fmt.Sprintf("timed out after %v; it and all of its process group were ended", e.After)
}

// Timeout makes it known as a timeout.
func (e *TimeoutError) Timeout() bool { return true }

// Unwrap makes it a context's deadline error.
func (e *TimeoutError) Unwrap() error { return context.DeadlineExceeded }

// Client has an agent do things. It may be used by many goroutines.
type Client struct {
	dial func(context.Context) (io.ReadWriteCloser, error)
}

// New returns a client that makes each call on a stream of its own.
func New(dial func(context.Context) (io.ReadWriteCloser, error)) *Client { return &Client{dial: dial} }

// call is one call under way.
type call struct {
	*Sender
	*Receiver
	ctx    context.Context
	stream io.Closer
	stop   func() bool
	still  *silence
}

// ask begins a call. When ctx ends the call is cancelled.
func (c *Client) ask(ctx context.Context, k Kind, content []byte) (*call, error) {
	stream, err := c.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("reaching the agent in the guest: %w", err)
	}
	watched := &silence{ReadWriteCloser: stream}
	x := &call{Sender: NewSender(watched), Receiver: NewReceiver(watched), ctx: ctx, stream: stream, still: watched}
	x.stop = context.AfterFunc(ctx, func() { stream.Close() })
	if err := x.Send(k, content); err != nil {
		if _, _, why := x.Receive(); why != nil { // a relay that refuses says why
			err = why
		}
		x.close()
		return nil, x.explain(err)
	}
	return x, nil
}

func (x *call) close() {
	x.stop()
	x.still.cease()
	x.stream.Close()
}

// explain says why a stream has broken off.
func (x *call) explain(err error) error {
	var remote *RemoteError
	var foreign *mux.VersionError
	switch {
	case x.still.why() != nil:
		return x.still.why()
	case x.ctx.Err() != nil:
		return fmt.Errorf("waiting for the agent in the guest: %w", context.Cause(x.ctx))
	case errors.As(err, &remote), errors.As(err, &foreign):
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe),
		errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		return ErrGone
	}
	return fmt.Errorf("talking to the agent in the guest: %w", err)
}

// answer waits for the message that ends a call.
func (x *call) answer() ([]byte, error) {
	k, content, err := x.Receive()
	switch {
	case err != nil:
		return nil, x.explain(err)
	case k != Done:
		return nil, refusal(k, content)
	}
	return content, nil
}

// refusal is the error that a message stands for which is not the one that was
// awaited.
func refusal(k Kind, content []byte) error {
	switch k {
	case Failed:
		return &RemoteError{Text: string(content)}
	case Unknown:
		return &UnknownCallError{Version: string(content)}
	}
	return fmt.Errorf("the agent in the guest answered with a message of kind %d", k)
}

// simple makes a call of one question and one answer.
func (c *Client) simple(ctx context.Context, k Kind, content []byte) ([]byte, error) {
	x, err := c.ask(ctx, k, content)
	if err != nil {
		return nil, err
	}
	defer x.close()
	return x.answer()
}

// Ping waits until the agent answers.
func (c *Client) Ping(ctx context.Context) (Info, error) {
	p, err := c.simple(ctx, AskPing, nil)
	if err != nil {
		return Info{}, err
	}
	return DecodeInfo(p)
}

// Command is what Exec runs.
type Command struct {
	Exec
	// Input, if set, is the command's input. A Read of it may be under way
	// when Exec returns, whose result is lost: a terminal cannot be told to
	// return.
	Input io.Reader
	// Stdout and Stderr get the output as it comes. Without Stderr, what the
	// command writes there goes to Stdout, in the order of writing.
	Stdout, Stderr io.Writer
}

// interruptWait is how long a command that was interrupted may take to end,
// which includes what the guest then does to end it by force.
const interruptWait = 5 * time.Second

// timeoutGrace is how long a guest may take to end a command whose time is over,
// the last part of which it does by force.
const timeoutGrace = 4 * time.Second

// Exec runs a command in the guest. That it ends with a status other than 0 is
// no error. When ctx ends, the command is interrupted as by Ctrl-C, and its
// process group is ended if it does not heed that; its output is passed on until
// then.
func (c *Client) Exec(ctx context.Context, cmd Command) (Exit, error) {
	if len(cmd.Argv) == 0 {
		return Exit{}, errors.New("no command is given")
	}
	cmd.Merge, cmd.Exec.Stdin = cmd.Stderr == nil, cmd.Input != nil
	cmd.ID = rand.Uint64()
	call, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	if cmd.Timeout > 0 { // the guest ends the command itself; this is for a guest that cannot
		defer time.AfterFunc(cmd.Timeout+timeoutGrace, func() { end(&TimeoutError{After: cmd.Timeout, Silent: true}) }).Stop()
	}
	stop := context.AfterFunc(ctx, func() { c.interrupt(call, cmd.ID, func() { end(context.Cause(ctx)) }) })
	defer stop()
	x, err := c.ask(call, AskExec, cmd.Encode())
	if err != nil {
		return Exit{}, err
	}
	defer x.close()
	if cmd.Input != nil {
		go x.feed(cmd.Input)
	}
	exit, err := x.output(cmd)
	if err == nil && ctx.Err() != nil {
		err = fmt.Errorf("the command was interrupted: %w", context.Cause(ctx))
	}
	return exit, err
}

// interrupt has the guest interrupt a command, which takes a call of its own:
// the command's may be full of input that it does not read. It calls end when
// that could not be done, or the command takes too long to end.
func (c *Client) interrupt(ctx context.Context, id uint64, end func()) {
	ctx, cancel := context.WithTimeout(ctx, interruptWait)
	defer cancel()
	if _, err := c.simple(ctx, AskInterrupt, Number(id)); err == nil {
		<-ctx.Done()
	}
	end()
}

// feed sends a command's input. It ends with the input or with the stream.
func (x *call) feed(r io.Reader) {
	buf := make([]byte, MaxMessage)
	for {
		n, err := r.Read(buf)
		if n > 0 && x.Send(Stdin, buf[:n]) != nil {
			return
		}
		if err != nil {
			_ = x.Send(StdinEnd, nil) // the reader of the answer sees it
			return
		}
	}
}

// output passes a command's output on until it has ended.
func (x *call) output(cmd Command) (Exit, error) {
	for {
		k, content, err := x.Receive()
		if err != nil {
			return Exit{}, x.explain(err)
		}
		to := cmd.Stdout
		switch k {
		case Stdout:
		case Stderr:
			to = cmd.Stderr
		case Exited:
			exit, err := DecodeExit(content)
			if err == nil && exit.TimedOut {
				err = &TimeoutError{After: cmd.Timeout}
			}
			return exit, err
		default:
			return Exit{}, refusal(k, content)
		}
		if to == nil {
			continue
		}
		if _, err := to.Write(content); err != nil {
			return Exit{}, fmt.Errorf("passing the output on: %w", err)
		}
	}
}

// Progress is told how many bytes of how many have been copied.
type Progress func(done, total int64)

// counter returns a function that adds up for p.
func (p Progress) counter(total int64) func(int64) {
	if p == nil {
		return nil
	}
	var done int64
	p(0, total)
	return func(n int64) {
		done += n
		p(min(done, total), total) // a file may have grown
	}
}

// CopyTo copies a file or folder of the host to the guest: to the path, or into
// the folder at the path if there is one.
func (c *Client) CopyTo(ctx context.Context, source, target string, progress Progress) error {
	total, err := TreeSize(source)
	if err != nil {
		return err
	}
	x, err := c.ask(ctx, AskPut, Tree{Path: target, Base: TreeBase(source)}.Encode())
	if err != nil {
		return err
	}
	defer x.close()
	x.still.await("its taking what is copied", copySilence, "")
	if err := SendTree(x.Sender, source, progress.counter(total)); err != nil && !x.broken() {
		return err // closing the stream tells the guest
	}
	x.still.await("its word that the copy is whole", copySilence, "all had been sent")
	// Where the stream has broken off, the guest has said why.
	_, err = x.answer()
	return err
}

// CopyFrom copies a file or folder of the guest to the host: to the path, or
// into the folder at the path if there is one.
func (c *Client) CopyFrom(ctx context.Context, source, target string, progress Progress) error {
	x, err := c.ask(ctx, AskGet, Tree{Path: source}.Encode())
	if err != nil {
		return err
	}
	defer x.close()
	x.still.await("what is to be copied", lookSilence, "it was asked for that")
	k, content, err := x.Receive()
	x.still.await("the rest of what is copied", copySilence, "")
	switch {
	case err != nil:
		return x.explain(err)
	case k != Size:
		return refusal(k, content)
	}
	total, err := DecodeNumber(content)
	if err != nil {
		return err
	}
	in := NewTreeReader(x.Receiver, progress.counter(int64(total)))
	err = Unpack(in, Tree{Path: target, Base: TreeBase(source)}, Keep{Owners: os.Geteuid() == 0})
	if err != nil && in.err != nil {
		return x.explain(in.err)
	}
	return err
}

// Prepare makes a guest that boots ready to be saved as a template. It returns
// when the boot is over and the guest has nothing under way. Its network is down
// then, and stays so until Identify.
func (c *Client) Prepare(ctx context.Context) (Prepared, error) {
	content, err := c.simple(ctx, AskPrepare, nil)
	if err != nil {
		return Prepared{}, err
	}
	return DecodePrepared(content)
}

// Hold makes a guest that is prepared wait for its identity. From then on its
// agent does nothing but tell who it is and take an identity, and nothing else
// runs in the guest, nor in its clones. A clone takes its seed, which is in its
// memory before it runs, by itself.
func (c *Client) Hold(ctx context.Context) error {
	_, err := c.simple(ctx, AskHold, nil)
	return err
}

// Identify gives the guest an identity.
func (c *Client) Identify(ctx context.Context, i Identity) error {
	_, err := c.simple(ctx, AskIdentity, i.Encode())
	return err
}

// Power ends the guest in order. It returns when that has begun.
func (c *Client) Power(ctx context.Context, a PowerAction) error {
	_, err := c.simple(ctx, AskPower, []byte(a))
	return err
}

// Frozen is a guest that does not write to its file systems.
type Frozen struct {
	// Systems are where the file systems are mounted.
	Systems []string

	call *call
}

// Freeze has the guest write out its file systems and then not write to them
// until Thaw, at most for a time.
func (c *Client) Freeze(ctx context.Context, limit time.Duration) (*Frozen, error) {
	x, err := c.ask(ctx, AskFreeze, Number(uint64(limit)))
	if err != nil {
		return nil, err
	}
	x.still.await("its word that the file systems are frozen", freezeSilence, "it was asked for that")
	p, err := x.answer()
	x.still.cease()
	if err != nil {
		x.close()
		return nil, err
	}
	d := decoder{rest: p}
	f := &Frozen{Systems: d.texts(), call: x}
	if d.err != nil {
		x.close()
		return nil, d.err
	}
	return f, nil
}

// Thaw ends a freeze. Its error says whether the guest wrote meanwhile: the
// freeze had passed its limit, or the agent has gone.
func (f *Frozen) Thaw() error {
	defer f.call.close()
	f.call.still.await("its word that the file systems are thawed", thawSilence, "they were frozen")
	_ = f.call.Send(End, nil) // where that fails, the guest has said why
	_, err := f.call.answer()
	return err
}

// EncodeTexts returns the bytes of a list.
func EncodeTexts(list []string) []byte {
	var e encoder
	e.texts(list)
	return e
}
