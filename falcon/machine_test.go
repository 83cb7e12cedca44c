package falcon

import (
	"strings"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/propolis"
)

func TestErrorsOfMachinesSayWhatToDo(t *testing.T) {
	since := time.Date(2026, 11, 28, 2, 0, 0, 0, time.Local)
	for name, tt := range map[string]struct {
		err  error
		want []string
	}{
		"no space": {
			&PausedError{"violin", propolis.Pause{Since: since, Reason: propolis.PauseNoSpace, Path: "/img/v.qcow2"}, "ring -f lab hyperstart violin"},
			[]string{"paused since 2026-11-28 02:00:00", "no space left for its disk /img/v.qcow2", "goes on by itself", "with: ring -f lab hyperstart violin"},
		},
		"stopped by hand": {
			&PausedError{"violin", propolis.Pause{Since: since, Reason: propolis.PauseCommand}, "ring -f lab hyperstart violin"},
			[]string{"somebody has stopped its machine", "with: ring -f lab hyperstart violin"},
		},
		"a bad disk": {
			&PausedError{"violin", propolis.Pause{Since: since, Reason: propolis.PauseDiskError, Path: "/img/v.qcow2", Error: "write: Input/output error"}, "ring -f lab hyperstart violin"},
			[]string{"its disk /img/v.qcow2 fails (write: Input/output error)", "with: ring -f lab hyperstart violin"},
		},
		"a panic": {
			&PanickedError{"violin", propolis.Panic{At: since, Console: []string{"Kernel panic", "end"}}, "ring -f lab reboot violin"},
			[]string{"panicked at 2026-11-28 02:00:00", "with: ring -f lab reboot violin", "last lines:\n  Kernel panic\n  end"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, w := range tt.want {
				if got := tt.err.Error(); !strings.Contains(got, w) {
					t.Errorf("no %q in %s", w, got)
				}
			}
			if !stoodStill(&NodeError{Node: "violin", Err: tt.err}) {
				t.Error("it is not known for what it is")
			}
		})
	}
}

func TestStorageOutgrows(t *testing.T) {
	for name, tt := range map[string]struct {
		s    Storage
		want bool
	}{
		"room for all":              {Storage{Free: GiB(3), MayGrow: GiB(1), Others: GiB(2)}, false},
		"not for the others":        {Storage{Free: GiB(3), MayGrow: GiB(2), Others: GiB(2)}, true},
		"not for these":             {Storage{Free: GiB(1), MayGrow: GiB(2)}, true},
		"what is used is no growth": {Storage{Free: GiB(1), Used: GiB(8), MayGrow: GiB(1)}, false},
	} {
		if got := tt.s.Outgrows(); got != tt.want || (tt.s.Warning() != "") != tt.want {
			t.Errorf("%s: %v, %q", name, got, tt.s.Warning())
		}
	}
}

func TestScreensThatAnybodyCouldSeeAreRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		declare func(*Node)
		limits  hostLimits
		vnc     string
		refusal string
	}{
		"a socket":                 {func(n *Node) { n.VNC() }, hostLimits{}, "unix:violin.vnc.sock", ""},
		"a port with a password":   {func(n *Node) { n.VNC(5901).VNCPassword("/p") }, hostLimits{}, "127.0.0.1:5901", ""},
		"a port without":           {func(n *Node) { n.VNC(5901) }, hostLimits{}, "127.0.0.1:5901", "any user of the host"},
		"a password without a VNC": {func(n *Node) { n.VNCPassword("/p") }, hostLimits{}, "", ""},
		"a port on illumos":        {func(n *Node) { n.VNC(5901) }, illumosLimits, "127.0.0.1:5901", ""},
		"a socket on illumos":      {func(n *Node) { n.VNC() }, illumosLimits, "unix:violin.vnc.sock", "TCP ports only"},
		"a password on illumos":    {func(n *Node) { n.VNC(5901).VNCPassword("/p") }, illumosLimits, "127.0.0.1:5901", "knows none"},
	} {
		t.Run(name, func(t *testing.T) {
			topo := New("duo")
			violin := topo.Node("violin", "debian-12", 1, GiB(1))
			tt.declare(violin)
			np := &NodePlan{Boot: image.Boot{}}
			np.planScreen(violin, facts{hostLimits: tt.limits})
			refused := strings.Join(np.Unsupported, "\n")
			if np.VNC != tt.vnc || (refused == "") != (tt.refusal == "") || !strings.Contains(refused, tt.refusal) {
				t.Errorf("%q, refused: %q", np.VNC, refused)
			}
		})
	}
}

func TestEachNodeHasOnePanicDevice(t *testing.T) {
	devices := func(limits hostLimits, declare func(*Node)) int {
		topo := New("duo")
		violin := topo.Node("violin", "debian-12", 1, GiB(1))
		declare(violin)
		f := factsOf(plainFabric{})
		f.hostLimits = limits
		count := 0
		for _, c := range planned(t, topo, f).Node("violin").Spec.Components {
			if _, is := c.(propolis.PVPanic); is {
				count++
			}
		}
		return count
	}
	for name, got := range map[string]int{
		"by itself":     devices(hostLimits{}, func(*Node) {}),
		"of the user's": devices(hostLimits{}, func(n *Node) { n.Component("mine", propolis.PVPanic{EnableISA: true}) }),
	} {
		if got != 1 {
			t.Errorf("%s: %d", name, got)
		}
	}
	if got := devices(illumosLimits, func(*Node) {}); got != 0 {
		t.Errorf("%d where nobody would hear of it", got)
	}
}
