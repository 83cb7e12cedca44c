package server

import (
	"context"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/propolis"
)

func TestCommandLines(t *testing.T) {
	missing := "unix:" + filepath.Join(t.TempDir(), "none", "s")
	tests := []struct {
		name           string
		args           []string
		status         int
		stdout, stderr string // parts
	}{
		{"version", []string{"-V"}, 0, "propolis-server version ", ""},
		{"long version", []string{"--version"}, 0, "API versions 1.0.0 to 6.0.0", ""},
		{"help", []string{"run", "--help"}, 0, "BOOTROM ADDR [VNC]", ""},
		{"no such command", []string{"walk"}, 1, "", `unknown command "walk"`},
		{"too few arguments", []string{"run", "bios"}, 1, "", "between 2 and 3 arg(s)"},
		{"too many arguments", []string{"run", "bios", "a", "b", "c"}, 1, "", "between 2 and 3 arg(s)"},
		{"no such flag", []string{"run", "bios", "a", "--fast"}, 1, "", "unknown flag: --fast"},
		{"no such level", []string{"run", "bios", missing, "--log-level", "loud"}, 1, "", `--log-level "loud"`},
		{"ids of others", []string{"run", "bios", missing, "--id-base", "1000"}, 1, "", "--id-base 1000: want 1879048192 to"},
		{"a base of no disk", []string{"run", "bios", missing, "--base", "/img/disk.qcow2"}, 1, "", "want BACKEND=PATH"},
		{"upstream's flags", []string{"run", "--metric-addr", "disable", "--bootrom-version", "v", "bios", missing}, 1, "", "no such file or directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr lockedBuffer
			status := Main(t.Context(), tt.args, &stdout, &stderr)
			if status != tt.status || !strings.Contains(stdout.String(), tt.stdout) || !strings.Contains(stderr.String(), tt.stderr) {
				t.Errorf("got status %d, stdout %q, stderr %q", status, stdout.String(), stderr.String())
			}
		})
	}
}

// runningServer is a server that runs as Main does.
type runningServer struct {
	*propolis.Client
	stdout, stderr lockedBuffer
	stop           func() int
}

// runMain runs Main with arguments and waits until it listens, as upstream's
// falcon does: by its log.
func runMain(t *testing.T, args ...string) *runningServer {
	t.Helper()
	s := &runningServer{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan int, 1)
	listening := newLineWatcher(&s.stdout, regexp.MustCompile(`"local_addr":"\[::1?\]:([0-9]+)"`))
	go func() { done <- Main(ctx, append([]string{"run"}, args...), listening, &s.stderr) }()
	s.stop = sync.OnceValue(func() int {
		cancel()
		return <-done
	})
	select {
	case port := <-listening.found:
		var err error
		if s.Client, err = propolis.NewClient("[::1]:" + port); err != nil {
			t.Fatal(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("the server does not listen after 10 s; it printed %s%s", s.stdout.String(), s.stderr.String())
	}
	t.Cleanup(func() {
		s.Close()
		s.stop()
		if t.Failed() {
			t.Logf("stdout:\n%s\nstderr:\n%s", s.stdout.String(), s.stderr.String())
		}
	})
	return s
}

// lineWatcher passes on what is written and tells of the first line that
// matches.
type lineWatcher struct {
	*lockedBuffer
	re    *regexp.Regexp
	found chan string
}

func newLineWatcher(b *lockedBuffer, re *regexp.Regexp) *lineWatcher {
	return &lineWatcher{b, re, make(chan string, 1)}
}

func (w *lineWatcher) Write(p []byte) (int, error) {
	if m := w.re.FindSubmatch(p); m != nil {
		select {
		case w.found <- string(m[1]):
		default:
		}
	}
	return w.lockedBuffer.Write(p)
}

func TestMainListensUntilItIsTold(t *testing.T) {
	s := runMain(t, "bios", "[::]:0")
	_, err := s.Instance(t.Context())
	refused(t, err, 424, propolis.CodeNoInstance)
	if status := s.stop(); status != 0 {
		t.Errorf("status %d", status)
	}
	if _, err := s.Instance(t.Context()); err == nil {
		t.Error("the server still answers")
	}
}
