package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"mvdan.cc/sh/v3/syntax"

	"github.com/falcon-vm/falcon-go/falcon/internal/console"
)

// run is the life of a guest: it boots, and lets people in on its console.
func (l *life) run() {
	t := l.g.term
	t.begin()
	if !l.obey(l.boot) {
		return
	}
	if l.again && Sleep(l.ctx, resetTime) != nil {
		return
	}
	fmt.Fprint(t, l.bootMessages())
	refuse := false
	switch r := l.g.script.Next(StepLogin, l.g.cfg.Name); r.Effect {
	case Never:
		fmt.Fprintf(t, "[%12.6f] random: crng init done\n", l.uptime())
		<-l.ctx.Done()
		return
	case Delay:
		if Sleep(l.ctx, r.Delay) != nil {
			return
		}
	case Fail:
		refuse = true
	case Die:
		l.g.die()
		return
	}
	close(l.up)
	for l.ctx.Err() == nil {
		if err := l.session(refuse); err != nil {
			return
		}
	}
}

// resetTime is how long a guest takes to be back after a reset. Who asked for
// it must have learned of it by then: a prompt that shows up earlier is taken
// for one of before.
const resetTime = 50 * time.Millisecond

// obey does what a rule says of a step that has no form of its own; it reports
// whether the guest goes on.
func (l *life) obey(r Rule) bool {
	switch r.Effect {
	case Never:
		<-l.ctx.Done()
		return false
	case Delay:
		return Sleep(l.ctx, r.Delay) == nil
	case Die:
		l.g.die()
		return false
	}
	return true
}

func (l *life) uptime() float64 { return time.Since(l.start).Seconds() }

func (l *life) bootMessages() string {
	return fmt.Sprintf("[    0.000000] Linux version 6.1.0-sim (%s, simulated)\n[    0.000001] Memory: %d MiB, CPUs: %d\n",
		l.g.cfg.OS, l.g.spec.Board.MemoryMiB, l.g.spec.Board.CPUs)
}

// name returns the guest's host name.
func (l *life) name() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hostname
}

func (l *life) setName(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hostname = name
}

// session lets somebody log in and work until they leave. An error means that
// the terminal has gone.
func (l *life) session(refuse bool) error {
	if login := l.g.cfg.Console.Login; login != "" || refuse {
		if login == "" {
			login = "login:"
		}
		if err := l.login(login, refuse); err != nil {
			return err
		}
	}
	s, err := newShell(l)
	if err != nil {
		return err
	}
	for !s.exited() {
		err := s.interact()
		switch {
		case errors.Is(err, io.EOF):
			fmt.Fprintln(l.g.term, "exit")
			return nil
		case err != nil:
			return err
		}
	}
	return nil
}

// login asks until user and password are right.
func (l *life) login(question string, refuse bool) error {
	t, want := l.g.term, l.g.cfg.Console
	ask := func(text string, secret bool) (string, error) {
		fmt.Fprint(t, text)
		t.set(secret, false)
		defer t.set(false, false)
		return t.readLine()
	}
	for {
		user, err := ask(fmt.Sprintf("\n%s %s ", l.name(), question), false)
		if errors.Is(err, io.ErrClosedPipe) {
			return err
		}
		if user = strings.TrimSpace(user); err != nil || user == "" {
			continue
		}
		password := want.Password
		if password != "" || user != want.User || refuse {
			if password, err = ask("Password: ", true); errors.Is(err, io.ErrClosedPipe) {
				return err
			}
			fmt.Fprintln(t)
		}
		if err == nil && user == want.User && password == want.Password && !refuse {
			return nil
		}
		fmt.Fprintln(t, "Login incorrect")
	}
}

// interact shows the prompt, takes a command, and runs it.
func (s *shell) interact() error {
	t := s.life.g.term
	fmt.Fprint(t, s.prompt())
	text := ""
	for {
		line, err := t.readLine()
		var broken brokenError
		switch {
		case errors.As(err, &broken), errors.Is(err, io.EOF) && text != "":
			return nil
		case err != nil:
			return err
		}
		if text == "" {
			if h := console.ParseBootstrap(line); h != nil {
				return s.exchange(h)
			}
		}
		text += line + "\n"
		file, err := syntax.NewParser().Parse(strings.NewReader(text), "sh")
		switch {
		case syntax.IsIncomplete(err):
			fmt.Fprint(t, "> ")
			continue
		case err != nil:
			fmt.Fprintln(t, err)
			return nil
		}
		s.foreground(file)
		return nil
	}
}

// interruptible returns a context that Ctrl-C ends, until done is called.
func (s *shell) interruptible() (ctx context.Context, done func()) {
	ctx, cancel := context.WithCancel(s.life.ctx)
	s.life.g.term.onInterrupt(cancel)
	return ctx, func() {
		s.life.g.term.onInterrupt(nil)
		cancel()
	}
}

// exchange runs a command that falcon hands over.
func (s *shell) exchange(h *console.Handover) error {
	t := s.life.g.term
	t.set(false, true)
	defer t.set(false, false)
	_, _ = io.WriteString(t, h.Ready())
	for {
		line, err := t.readLine()
		var broken brokenError
		switch {
		case errors.As(err, &broken), errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		answer, done, err := h.Line(line)
		_, _ = io.WriteString(t, answer)
		if err != nil {
			return nil // the other side tries again
		}
		if done {
			break
		}
	}
	t.set(false, false)
	ctx, done := s.interruptible()
	defer done()
	if !s.life.setUp {
		s.life.setUp = true
		if !s.life.obey(s.life.g.script.Next(StepSetUp, s.life.g.cfg.Name)) {
			return io.ErrClosedPipe
		}
	}
	if h.Direct {
		status := s.runText(ctx, h.Shell, t)
		_, err := io.WriteString(t, h.Status(status))
		return err
	}
	r, w := io.Pipe()
	status := make(chan int, 1)
	go func() {
		out := &gather{to: w}
		n := s.life.scripted(ctx, func() int { return s.runText(ctx, h.Shell, out) })
		out.flush()
		status <- n
		w.Close()
	}()
	return h.Send(t, r, func() int { return <-status })
}

// scripted runs a command unless the script has something else in mind.
func (l *life) scripted(ctx context.Context, run func() int) int {
	switch r := l.g.script.Next(StepExec, l.g.cfg.Name); r.Effect {
	case Fail:
		return 1
	case Never:
		<-ctx.Done()
		return interrupted
	case Delay:
		if Sleep(ctx, r.Delay) != nil {
			return interrupted
		}
	}
	return run()
}
