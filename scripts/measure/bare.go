//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/internal/agent"
	"github.com/falcon-vm/falcon-go/internal/mux"
)

// commandLine is how a node of falcon's was started.
type commandLine struct {
	qemu string
	args []string
	disk string // as in args
	// backing is what the disk is a clone of, and size its size.
	backing string
	size    int64
}

// clone reports whether it starts from a template.
func (c commandLine) clone() bool {
	for _, arg := range c.args {
		if arg == "-incoming" {
			return true
		}
	}
	return false
}

// commandLine finds the command line in the log of a node's server: the last
// one, should the node have been started more than once.
func (b *bench) commandLine(ctx context.Context, log, disk string) (commandLine, error) {
	text, err := os.ReadFile(log)
	if err != nil {
		return commandLine{}, err
	}
	c := commandLine{disk: disk}
	if c.qemu, c.args, err = startOf(text); err != nil {
		return c, err
	}
	if !strings.Contains(strings.Join(c.args, " "), disk) {
		return c, fmt.Errorf("the command line of QEMU in its log does not have its disk %s", disk)
	}
	out, err := b.output(ctx, "qemu-img", "info", "-U", "--output=json", disk)
	if err != nil {
		return c, err
	}
	var info struct {
		Backing string `json:"full-backing-filename"`
		Size    int64  `json:"virtual-size"`
	}
	if err := json.Unmarshal(out, &info); err != nil {
		return c, err
	}
	c.backing, c.size = info.Backing, info.Size
	return c, nil
}

// startOf returns the last start of QEMU in a server's log.
func startOf(log []byte) (qemu string, args []string, err error) {
	for line := range bytes.Lines(log) {
		var entry struct {
			ByHand string   `json:"by_hand"`
			Args   []string `json:"args"`
		}
		if json.Unmarshal(line, &entry) != nil || len(entry.Args) == 0 {
			continue
		}
		args = entry.Args
		// The first word, or what nsenter runs.
		for _, word := range strings.Fields(entry.ByHand) {
			if strings.HasPrefix(filepath.Base(word), "qemu") {
				qemu = word
				break
			}
		}
	}
	if qemu == "" {
		return "", nil, errors.New("its log has no command line of QEMU")
	}
	return qemu, args, nil
}

// bare starts falcon's own command lines with next to nothing around them.
type bare struct {
	b    *bench
	like *falcon
}

func (x *bare) peer() peer {
	p := peer{Name: "bare QEMU, cold", Version: x.b.report.Machine.QEMU,
		Settings: fmt.Sprintf("the QEMU command lines of the falcon lab before it, %s started at once as falcon does, until the guest agent of each has run `true`; disks, taps and redirects are made before the clock starts", count(x.b.plan.inFlight))}
	if x.like.warm {
		p.Name = "bare QEMU, warm (the floor)"
		p.Settings = "the same with falcon's templates, by a minimal program: QEMU, QMP's migrate-incoming, cont, the guest agent's first answer; nothing is told apart, the clones are equal"
	}
	return p
}

func count(n int) string {
	if n <= 0 {
		return "all"
	}
	return strconv.Itoa(n)
}

func (x *bare) open(ctx context.Context, r ring) (lab, error) {
	lines := x.like.lines[r]
	if lines == nil {
		return nil, fmt.Errorf("%s has not launched this ring, whose command lines are those to start", x.like.peer().Name)
	}
	dir, err := os.MkdirTemp(x.b.work, "b")
	if err != nil {
		return nil, err
	}
	l := &bareLab{dir: dir, inFlight: x.b.plan.inFlight}
	if err := l.prepare(ctx, x.b, lines, r); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// bareLab is a ring of bare machines.
type bareLab struct {
	dir      string
	fabric   *fabric
	machines []*bareMachine
	inFlight int
	answered float64 // when the agent of each had answered, in seconds
}

func (l *bareLab) prepare(ctx context.Context, b *bench, lines []commandLine, r ring) (err error) {
	if l.fabric, err = newFabric(); err != nil {
		return err
	}
	for i, line := range lines {
		m, err := b.newMachine(ctx, line, filepath.Join(l.dir, fmt.Sprintf("n%d.qcow2", i)))
		if err != nil {
			return err
		}
		l.machines = append(l.machines, m)
		for j := range r.nics() {
			tap, err := l.fabric.tap(fmt.Sprintf("n%dt%d", i, j))
			if err != nil {
				return err
			}
			m.taps = append(m.taps, tap)
		}
	}
	if r.nics() == 0 {
		return nil
	}
	for i := range lines { // the second interface of each leads to the first of the next
		if err := l.fabric.redirect(fmt.Sprintf("n%dt1", i), fmt.Sprintf("n%dt0", (i+1)%len(lines))); err != nil {
			return err
		}
	}
	return nil
}

func (l *bareLab) launch(ctx context.Context) error {
	begun := time.Now()
	err := each(ctx, len(l.machines), l.inFlight, func(ctx context.Context, i int) error {
		m := l.machines[i]
		if err := m.start(ctx); err != nil {
			return err
		}
		_, err := m.agent.Ping(ctx)
		return m.explain(err)
	})
	if err != nil {
		return err
	}
	l.answered = time.Since(begun).Seconds()
	return each(ctx, len(l.machines), 0, func(ctx context.Context, i int) error {
		return l.machines[i].explain(answers(ctx, l.machines[i].agent))
	})
}

func (l *bareLab) processes() ([]int, error) {
	var pids []int
	for _, m := range l.machines {
		pids = append(pids, m.cmd.Process.Pid)
	}
	return pids, nil
}

func (l *bareLab) destroy(ctx context.Context) error {
	return each(ctx, len(l.machines), 0, func(ctx context.Context, i int) error { l.machines[i].stop(); return nil })
}

func (l *bareLab) close() {
	_ = l.destroy(context.Background())
	for _, m := range l.machines {
		for _, tap := range m.taps {
			tap.Close()
		}
	}
	l.fabric.close()
	os.RemoveAll(l.dir)
}

// bareMachine is a QEMU of its own.
type bareMachine struct {
	line commandLine
	args []string
	// taps are given to the machine in the order of its interfaces; where
	// there are none, args say what the interfaces are.
	taps  []*os.File
	agent *agent.Client
	// stateFD is the number of the descriptor with a clone's state.
	stateFD int

	cmd     *exec.Cmd
	stderr  bytes.Buffer
	done    chan struct{}
	monitor *monitor
	session *mux.Session
	conns   []net.Conn
}

// newMachine makes the disk of a machine like another one.
func (b *bench) newMachine(ctx context.Context, line commandLine, disk string) (*bareMachine, error) {
	err := b.do(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", line.backing, disk, strconv.FormatInt(line.size, 10))
	if err != nil {
		return nil, err
	}
	m := &bareMachine{line: line}
	for _, arg := range line.args {
		m.args = append(m.args, strings.ReplaceAll(arg, line.disk, disk))
	}
	return m, nil
}

// firstFD is the number of a child's first descriptor after the standard ones.
const firstFD = 3

var (
	fdPattern  = regexp.MustCompile(`(?:^|,)fd=(\d+)(?:,|$)`)
	idPattern  = regexp.MustCompile(`(?:^|,)id=([^,]+)`)
	ramPattern = regexp.MustCompile(`mem-path=([^,]+)`)
)

// files opens what the command line expects to inherit: sockets for console,
// QMP and agent, taps, and the state of a template, which no argument names.
func (m *bareMachine) files() ([]*os.File, map[string]net.Conn, error) {
	var files []*os.File
	conns := make(map[string]net.Conn)
	put := func(fd int, f *os.File) {
		for len(files) <= fd-firstFD {
			files = append(files, nil)
		}
		files[fd-firstFD] = f
	}
	taps := m.taps
	for i, arg := range m.args {
		found := fdPattern.FindStringSubmatch(arg)
		if found == nil || i == 0 || m.args[i-1] != "-chardev" && m.args[i-1] != "-netdev" {
			continue
		}
		fd, _ := strconv.Atoi(found[1]) // it is digits
		if m.args[i-1] == "-netdev" {
			if len(taps) == 0 {
				return files, conns, fmt.Errorf("there is no tap for %s", arg)
			}
			put(fd, taps[0])
			taps = taps[1:]
			continue
		}
		id := idPattern.FindStringSubmatch(arg)
		if id == nil {
			return files, conns, fmt.Errorf("%s has no id", arg)
		}
		ours, theirs, err := socketPair()
		if err != nil {
			return files, conns, err
		}
		conns[id[1]] = ours
		put(fd, theirs)
	}
	for _, id := range []string{"qmp", "agent"} {
		if conns[id] == nil {
			return files, conns, fmt.Errorf("the command line has no descriptor for %s", id)
		}
	}
	return files, conns, m.state(files)
}

// state puts the state of the template where a clone's command line leaves room.
func (m *bareMachine) state(files []*os.File) error {
	if !m.line.clone() {
		return nil
	}
	free := slices.Index(files, nil)
	for _, arg := range m.args {
		ram := ramPattern.FindStringSubmatch(arg)
		if ram == nil || free < 0 {
			continue
		}
		state, err := os.Open(filepath.Join(filepath.Dir(ram[1]), "state"))
		files[free], m.stateFD = state, firstFD+free
		return err
	}
	return errors.New("the command line has no room for the state of the template, or no memory of one")
}

// start starts QEMU, gives it its state if it is a clone, and lets it run.
func (m *bareMachine) start(ctx context.Context) error {
	files, conns, err := m.files()
	defer func() {
		for _, f := range files {
			if f != nil {
				f.Close() // of taps, too: QEMU has them now
			}
		}
	}()
	for _, c := range conns {
		m.conns = append(m.conns, c)
	}
	if err != nil {
		return err
	}
	m.taps = nil
	m.cmd = exec.Command(m.line.qemu, m.args...)
	m.cmd.ExtraFiles, m.cmd.Stderr = files, &m.stderr
	// A session of its own, as falcon's machines have: the kernel may divide
	// the processors among sessions.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := m.cmd.Start(); err != nil {
		return err
	}
	m.done = make(chan struct{})
	go func() { _ = m.cmd.Wait(); close(m.done) }()
	if c := conns["com1"]; c != nil {
		discard(c)
	}
	m.session = mux.Host(conns["agent"])
	m.agent = agent.New(func(ctx context.Context) (io.ReadWriteCloser, error) { return m.session.Open(ctx, nil) })
	defer context.AfterFunc(ctx, func() { conns["qmp"].Close() })()
	return m.explain(m.run(conns["qmp"]))
}

func (m *bareMachine) run(conn net.Conn) (err error) {
	if m.monitor, err = newMonitor(conn); err != nil {
		return err
	}
	if m.stateFD != 0 {
		if err := m.monitor.restore(m.stateFD); err != nil {
			return err
		}
	}
	return m.monitor.execute("cont", nil)
}

// explain adds what QEMU has said to an error.
func (m *bareMachine) explain(err error) error {
	if err == nil {
		return nil
	}
	select {
	case <-m.done:
		return fmt.Errorf("%w; QEMU has ended: %s", err, strings.TrimSpace(m.stderr.String()))
	case <-time.After(time.Second):
		return err
	}
}

// stop ends QEMU.
func (m *bareMachine) stop() {
	if m.done == nil {
		return
	}
	_ = m.cmd.Process.Kill() // it may have ended
	<-m.done
	m.session.Close()
	for _, c := range m.conns {
		c.Close()
	}
	m.done = nil
}

// socketPair returns our end of a pair of sockets, and the end for a child.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close() // FileConn has a copy
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn, theirs, nil
}

// monitor speaks just enough QMP.
type monitor struct {
	in  *json.Decoder
	out *json.Encoder
	// migrated is set when a migration has ended, and how.
	migrated string
}

// qmpMessage is any message of QEMU's.
type qmpMessage struct {
	Return json.RawMessage
	Error  *struct{ Desc string }
	Event  string
	Data   struct{ Status string }
}

func newMonitor(conn net.Conn) (*monitor, error) {
	m := &monitor{in: json.NewDecoder(conn), out: json.NewEncoder(conn)}
	var greeting qmpMessage
	if err := m.in.Decode(&greeting); err != nil {
		return nil, fmt.Errorf("QMP's greeting: %w", err)
	}
	return m, m.execute("qmp_capabilities", nil)
}

// next reads a message and notes what it says of a migration.
func (m *monitor) next() (msg qmpMessage, err error) {
	if err = m.in.Decode(&msg); err != nil {
		return msg, fmt.Errorf("QMP: %w", err)
	}
	if msg.Event == "MIGRATION" && (msg.Data.Status == "completed" || msg.Data.Status == "failed") {
		m.migrated = msg.Data.Status
	}
	return msg, nil
}

func (m *monitor) execute(command string, arguments any) error {
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	if err := m.out.Encode(request); err != nil {
		return fmt.Errorf("QMP %s: %w", command, err)
	}
	for {
		switch msg, err := m.next(); {
		case err != nil:
			return err
		case msg.Error != nil:
			return fmt.Errorf("QMP %s: %s", command, msg.Error.Desc)
		case msg.Return != nil:
			return nil
		}
	}
}

// restore takes a machine's state from a descriptor.
func (m *monitor) restore(fd int) error {
	type capability struct {
		Name  string `json:"capability"`
		State bool   `json:"state"`
	}
	err := m.execute("migrate-set-capabilities", map[string]any{"capabilities": []capability{{"x-ignore-shared", true}, {"events", true}}})
	if err == nil {
		err = m.execute("migrate-incoming", map[string]any{"uri": "fd:" + strconv.Itoa(fd)})
	}
	for err == nil && m.migrated == "" {
		_, err = m.next()
	}
	if err == nil && m.migrated != "completed" {
		err = errors.New("QEMU does not take the state of the template")
	}
	return err
}

// timed returns how many seconds something took, within the deadline of launches.
func timed(ctx context.Context, do func(context.Context) error) (float64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, launchDeadline, fmt.Errorf("it took longer than %v", launchDeadline))
	defer cancel()
	begun := time.Now()
	err := do(ctx)
	return time.Since(begun).Seconds(), err
}
