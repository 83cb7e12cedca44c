package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/falcon-vm/falcon-go/falcon"
	"github.com/falcon-vm/falcon-go/propolis"
)

func TestWhatANodeHasDoneByItselfIsToldInWords(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	before := func(d time.Duration) *time.Time { at := now.Add(-d); return &at }
	for name, tt := range map[string]struct {
		node falcon.NodeStatus
		want []string
	}{
		"nothing":   {falcon.NodeStatus{}, nil},
		"one":       {falcon.NodeStatus{Resets: 1, LastReset: before(2 * time.Minute)}, []string{"rebooted itself, 2 min ago"}},
		"many":      {falcon.NodeStatus{Resets: 7, LastReset: before(3 * time.Second)}, []string{"rebooted itself 7 times, last 3 s ago"}},
		"long ago":  {falcon.NodeStatus{Resets: 1, LastReset: before(30 * time.Hour)}, []string{"rebooted itself, 30 h ago"}},
		"a panic":   {falcon.NodeStatus{Panic: &propolis.Panic{At: now}}, nil}, // which its state says
		"an old":    {falcon.NodeStatus{Panic: &propolis.Panic{At: *before(time.Second), Over: true, Console: []string{"a", "b"}}}, []string{"its kernel panicked 1 s ago, and it was reset; the console's last lines were:\n  a\n  b"}},
		"watchdog":  {falcon.NodeStatus{Watchdog: before(time.Hour)}, []string{"its watchdog fired 1 h ago"}},
		"bad disk":  {falcon.NodeStatus{DiskError: &propolis.DiskError{At: now, Disk: "d", Error: "read: Input/output error"}}, []string{"an error of its disk d, 0 s ago: read: Input/output error"}},
		"days away": {falcon.NodeStatus{Watchdog: before(100 * 24 * time.Hour)}, []string{"its watchdog fired on 2026-08-20"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, happened(tt.node, now)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestInfoWarnsOfDisksThatMayOutgrowTheirFileSystem(t *testing.T) {
	s := status()
	s.Storage = &falcon.Storage{Folder: "/home", Free: falcon.GiB(1), Used: falcon.MiB(3), MayGrow: falcon.GiB(2), Others: falcon.MiB(5)}
	p := testProgram{lab: fakeLab{status: s}}
	got := p.run(t, "info")
	want := "\ndisks take 3 MiB and may grow by 2 GiB, other disks there by 5 MiB; 1 GiB are free in /home; beware: guests that write more"
	if !strings.Contains(got.stdout, want) {
		t.Errorf("got %s", got.stdout)
	}
	s.Storage.Free = falcon.GiB(3)
	if got := p.run(t, "info"); strings.Contains(got.stdout, "beware") || !strings.Contains(got.stdout, "3 GiB are free") {
		t.Errorf("got %s", got.stdout)
	}
}

func TestPreflightWarns(t *testing.T) {
	p := testProgram{lab: fakeLab{preflight: &falcon.Preflight{
		Checks: []falcon.Check{{Name: "disks", Detail: "they may grow", Warning: "beware"}},
	}}}
	if got := p.run(t, "preflight"); got.status != 0 || got.stdout != "WARNS  disks  they may grow: beware\n" {
		t.Errorf("status %d, %s", got.status, got.stdout)
	}
	if got := p.run(t, "preflight", "--json"); !strings.Contains(got.stdout, `"warning": "beware"`) || !strings.Contains(got.stdout, `"ok": true`) {
		t.Errorf("got %s", got.stdout)
	}
}
