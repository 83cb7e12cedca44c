//go:build linux

package examples_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/internal/agent"
)

// TestAGuestWhoseAgentIsStopped stops the agent while the file systems are frozen:
// they thaw without it, nobody waits for it for ever, and hyperstop takes as long as
// it says.
func TestAGuestWhoseAgentIsStopped(t *testing.T) {
	l := newSite(t).lab("hung", "any", "--node", "a")
	l.launch()
	ctx, cancel := context.WithTimeout(context.Background(), commandDeadline)
	defer cancel()
	info, err := l.agent("a").Ping(ctx)
	check(t, err)
	l.sh("a", fmt.Sprintf("(sleep 2; kill -STOP %d) >/dev/null 2>&1 &", info.PID))
	frozen, err := l.agent("a").Freeze(ctx, 5*time.Second)
	check(t, err)
	time.Sleep(4 * time.Second) // until it is stopped, which nothing tells
	begun := time.Now()
	var silence *agent.SilenceError
	if err := frozen.Thaw(); !errors.As(err, &silence) || time.Since(begun) > 30*time.Second {
		t.Errorf("thawing ended after %v: %v", time.Since(begun), err)
	}
	// By the console: the agent does not answer.
	l.sh("a", "echo written > /root/written; sync")
	begun = time.Now()
	out := l.run("hyperstop", "a")
	if took := time.Since(begun); out.status != 0 || took > 25*time.Second {
		t.Errorf("hyperstop took %v: %s", took, out)
	}
	l.must("hyperstart", "a")
	if got := l.sh("a", "cat /root/written"); got != "written\n" {
		t.Errorf("the file has %q", got)
	}
	l.destroy()
}

// TestTheGuestsOwnReboot has guests start over by themselves in each way. What
// falcon has set up is there again, with nobody's doing.
func TestTheGuestsOwnReboot(t *testing.T) {
	s := newSite(t)
	cargo := s.mkdir("cargo")
	check(t, os.WriteFile(filepath.Join(cargo, "manifest"), []byte("violin\n"), 0o644))
	l := s.lab("again", "any", "--node", "a", "--mount", "a:"+cargo+":/opt/cargo", "--mount", "a:"+cargo+":/mnt/a place of its own")
	l.launch()
	boot := func() string {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), commandDeadline)
		defer cancel()
		for { // the call may fall into the reset
			if info, err := l.agent("a").Ping(ctx); err == nil {
				return info.Boot
			} else if !errors.Is(err, agent.ErrGone) {
				t.Fatal(err)
			}
		}
	}
	for _, how := range []string{
		"reboot", "reboot -f", "echo 1 > /proc/sys/kernel/panic; echo c > /proc/sysrq-trigger",
	} {
		before := boot()
		l.sh("a", "umount -l /opt/cargo; (sleep 0.5; "+how+") >/dev/null 2>&1 &")
		deadline := time.Now().Add(commandDeadline)
		for boot() == before && time.Now().Before(deadline) {
			time.Sleep(100 * time.Millisecond)
		}
		if got := l.sh("a", "hostname; cat /opt/cargo/manifest '/mnt/a place of its own/manifest'"); got != "a\nviolin\nviolin\n" {
			t.Errorf("after %q the guest has %q", how, got)
		}
		if n := l.node("a"); n.State != "running" || strings.Contains(n.Reason, "broken") {
			t.Errorf("after %q it is %s (%s)", how, n.State, n.Reason)
		}
	}
	l.destroy()
}
