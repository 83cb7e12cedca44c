package console

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestExecGivesOutputAndStatus(t *testing.T) {
	cases := []struct {
		name, shell, out string
		status           int
	}{
		{"nothing", "true", "", 0},
		{"status", "exit 7", "", 7},
		{"line", "echo hello", "hello\n", 0},
		{"no final newline", "printf abc", "abc", 0},
		{"only newlines", `printf '\n\n'`, "\n\n", 0},
		{"both streams in order", "echo a; echo b >&2; echo c", "a\nb\nc\n", 0},
		{"nul and controls", `printf '\000\001\003\004\021\023\032\034\036\r\n\177\377'`, "\x00\x01\x03\x04\x11\x13\x1a\x1c\x1e\r\n\x7f\xff", 0},
		{"quotes", `echo 'it'"'"'s' "\"q\"" \\ '!' $((1+1)) '%s'`, "it's \"q\" \\ ! 2 %s\n", 0},
		{"unicode", "echo 'grüße 日本 🎻'", "grüße 日本 🎻\n", 0},
		{"several lines", "for i in 1 2; do\n\techo $i\ndone\n", "1\n2\n", 0},
		{"here document", "cat <<'E'\n$x `y`\nE", "$x `y`\n", 0},
		{"input is empty", "cat; read x; echo $?", "1\n", 0},
		{"set -e", "set -e; false; echo no", "", 1},
		{"exec", "exec echo gone", "gone\n", 0},
		{"killed", "kill -9 $$", "", 137},
		{"not found", "no-such-command-here 2>/dev/null", "", 127},
		{"closes its output", "exec >&- 2>&-; exit 3", "", 3},
		{"no leak", `echo "$_c$_i$_n$_b$1"`, "\n", 0},
	}
	eachShell(t, func(t *testing.T, argv []string) {
		c := shellConsole(t, argv)
		for _, tc := range cases {
			res := mustExec(t, c, tc.shell)
			if string(res.Output) != tc.out || res.Status != tc.status {
				t.Errorf("%s: %q status %d, want %q status %d", tc.name, res.Output, res.Status, tc.out, tc.status)
			}
		}
	})
}

func TestExecDirectLeavesTheOutputOnTheConsole(t *testing.T) {
	eachShell(t, func(t *testing.T, argv []string) {
		c := shellConsole(t, argv)
		for _, tc := range []struct {
			shell, shown string
			status       int
		}{
			{"echo $((6*7))done; cat", "42done", 0},
			{"set -e\nfalse\necho no", "", 1},
			{"no-such-command-here; exit 7", "no-such-command-here", 7},
			{"sh -c 'kill -9 $$'", "", 137},
		} {
			res, err := c.Exec(t.Context(), Command{Shell: tc.shell, Direct: true, Timeout: 10 * time.Second})
			if err != nil || res.Status != tc.status || len(res.Output) > 0 {
				t.Errorf("%s: %q status %d, %v; want status %d", tc.shell, res.Output, res.Status, err, tc.status)
			}
			if !strings.Contains(c.Tail(), tc.shown) {
				t.Errorf("%s: the console shows %s", tc.shell, c.Tail())
			}
		}
		start := time.Now()
		_, err := c.Exec(t.Context(), Command{Shell: "sleep 60", Direct: true, Timeout: time.Second})
		var late *TimeoutError
		if !errors.As(err, &late) || late.Occupied || time.Since(start) > 30*time.Second {
			t.Errorf("at its timeout: %v", err)
		}
		if res := mustExec(t, c, "echo after"); string(res.Output) != "after\n" {
			t.Errorf("after a timeout: %q", res.Output)
		}
	})
}

func TestExecReturnsAMebibyteOfBinaryByteForByte(t *testing.T) {
	want := make([]byte, 1<<20)
	_, _ = rand.Read(want)
	file := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(file, want, 0o600); err != nil {
		t.Fatal(err)
	}
	eachShell(t, func(t *testing.T, argv []string) {
		c := shellConsole(t, argv)
		res := mustExec(t, c, "cat "+file)
		if !bytes.Equal(res.Output, want) {
			t.Errorf("%d bytes, want the file's %d", len(res.Output), len(want))
		}
		t.Logf("1 MiB in %v", res.Duration)
	})
}

func TestExecTakesCommandsOfAnyLength(t *testing.T) {
	eachShell(t, func(t *testing.T, argv []string) {
		c := shellConsole(t, argv)
		for _, size := range []int{1, 200, 5000, 100 << 10} {
			word := strings.Repeat("x'\\\n\tü ", size/8+1)
			res := mustExec(t, c, "v="+quote(word)+"\nprintf %s \"$v\"; exit 5")
			if string(res.Output) != word || res.Status != 5 {
				t.Errorf("%d bytes: got %d bytes back, status %d", len(word), len(res.Output), res.Status)
			}
			t.Logf("%d bytes in %v", len(word), res.Duration)
		}
	})
}

func TestExecTakesACommandLongerThanAnArgumentCanBe(t *testing.T) {
	c := shellConsole(t, shells["dash"])
	word := strings.Repeat("0123456789abcdef", 20<<10/2)
	res := mustExec(t, c, "v="+word+"\necho ${#v}; exit 5")
	if want := fmt.Sprintln(len(word)); string(res.Output) != want || res.Status != 5 {
		t.Errorf("got %q, status %d", res.Output, res.Status)
	}
}

func TestExecLeavesTheConsoleAsItWas(t *testing.T) {
	eachShell(t, func(t *testing.T, argv []string) {
		c := shellConsole(t, argv)
		waitFor(t, c, "node# ")
		before := mustExec(t, c, "stty -a </dev/tty; pwd; env | sort | grep -v '^_='")
		mustExec(t, c, "cd /; PS1=lost; export Q=1; set -e; stty >/dev/null; exit 3")
		after := mustExec(t, c, "stty -a </dev/tty; pwd; env | sort | grep -v '^_='")
		if !bytes.Equal(before.Output, after.Output) {
			t.Errorf("was:\n%s\nis:\n%s", before.Output, after.Output)
		}
		typed(t, c, "echo $((6*7))'|'$Q'|'\r")
		waitFor(t, c, "42||")
	})
}

func TestExecClearsAHalfTypedLine(t *testing.T) {
	eachShell(t, func(t *testing.T, argv []string) {
		dir := t.TempDir()
		c := consoleOn(t, startPty(t, dir, argv...))
		waitFor(t, c, "node# ")
		typed(t, c, "touch half-typed")
		waitFor(t, c, "half-typed")
		if res := mustExec(t, c, "echo ok"); string(res.Output) != "ok\n" {
			t.Errorf("got %q", res.Output)
		}
		typed(t, c, "echo 'begun\r")
		waitFor(t, c, "> ")
		if res := mustExec(t, c, "echo ok; ls"); string(res.Output) != "ok\n" {
			t.Errorf("after a line begun with a quote: %q", res.Output)
		}
	})
}

func TestExecStopsTheCommandAtItsTimeout(t *testing.T) {
	eachShell(t, func(t *testing.T, argv []string) {
		c := shellConsole(t, argv)
		for _, ending := range []string{"sleep 100", "sleep 1; echo second; sleep 100", "trap '' INT; sleep 100"} {
			res, err := c.Exec(within(t, 60*time.Second), Command{Shell: "echo first; " + ending, Timeout: 1500 * time.Millisecond})
			var te *TimeoutError
			if !errors.As(err, &te) || te.Canceled() || te.Occupied || !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("%s: error %v", ending, err)
			}
			if want := "first\n" + map[bool]string{true: "second\n"}[strings.Contains(ending, "second")]; string(res.Output) != want {
				t.Errorf("%s: output so far %q", ending, res.Output)
			}
			if res := mustExec(t, c, "echo again"); string(res.Output) != "again\n" {
				t.Errorf("%s: the next command gave %q", ending, res.Output)
			}
		}
	})
}

func TestExecReturnsWhenTheCommandEndsThoughABackgroundProcessLives(t *testing.T) {
	eachShell(t, func(t *testing.T, argv []string) {
		c := shellConsole(t, argv)
		dir := t.TempDir()
		cmd := "cd " + dir + "; { sleep 1.2; echo noise; echo alive >f; } & echo started; exit 4"
		res := mustExec(t, c, cmd)
		if string(res.Output) != "started\n" || res.Status != 4 || res.Duration > 1100*time.Millisecond {
			t.Errorf("got %q status %d in %v", res.Output, res.Status, res.Duration)
		}
		res = mustExec(t, c, "sleep 1.5; cat "+dir+"/f")
		if string(res.Output) != "alive\n" {
			t.Errorf("the background process did not live on: %q", res.Output)
		}
	})
}

func TestExecSaysWhatHoldsABusyConsole(t *testing.T) {
	eachShell(t, func(t *testing.T, argv []string) {
		dir := t.TempDir()
		c := consoleOn(t, startPty(t, dir, argv...))
		waitFor(t, c, "node# ")
		typed(t, c, "echo hold-on; cat >got\r")
		_, err := c.WaitLine(within(t, 20*time.Second), "hold-on", func(l string, _ bool) bool { return l == "hold-on" })
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_, err = c.Exec(within(t, 30*time.Second), Command{Shell: "touch ran"})
		var busy *BusyError
		if !errors.As(err, &busy) || busy.Name != "violin" || !strings.Contains(err.Error(), "console of node violin is busy, last seen: \"") {
			t.Fatalf("error %v", err)
		}
		if d := time.Since(start); d > 4*time.Second {
			t.Errorf("took %v to say so", d)
		}
		typed(t, c, "\x04")
		if res := mustExec(t, c, "ls; wc -c <got"); strings.Contains(string(res.Output), "ran") || !strings.HasSuffix(strings.TrimSpace(string(res.Output)), "1") {
			t.Errorf("more than an empty line reached the program: %q", res.Output)
		}
	})
}

type liveWriter struct {
	got  chan string
	text strings.Builder
}

func (w *liveWriter) Write(p []byte) (int, error) {
	w.text.Write(p)
	w.got <- string(p)
	return len(p), nil
}

func TestExecHandsOutputOverWhileTheCommandRuns(t *testing.T) {
	eachShell(t, func(t *testing.T, argv []string) {
		c := shellConsole(t, argv)
		gate := filepath.Join(t.TempDir(), "gate")
		w := &liveWriter{got: make(chan string, 10)}
		done := make(chan error, 1)
		go func() {
			_, err := c.Exec(within(t, 30*time.Second), Command{
				Shell: "echo one; until test -e " + gate + "; do sleep 0.05; done; echo two", Output: w})
			done <- err
		}()
		select {
		case s := <-w.got:
			if s != "one\n" {
				t.Errorf("first came %q", s)
			}
		case err := <-done:
			t.Fatalf("ended before anything came: %v", err)
		case <-time.After(10 * time.Second):
			t.Fatal("nothing came while the command ran")
		}
		if err := os.WriteFile(gate, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil || w.text.String() != "one\ntwo\n" {
			t.Errorf("got %q, %v", w.text.String(), err)
		}
	})
}

func TestExecMakesDoWithTheToolsOfTheGuest(t *testing.T) {
	want := testBytes(150 << 10)
	file := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(file, want, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tools := range map[string][]string{
		"no base64":            {"od", "tr", "cksum"},
		"no cksum":             {"base64", "md5sum"},
		"no checksum":          {"base64"},
		"no base64, no md5sum": {"od", "tr"},
	} {
		t.Run(name, func(t *testing.T) {
			path := withoutTools(t, append(tools, "sh", "dd", "cat")...)
			c := shellConsole(t, []string{"sh", "-c", "PATH=" + path + " exec " + mustLook(t, "dash") + " -i"})
			if res := mustExec(t, c, "cat "+file); !bytes.Equal(res.Output, want) {
				t.Errorf("%d bytes back, want %d", len(res.Output), len(want))
			}
			if res := mustExec(t, c, "echo short; exit 9"); string(res.Output) != "short\n" || res.Status != 9 {
				t.Errorf("got %q status %d", res.Output, res.Status)
			}
		})
	}
}

func TestExecPassesArgumentsAndEnvironmentLiterally(t *testing.T) {
	eachShell(t, func(t *testing.T, argv []string) {
		c := shellConsole(t, argv)
		res, err := c.Exec(within(t, 30*time.Second), Command{
			Argv: []string{"sh", "-c", `printf '%s|' "$@" "$V"`, "x", "a b", "$HOME", "", "'", "*"},
			Env:  []string{"V=it's $HOME"},
		})
		if want := "a b|$HOME||'|*|it's $HOME|"; err != nil || string(res.Output) != want {
			t.Errorf("got %q, %v, want %q", res.Output, err, want)
		}
	})
}

func TestCommandTextRefusesWhatCannotBeRun(t *testing.T) {
	for name, cmd := range map[string]Command{
		"empty": {}, "both": {Shell: "a", Argv: []string{"b"}}, "nul": {Shell: "a\x00b"},
		"bad variable": {Shell: "a", Env: []string{"A B=c"}}, "no value": {Shell: "a", Env: []string{"A"}},
	} {
		if text, err := cmd.text(); err == nil {
			t.Errorf("%s: accepted as %q", name, text)
		}
	}
}

func BenchmarkExecNoop(b *testing.B) {
	for _, name := range []string{"ash", "bash"} {
		b.Run(name, func(b *testing.B) { benchNoop(b, shells[name]) })
	}
}
