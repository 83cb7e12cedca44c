package console

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// fakeGetty is a guest as a script: boot text, then getty's and login's part
// for user root, until a shell is started. PW is the password, SAY what is
// printed behind the prompt.
const fakeGetty = `#!/bin/sh
printf 'SeaBIOS (version 1)\r\n'
printf '[    0.000000] Linux version 6.1\n[    0.500000] audit: login: not a prompt\n'
printf 'Debian 12 console, see login: for help\n'
while :; do
	printf 'Debian GNU/Linux 12 violin ttyS0\n\nviolin login: '
	test -n "$SAY" && { printf '%s\n' "$SAY"; SAY=; }
	read -r user || exit
	test -n "$user" || continue
	if test -n "$PW"; then
		stty -echo; printf 'Password: '; read -r pw; stty echo; echo
		if test "$user:$pw" != "root:$PW"; then sleep 0.1; printf '\nLogin incorrect\n'; continue; fi
	elif test "$user" != root; then printf '\nLogin incorrect\n'; continue; fi
	printf 'Last login: '; sleep 0.05; printf 'Tue Nov 21 on ttyS0\nWelcome: 100%% # of fun\n'
	printf '[    9.000000] random: crng init done\n'
	SHELL_COMMAND
done
`

// gettyConsole is a console on such a guest.
func gettyConsole(t *testing.T, shell string, env ...string) *Console {
	t.Helper()
	dir := t.TempDir()
	script := filepath.Join(dir, "getty")
	if err := os.WriteFile(script, []byte(strings.Replace(fakeGetty, "SHELL_COMMAND", shell, 1)), 0o700); err != nil {
		t.Fatal(err)
	}
	return consoleOn(t, startPty(t, dir, append(append([]string{"env"}, env...), "sh", script)...))
}

var rootLogin = Profile{Known: true, User: "root"}

func TestLoginGoesThroughGettyToAShell(t *testing.T) {
	cases := map[string]struct {
		env []string
		p   Profile
	}{
		"no password":                {nil, rootLogin},
		"password":                   {[]string{"PW=a b'c"}, Profile{Known: true, User: "root", Password: "a b'c"}},
		"message behind the prompt":  {[]string{"SAY=[    5.123456] eth0: link up"}, rootLogin},
		"prompt hidden by a message": {[]string{"SAY=eth0: link up"}, rootLogin},
		"prompt of the image":        {nil, Profile{Known: true, User: "root", Prompt: regexp.MustCompile(`^node# $`)}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := gettyConsole(t, "bash --norc -i", tc.env...)
			var stages []string
			tc.p.Progress = func(s Stage) { stages = append(stages, string(s)) }
			if err := c.Login(within(t, 20*time.Second), tc.p); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(stages, " "); got != "firmware kernel login" {
				t.Errorf("stages %q", got)
			}
			if res := mustExec(t, c, "echo in"); string(res.Output) != "in\n" {
				t.Errorf("got %q", res.Output)
			}
		})
	}
}

func TestLoginAcceptsAConsoleThatIsLoggedIn(t *testing.T) {
	eachShell(t, func(t *testing.T, argv []string) {
		dir := t.TempDir()
		c := consoleOn(t, startPty(t, dir, argv...))
		waitFor(t, c, "node# ")
		typed(t, c, "touch half-typed")
		waitFor(t, c, "half-typed")
		if err := c.Login(within(t, 20*time.Second), Profile{}); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "half-typed")); err == nil {
			t.Error("a half-typed line was run")
		}
		start := time.Now()
		if err := c.Login(within(t, 20*time.Second), Profile{}); err != nil {
			t.Errorf("the second time: %v", err)
		}
		t.Logf("second login in %v", time.Since(start))
	})
}

func TestLoginBreaksOffAHalfTypedCommand(t *testing.T) {
	eachShell(t, func(t *testing.T, argv []string) {
		c := consoleOn(t, startPty(t, t.TempDir(), argv...))
		waitFor(t, c, "node# ")
		typed(t, c, "echo 'it goes on\r")
		waitFor(t, c, "> ")
		if err := c.Login(within(t, 20*time.Second), Profile{}); err != nil {
			t.Error(err)
		}
	})
}

func TestLoginThatIsRefusedSaysSo(t *testing.T) {
	c := gettyConsole(t, "bash --norc -i", "PW=right")
	err := c.Login(within(t, 20*time.Second), Profile{Known: true, User: "root", Password: "wrong"})
	if !errors.Is(err, ErrLogin) || !strings.Contains(err.Error(), "Login incorrect") {
		t.Errorf("error %v", err)
	}
}

func TestLoginPromptOfAnUnknownImageIsAnError(t *testing.T) {
	c := gettyConsole(t, "bash --norc -i")
	if err := c.Login(within(t, 20*time.Second), Profile{}); !errors.Is(err, ErrLogin) {
		t.Errorf("login: %v", err)
	}
	if _, err := c.Exec(within(t, 20*time.Second), Command{Shell: "true"}); !errors.Is(err, ErrLogin) {
		t.Errorf("exec: %v", err)
	}
}

func TestLoginDeadlineShowsWhatWasSeen(t *testing.T) {
	c := consoleOn(t, startPty(t, t.TempDir(), "sh", "-c", `printf '[    1.000000] \033[31mKernel panic\033[0m - not syncing\n'; sleep 60`))
	err := c.Login(within(t, 800*time.Millisecond), rootLogin)
	var te *TimeoutError
	if !errors.As(err, &te) || !te.Timeout() || te.After < 700*time.Millisecond || te.Awaited != "a login or shell prompt" {
		t.Fatalf("error %#v", err)
	}
	if !strings.Contains(err.Error(), "Kernel panic - not syncing") {
		t.Errorf("the console's tail is missing: %v", err)
	}
}

func TestExecLogsInAndOutAgain(t *testing.T) {
	c := gettyConsole(t, "bash --norc -i", "PW=x")
	waitFor(t, c, "violin login:")
	p := Profile{Known: true, User: "root", Password: "x"}
	for range 2 {
		res, err := c.Exec(within(t, 30*time.Second), Command{Shell: "echo $((40+2)); exit 6", Login: &p})
		if err != nil || string(res.Output) != "42\n" || res.Status != 6 {
			t.Fatalf("%q status %d, %v", res.Output, res.Status, err)
		}
		if tail := c.Tail(); !strings.HasSuffix(tail, "violin login:") {
			t.Errorf("the console was not logged out of:\n%s", tail)
		}
	}
}

// fakeMenu is a boot menu that waits. Ctrl-E goes to its last entry, as in
// GRUB's, Enter starts what is chosen.
const fakeMenu = `stty raw -echo
chosen='exec sh -i'
printf '*the first entry\r\n the last entry\r\n'
while :; do
	case $(dd bs=1 count=1 2>&- | od -An -tx1) in
	*05) chosen='printf "the last entry is started\r\n"; sleep 60' ;;
	*0d) stty sane; eval "$chosen" ;;
	esac
done
`

func TestLoginTakesABootMenusChoice(t *testing.T) {
	c := consoleOn(t, startPty(t, t.TempDir(), "env", "PS1=# ", "sh", "-c", fakeMenu))
	if err := c.Login(within(t, 10*time.Second), Profile{}); err != nil {
		t.Error(err)
	}
}
