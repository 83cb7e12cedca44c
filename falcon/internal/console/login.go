package console

import (
	"context"
	"crypto/rand"
	"fmt"
	"regexp"
	"time"
)

// Profile says how the console of an image is logged in to. With the zero
// value a console that shows a shell prompt by itself still works.
type Profile struct {
	// Known says that User and Password hold. Without it a login prompt is an
	// error, not a place to try.
	Known    bool
	User     string
	Password string
	// Login and Prompt match the unterminated line of a login prompt and of the
	// shell's prompt, where the usual ones ("… login: "; "…# ", "…$ ") do not.
	Login, Prompt *regexp.Regexp
	// Progress, if set, is called once for each stage when the console first
	// shows it. It must not block.
	Progress func(Stage)
}

// Stage is how far a guest has come, as seen on its console.
type Stage string

// The stages, in order. A guest may skip some.
const (
	StageFirmware Stage = "firmware"
	StageKernel   Stage = "kernel"
	StageLogin    Stage = "login" // a login or shell prompt was shown
)

const (
	// settleTime is how long a prompt must stand still to be one. Text that is
	// being printed pauses for less.
	settleTime = 30 * time.Millisecond
	// firstNudge is the quiet time after which Login asks for a new prompt with
	// Enter, because a message may have hidden it or it was shown before the
	// stream began. The time doubles up to lastNudge.
	firstNudge = 1500 * time.Millisecond
	lastNudge  = 12 * time.Second
	// nudge is Enter on a cleared line. It must do no harm to a boot loader's
	// menu, where the firmware may have kept it for: Ctrl-E, which [clearLine]
	// begins with, would choose GRUB's last entry.
	nudge = "\x15\r"
	// verifyTime is how long a shell may take to answer at a prompt.
	verifyTime = 10 * time.Second
	// maxRefusals is how often a login is tried: noise may have spoilt one.
	maxRefusals = 3
)

var (
	firmwareText = regexp.MustCompile(`SeaBIOS|iPXE|BdsDxe|UEFI|GRUB|TianoCore`)
	kernelText   = regexp.MustCompile(`^\[ *[0-9]+\.[0-9]{6}\]|Linux version|Booting the kernel|Decompressing Linux|SunOS Release|illumos`)
)

// Login waits for the console to show a shell prompt, logging in where it shows
// a login prompt, and returns when a shell has answered. Text that was typed
// but not entered is cleared. ctx should have a deadline; what was awaited and
// the console's last lines are in the error.
func (c *Console) Login(ctx context.Context, p Profile) error {
	s, err := c.begin(ctx, true)
	if err != nil {
		return err
	}
	defer s.close()
	_, err = s.login(ctx, p)
	return err
}

// login is Login; it also reports whether it had to log in.
func (s *session) login(ctx context.Context, p Profile) (bool, error) {
	l := &loginer{s: s, p: p, quiet: firstNudge, awaited: "a login or shell prompt"}
	l.lines.onLine = l.sawLine
	l.lines.line = []byte(s.line)
	start := time.Now()
	for {
		done, err := l.step(ctx)
		if err != nil {
			return l.sentUser, s.explain(err, l.awaited, start)
		}
		if done {
			return l.sentUser, nil
		}
	}
}

type loginer struct {
	s        *session
	p        Profile
	lines    lineScanner
	awaited  string
	quiet    time.Duration // until the next nudge
	told     [3]bool       // stages reported
	sentUser bool
	refused  int
	hidden   string // a prompt behind which a message ended the line
}

// step reads some output, or acts on a console that has become quiet.
func (l *loginer) step(ctx context.Context) (bool, error) {
	data, quiet, err := l.s.nextWithin(ctx, settleTime)
	if err != nil {
		return false, err
	}
	if !quiet {
		_, _ = l.lines.Write(data)
		return false, l.check()
	}
	if done, acted, err := l.prompt(ctx); done || acted || err != nil {
		return done, err
	}
	data, quiet, err = l.s.nextWithin(ctx, l.quiet)
	if err != nil {
		return false, err
	}
	if quiet {
		l.quiet = min(2*l.quiet, lastNudge)
		return false, l.s.send(ctx, nudge)
	}
	_, _ = l.lines.Write(data)
	return false, l.check()
}

func (l *loginer) check() error {
	if l.refused >= maxRefusals {
		return fmt.Errorf("%w: user %q was refused %d times%s", ErrLogin, l.p.User, l.refused, tailText(l.s.c.Tail()))
	}
	return nil
}

func (l *loginer) sawLine(line string) {
	switch {
	case l.sentUser && loginRefused.MatchString(line):
		l.refused++
	case kernelText.MatchString(line):
		l.stage(1, StageKernel)
	case firmwareText.MatchString(line):
		l.stage(0, StageFirmware)
	}
	if cut := withoutKernel(line); cut != line {
		l.hidden = cut
	}
}

func (l *loginer) stage(i int, s Stage) {
	for _, later := range l.told[i:] {
		if later {
			return
		}
	}
	l.told[i] = true
	if l.p.Progress != nil {
		l.p.Progress(s)
	}
}

// prompt acts on the prompt that the quiet console shows, if it shows one.
func (l *loginer) prompt(ctx context.Context) (done, acted bool, err error) {
	line := withoutKernel(l.lines.partial())
	if line == "" {
		line = l.hidden
	}
	l.hidden = ""
	answer := func(text, awaited string) (bool, bool, error) {
		l.stage(2, StageLogin)
		l.lines.line = l.lines.line[:0]
		l.awaited, l.quiet = awaited, firstNudge
		return false, true, l.s.send(ctx, text+"\r")
	}
	switch {
	case isLogin(line) || l.p.Login != nil && l.p.Login.MatchString(line):
		if !l.p.Known {
			l.stage(2, StageLogin)
			return false, true, fmt.Errorf("%w: the image says no user for %q; log in by hand (serial %s)", ErrLogin, line, l.s.c.name)
		}
		l.sentUser = true
		return answer(clearLine+l.p.User, "a password or shell prompt after the user name")
	case l.sentUser && passwordPrompt.MatchString(line):
		return answer(l.p.Password, "a shell prompt after the password")
	case promptOf(line, nil) == promptContinued && !(l.p.Prompt != nil && l.p.Prompt.MatchString(line)):
		l.lines.line = l.lines.line[:0]
		return false, true, l.s.send(ctx, "\x03") // whatever is typed would only continue the command
	case isPrompt(line, l.p.Prompt):
		l.stage(2, StageLogin)
		l.awaited = "the shell to answer at its prompt"
		ok, err := l.s.verify(ctx)
		l.lines.line = append(l.lines.line[:0], l.s.line...)
		return ok, true, err
	}
	return false, false, nil
}

// verify makes the shell at the prompt prove itself.
func (s *session) verify(ctx context.Context) (bool, error) {
	id := newID()
	d := NewDecoder(id)
	if err := s.send(ctx, verifyLine(id)); err != nil {
		return false, err
	}
	for limit := time.Now().Add(verifyTime); !d.Verified; {
		p, quiet, err := s.nextWithin(ctx, time.Until(limit))
		if err != nil || quiet {
			return false, err
		}
		if _, err := d.Feed(p); err != nil {
			return false, err
		}
	}
	return true, nil
}

// newID makes an identifier of 45 bits that nothing on the console has by chance.
func newID() string { return rand.Text()[:9] }
