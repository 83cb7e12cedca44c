package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

// Exit statuses of the shell itself.
const (
	notFound    = 127
	interrupted = 130
)

// shell is the shell of a session.
type shell struct {
	life   *life
	runner *interp.Runner
}

func newShell(l *life) (*shell, error) {
	s := &shell{life: l}
	var err error
	s.runner, err = l.newRunner(append(rootEnvironment(), "TERM=vt220"), "/root", nil, l.g.term, l.g.term)
	return s, err
}

// rootEnvironment is the environment of root's processes.
func rootEnvironment() []string {
	return []string{
		"HOME=/root", "USER=root", "LOGNAME=root", "SHELL=/bin/sh",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "UID=0", "EUID=0", "GID=0",
	}
}

// newRunner returns an interpreter whose files and commands are the guest's.
func (l *life) newRunner(env []string, dir string, in io.Reader, out, err io.Writer, params ...string) (*interp.Runner, error) {
	r, nerr := interp.New(
		interp.Env(expand.ListEnviron(env...)),
		interp.Dir("/"), // there on every host; the guest's follows
		interp.StdIO(in, out, err),
		interp.Params(append([]string{"--"}, params...)...),
		interp.CallHandler(l.call),
		interp.ExecHandlers(func(interp.ExecHandlerFunc) interp.ExecHandlerFunc { return l.exec }),
		interp.OpenHandler(func(ctx context.Context, name string, flag int, _ os.FileMode) (io.ReadWriteCloser, error) {
			return l.open(absolute(interp.HandlerCtx(ctx).Dir, name), flag)
		}),
		interp.ReadDirHandler2(func(_ context.Context, name string) ([]fs.DirEntry, error) { return l.files.list(path.Clean(name)) }),
		interp.StatHandler(func(_ context.Context, name string, _ bool) (fs.FileInfo, error) {
			return l.files.stat(path.Clean(name))
		}),
		interp.AccessHandler(func(_ context.Context, name string, mode interp.AccessMode) error {
			info, err := l.files.stat(path.Clean(name))
			if err == nil && mode == interp.AccessExec && info.Mode()&0o111 == 0 {
				return syscall.EACCES
			}
			return err
		}),
	)
	if nerr != nil {
		return nil, nerr
	}
	cd, nerr := syntax.NewParser().Parse(strings.NewReader("cd "+quoted(dir)), "")
	if nerr != nil {
		return nil, nerr
	}
	_ = r.Run(context.Background(), cd) // it stays in / when the folder has gone
	return r, nil
}

// quoted makes one word of any text.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func absolute(dir, name string) string {
	if !path.IsAbs(name) {
		name = path.Join(dir, name)
	}
	return path.Clean(name)
}

// open opens a file of the guest, the kernel's among them.
func (l *life) open(name string, flag int) (io.ReadWriteCloser, error) {
	switch {
	case name == "/proc/sys/kernel/hostname" && flag&(os.O_WRONLY|os.O_RDWR) != 0:
		return &kernelFile{set: func(text string) { l.setName(strings.TrimSpace(text)) }}, nil
	case name == "/dev/console" || name == "/dev/ttyS0" || name == "/dev/tty":
		return struct {
			io.Reader
			io.Writer
			io.Closer
		}{strings.NewReader(""), l.g.term, io.NopCloser(nil)}, nil
	}
	return l.files.open(name, flag)
}

// kernelFile is a file of /proc that is a setting.
type kernelFile struct {
	text bytes.Buffer
	set  func(string)
}

func (k *kernelFile) Read([]byte) (int, error)    { return 0, io.EOF }
func (k *kernelFile) Write(p []byte) (int, error) { return k.text.Write(p) }
func (k *kernelFile) Close() error {
	k.set(k.text.String())
	return nil
}

// prompt matches the image's.
func (s *shell) prompt() string {
	dir := s.runner.Dir
	switch system := systemOf(s.life.g.cfg.OS); system {
	case "micro":
		return fmt.Sprintf("[%s %s:%s]# ", system, s.life.name(), dir)
	default:
		if dir == "/root" {
			dir = "~"
		}
		return fmt.Sprintf("root@%s:%s# ", s.life.name(), dir)
	}
}

func (s *shell) exited() bool { return s.runner.Exited() }

// foreground runs a command that was typed. What is typed meanwhile is its
// input.
func (s *shell) foreground(file *syntax.File) {
	ctx, done := s.interruptible()
	defer done()
	t := s.life.g.term
	r, w, err := os.Pipe() // which a read can be called off on
	if err != nil {
		fmt.Fprintln(t, "sh:", err)
		return
	}
	defer r.Close()
	stop := false
	var typing sync.WaitGroup
	typing.Go(func() {
		defer w.Close()
		for {
			line, err := t.readLineUntil(&stop)
			var broken brokenError
			if errors.As(err, &broken) {
				continue
			}
			if err != nil {
				return
			}
			if _, err := io.WriteString(w, line+"\n"); err != nil {
				return
			}
		}
	})
	if err := interp.StdIO(r, t, t)(s.runner); err == nil {
		_ = s.runner.Run(ctx, file) // the shell keeps the status
	}
	t.stopReading(&stop)
	typing.Wait()
	// What the command has not read was typed at the shell.
	if rest, err := io.ReadAll(r); err == nil {
		t.unread(lines(rest))
	}
}

// runText runs a command in a subshell and returns its status. Its input is
// empty.
func (s *shell) runText(ctx context.Context, text string, out io.Writer) int {
	return s.life.runIn(ctx, s.runner.Subshell(), text, out, out)
}

func (l *life) runIn(ctx context.Context, r *interp.Runner, text string, out, err io.Writer) int {
	file, perr := syntax.NewParser().Parse(strings.NewReader(text), "sh")
	if perr != nil {
		fmt.Fprintln(err, perr)
		return 2
	}
	if serr := interp.StdIO(nil, out, err)(r); serr != nil {
		fmt.Fprintf(err, "sh: %v\n", serr)
		return 1
	}
	return statusOf(ctx, r.Run(ctx, file))
}

func statusOf(ctx context.Context, err error) int {
	var status interp.ExitStatus
	var killed killedError
	switch {
	case errors.As(err, &killed):
		return 128 + int(killed.signal)
	case ctx.Err() != nil:
		return interrupted
	case errors.As(err, &status):
		return int(status)
	case err != nil:
		return 1
	}
	return 0
}

// call makes what the interpreter would look up on the host a command of ours.
func (l *life) call(_ context.Context, args []string) ([]string, error) {
	switch {
	case len(args) == 3 && args[0] == "command" && args[1] == "-v":
		return []string{"which", args[2]}, nil
	case args[0] == "kill":
		return kill(args)
	}
	return args, nil
}

// killedError ends a shell that has sent itself a signal.
type killedError struct{ signal syscall.Signal }

func (e killedError) Error() string { return e.signal.String() }

// signals are those that people send by name.
var signals = map[string]syscall.Signal{
	"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "QUIT": syscall.SIGQUIT, "KILL": syscall.SIGKILL, "TERM": syscall.SIGTERM}

// kill sends a signal. A shell can reach itself alone, whose number the
// interpreter takes from the process that simulates it: other programs of the
// guest have none.
func kill(args []string) ([]string, error) {
	signal, rest := syscall.SIGTERM, args[1:]
	if len(rest) > 1 && strings.HasPrefix(rest[0], "-") {
		name := strings.TrimPrefix(strings.TrimPrefix(rest[0], "-"), "SIG")
		if n, err := strconv.Atoi(name); err == nil {
			signal = syscall.Signal(n)
		} else if signal = signals[name]; signal == 0 {
			return append([]string{"/bin/kill"}, rest...), nil
		}
		rest = rest[1:]
	}
	if len(rest) == 1 && rest[0] == strconv.Itoa(os.Getpid()) && signal > 0 {
		return nil, killedError{signal}
	}
	return append([]string{"/bin/kill"}, rest...), nil
}

// exec runs a program of the guest.
func (l *life) exec(ctx context.Context, args []string) error {
	hc := interp.HandlerCtx(ctx)
	out := &gather{to: hc.Stdout}
	c := &command{life: l, ctx: ctx, args: args, env: hc.Env, dir: hc.Dir, in: hc.Stdin, out: out, err: after{out, hc.Stderr}}
	if c.in == nil {
		c.in = strings.NewReader("")
	}
	status := l.program(c)
	out.flush()
	if ctx.Err() != nil {
		status = interrupted
	}
	if status != 0 {
		return interp.ExitStatus(status)
	}
	return nil
}

// program finds what a command's name stands for and runs it.
func (l *life) program(c *command) int {
	name := c.args[0]
	if strings.Contains(name, "/") {
		full := absolute(c.dir, name)
		text, err := l.files.read(full)
		switch {
		case err == nil && !bytes.HasPrefix(text, []byte(programMark)):
			return l.shellScript(c, full, string(text))
		case err != nil:
			fmt.Fprintf(c.err, "sh: %s: not found\n", name)
			return notFound
		}
		name = path.Base(full)
	}
	if name == "sh" || name == "bash" || name == "ash" || name == "dash" {
		return c.sh()
	}
	f := programs()[name]
	if f == nil {
		fmt.Fprintf(c.err, "sh: %s: not found\n", name)
		return notFound
	}
	return f(c)
}

// shellScript runs the text of a file with the command's arguments.
func (l *life) shellScript(c *command, name, text string) int {
	return c.run(text, c.args[1:]...)
}

// sh runs a shell of its own.
func (c *command) sh() int {
	args := c.args[1:]
	for len(args) > 0 && strings.HasPrefix(args[0], "-") && args[0] != "-c" {
		args = args[1:]
	}
	switch {
	case len(args) >= 2 && args[0] == "-c":
		var params []string
		if len(args) > 3 {
			params = args[3:]
		}
		return c.run(args[1], params...)
	case len(args) > 0:
		text, err := c.life.files.read(absolute(c.dir, args[0]))
		if err != nil {
			return c.fail("%v", cause(err))
		}
		return c.run(string(text), args[1:]...)
	}
	text, err := io.ReadAll(c.in)
	if err != nil {
		return c.fail("%v", err)
	}
	return c.run(string(text))
}

// run runs a text in a shell that inherits what is exported.
func (c *command) run(text string, params ...string) int {
	var env []string
	for name, v := range c.env.Each {
		if v.Exported && v.IsSet() {
			env = append(env, name+"="+v.String())
		}
	}
	r, err := c.life.newRunner(env, c.dir, c.in, c.out, c.err, params...)
	if err != nil {
		return c.fail("%v", err)
	}
	file, err := syntax.NewParser().Parse(strings.NewReader(text), "sh")
	if err != nil {
		return c.fail("%v", err)
	}
	return statusOf(c.ctx, r.Run(c.ctx, file))
}

// gather collects what a program writes, so that a line costs no more than its
// bytes, and hands it on when there is much or a moment has passed.
type gather struct {
	to io.Writer

	mu    sync.Mutex
	buf   []byte
	timer *time.Timer
	err   error
}

const (
	gatherSize = 4 << 10
	gatherTime = 5 * time.Millisecond
)

func (g *gather) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil {
		return 0, g.err
	}
	g.buf = append(g.buf, p...)
	switch {
	case len(g.buf) >= gatherSize:
		g.push()
	case g.timer == nil:
		g.timer = time.AfterFunc(gatherTime, g.flush)
	}
	return len(p), g.err
}

// push hands on what is there. The caller holds mu.
func (g *gather) push() {
	if g.timer != nil {
		g.timer.Stop()
		g.timer = nil
	}
	if len(g.buf) > 0 && g.err == nil {
		_, g.err = g.to.Write(g.buf)
		g.buf = g.buf[:0]
	}
}

// after is a program's standard error, which follows what it has written before.
type after struct {
	out *gather
	err io.Writer
}

func (a after) Write(p []byte) (int, error) {
	a.out.flush()
	return a.err.Write(p)
}

func (g *gather) flush() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.push()
}

// programMark begins the content of the files that stand for programs.
const programMark = "\x7fELF"

// baseFiles is the file tree of an image.
func baseFiles(system string) map[string]*file {
	made := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	tree := make(map[string]*file)
	for _, d := range []string{
		"/", "/bin", "/dev", "/etc", "/home", "/lib", "/mnt", "/opt", "/proc", "/proc/sys", "/proc/sys/kernel", "/root", "/run",
		"/sbin", "/srv", "/sys", "/sys/class", "/sys/class/net", "/tmp", "/usr", "/usr/bin", "/usr/sbin", "/var", "/var/lib", "/var/log", "/var/tmp",
	} {
		tree[d] = &file{Mode: fs.ModeDir | 0o755, Time: made}
	}
	tree["/dev/null"] = &file{Mode: fs.ModeDevice | fs.ModeCharDevice | 0o666, Time: made}
	for _, d := range []string{"/dev/zero", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ttyS0", "/dev/console"} {
		tree[d] = tree["/dev/null"]
	}
	for name, text := range map[string]string{
		"/etc/hosts":      "127.0.0.1 localhost\n",
		"/etc/passwd":     "root:x:0:0:root:/root:/bin/sh\n",
		"/etc/group":      "root:x:0:\n",
		"/etc/os-release": fmt.Sprintf("NAME=%q\nID=%s\nPRETTY_NAME=\"%s (simulated)\"\n", system, systemOf(system), system),
	} {
		tree[name] = &file{Mode: 0o644, Data: []byte(text), Time: made}
	}
	for _, name := range append(slices.Collect(maps.Keys(programs())), "sh") {
		tree["/bin/"+name] = &file{Mode: 0o755, Data: []byte(programMark), Time: made}
	}
	return tree
}
