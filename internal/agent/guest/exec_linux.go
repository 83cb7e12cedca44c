package guest

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/internal/agent"
)

// exec runs a command for a call.
func (s *server) exec(c *call, content []byte) {
	x, err := agent.DecodeExec(content)
	if err == nil {
		err = s.run(c, x)
	}
	if err != nil {
		c.done(nil, err)
	}
}

// run runs a command and answers when it has ended. What it has left in the
// background then runs on, but for a command that was cut off.
func (s *server) run(c *call, x agent.Exec) error {
	p, err := s.start(x)
	if err != nil {
		return err
	}
	defer s.name(x.ID, p)()
	if x.Timeout > 0 {
		timer := time.AfterFunc(x.Timeout, func() { p.end(true) })
		defer timer.Stop()
	}
	c.stream.OnEnd(func() { p.end(false) })
	if p.stdin != nil {
		go p.feed(c)
	}
	var pumps sync.WaitGroup
	if p.stderr != nil {
		pumps.Go(func() { pump(c, agent.Stderr, p.stderr) })
	}
	pumps.Go(func() { pump(c, agent.Stdout, p.stdout) })
	status := p.wait()
	for _, f := range []*os.File{p.stdout, p.stderr} {
		if f != nil { // a process in the background may keep it open
			_ = f.SetReadDeadline(time.Unix(1, 0))
		}
	}
	pumps.Wait()
	p.close()
	exit := agent.Exit{Status: status.ExitStatus(), TimedOut: p.timedOut}
	if status.Signaled() {
		exit.Status, exit.Signal = 0, int(status.Signal())
	}
	_ = c.SendLast(c.stream, agent.Exited, exit.Encode())
	return nil
}

// name makes a process known to interrupts until the returned function is called.
func (s *server) name(id uint64, p *process) (forget func()) {
	if id == 0 {
		return func() {}
	}
	s.mu.Lock()
	s.running[id] = p
	s.mu.Unlock()
	return func() {
		s.mu.Lock()
		delete(s.running, id)
		s.mu.Unlock()
	}
}

// interrupt interrupts a command that runs.
func (s *server) interrupt(content []byte) error {
	id, err := agent.DecodeNumber(content)
	if err != nil {
		return err
	}
	s.mu.Lock()
	p := s.running[id]
	s.mu.Unlock()
	if p == nil {
		return errors.New("the command that is to be interrupted does not run")
	}
	p.interrupt()
	return nil
}

// process is a command that runs, the leader of a session and of its process
// group.
type process struct {
	pid                   int
	pidfd                 *os.File // nil on a kernel without
	stdin, stdout, stderr *os.File

	mu          sync.Mutex
	interrupted bool // it is to end by itself
	ending      bool // it is being cut off
	timedOut    bool
	reaped      bool
	killer      *time.Timer
}

// start starts a command. It goes by the system calls themselves: each process,
// pipe and goroutine that is spared is time of a guest that is translated.
func (s *server) start(x agent.Exec) (_ *process, err error) {
	if len(x.Argv) == 0 {
		return nil, errors.New("no command is given")
	}
	env := with(s.env, x.Env)
	path, err := lookPath(x.Argv[0], variable(env, "PATH"))
	if err != nil {
		return nil, err
	}
	dir := absolute(x.Dir)
	p := &process{}
	var theirs []int
	defer func() {
		for _, fd := range theirs {
			unix.Close(fd)
		}
		if err != nil {
			p.close()
		}
	}()
	pipe := func(ours **os.File, read bool) (theirFD int) {
		if err == nil {
			if theirFD, *ours, err = pipe(read); err == nil {
				theirs = append(theirs, theirFD)
			}
		}
		return theirFD
	}
	files := []uintptr{uintptr(s.null), 0, 0}
	if x.Stdin {
		files[0] = uintptr(pipe(&p.stdin, false))
	}
	files[1] = uintptr(pipe(&p.stdout, true))
	if files[2] = files[1]; !x.Merge {
		files[2] = uintptr(pipe(&p.stderr, true))
	}
	if err != nil {
		return nil, err
	}
	pidfd := -1
	p.pid, err = syscall.ForkExec(path, x.Argv, &syscall.ProcAttr{
		Dir: dir, Env: env, Files: files,
		Sys: &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd},
	})
	if err != nil {
		if info, serr := os.Stat(dir); serr != nil || !info.IsDir() {
			return nil, fmt.Errorf("there is no folder %s to run %s in", dir, x.Argv[0])
		}
		return nil, fmt.Errorf("running %s: %w", path, err)
	}
	if pidfd >= 0 && unix.SetNonblock(pidfd, true) == nil {
		p.pidfd = os.NewFile(uintptr(pidfd), "pidfd")
	} else if pidfd >= 0 {
		unix.Close(pidfd)
	}
	return p, nil
}

// pipe makes a pipe for a command. Our end can be waited for without a thread.
func pipe(read bool) (theirs int, ours *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return 0, nil, fmt.Errorf("making a pipe: %w", err)
	}
	our, their := fds[1], fds[0]
	if read {
		our, their = fds[0], fds[1]
	}
	if err := unix.SetNonblock(our, true); err != nil {
		unix.Close(our)
		unix.Close(their)
		return 0, nil, fmt.Errorf("making a pipe: %w", err)
	}
	return their, os.NewFile(uintptr(our), "pipe"), nil
}

// lookPath finds a program as a shell does.
func lookPath(name, path string) (string, error) {
	if name == "" {
		return "", errors.New("the name of the command is empty")
	}
	if strings.Contains(name, "/") {
		return name, nil
	}
	for dir := range strings.SplitSeq(path, ":") {
		if dir == "" {
			dir = "."
		}
		file := dir + "/" + name
		var st unix.Stat_t
		if unix.Stat(file, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Mode&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("there is no program %s in %s", name, path)
}

// feed passes input on until its end, or that of the command or the call.
func (p *process) feed(c *call) {
	for {
		kind, content, err := c.Receive()
		if err != nil || kind != agent.Stdin {
			p.stdin.Close()
			return
		}
		// A command that does not want more is no failure. Nor is more taken from
		// the host, which then does not read more of its input.
		if _, err := p.stdin.Write(content); err != nil {
			p.stdin.Close()
			return
		}
	}
}

// outputs keeps the buffers of pumps.
var outputs = sync.Pool{New: func() any { return new([agent.MaxMessage]byte) }}

// pump sends what a command writes.
func pump(c *call, kind agent.Kind, f *os.File) {
	buf := outputs.Get().(*[agent.MaxMessage]byte)
	defer outputs.Put(buf)
	for {
		n, err := f.Read(buf[:])
		if n > 0 && c.Send(kind, buf[:n]) != nil {
			return
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			drain(c, kind, f, buf[:])
		}
		if err != nil {
			return
		}
	}
}

// drain sends what a command that has ended left in a pipe. It stops at what a
// pipe holds, because processes in the background may write on.
func drain(c *call, kind agent.Kind, f *os.File, buf []byte) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		left, err := unix.FcntlInt(fd, unix.F_GETPIPE_SZ, 0)
		for left > 0 && err == nil {
			var n int
			if n, err = unix.Read(int(fd), buf[:min(len(buf), left)]); n <= 0 {
				return
			}
			if c.Send(kind, buf[:n]) != nil {
				return
			}
			left -= n
		}
	})
}

// interrupt does what Ctrl-C does, and cuts the command off if it goes on.
func (p *process) interrupt() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.interrupted || p.ending || p.reaped {
		return
	}
	p.interrupted = true
	_ = unix.Kill(-p.pid, unix.SIGINT)
	_ = unix.Kill(-p.pid, unix.SIGCONT)
	p.killer = time.AfterFunc(interruptGrace, func() { p.end(false) })
}

// end cuts the command off, with its process group.
func (p *process) end(timedOut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ending || p.reaped {
		return
	}
	if p.killer != nil {
		p.killer.Stop()
	}
	p.ending, p.timedOut = true, timedOut
	// Stopped processes, too, are to hear it.
	_ = unix.Kill(-p.pid, unix.SIGTERM)
	_ = unix.Kill(-p.pid, unix.SIGCONT)
	p.killer = time.AfterFunc(killGrace, p.kill)
}

// kill ends what is left of the process group by force.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		_ = unix.Kill(-p.pid, unix.SIGKILL)
	}
}

// wait waits for the command's end and reaps it.
func (p *process) wait() syscall.WaitStatus {
	if p.pidfd != nil {
		if raw, err := p.pidfd.SyscallConn(); err == nil {
			_ = raw.Read(func(uintptr) bool { return p.exited(unix.WNOHANG) })
		}
	}
	p.exited(0) // waits where the above could not
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.interrupted || p.ending {
		// What of the group has not heeded the first signal. As long as its
		// leader is not reaped, the number is the group's.
		_ = unix.Kill(-p.pid, unix.SIGKILL)
		p.killer.Stop()
	}
	p.reaped = true
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(p.pid, &status, 0, nil)
		if !errors.Is(err, syscall.EINTR) {
			return status
		}
	}
}

// exited reports whether the command has ended, without reaping it.
func (p *process) exited(flags int) bool {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, p.pid, &info, unix.WEXITED|unix.WNOWAIT|flags, nil)
		if !errors.Is(err, unix.EINTR) {
			return err != nil || info.Signo != 0
		}
	}
}

// close closes our ends of the command's pipes.
func (p *process) close() {
	for _, f := range []*os.File{p.stdin, p.stdout, p.stderr, p.pidfd} {
		if f != nil {
			f.Close()
		}
	}
}
