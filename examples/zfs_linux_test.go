package examples_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// zfsImage is the image of a guest that is a host of falcon with OpenZFS.
const zfsImage = "debian-12-zfs"

// Deadlines of what is done in such a guest. A guest of a guest is emulated by
// what is emulated itself: on an idle host 90 s to its login were measured, on
// a busy one more than 5 min; for the suite 5 and 10 min.
const (
	zfsBuildDeadline = 20 * time.Minute
	zfsPoolDeadline  = 4 * time.Minute // 7 s on an idle host
	zfsStepDeadline  = 16 * time.Minute
	zfsSuiteDeadline = 20 * time.Minute
	zfsLaunch        = " launch --timeout 15m"
)

// zfsHost is such a guest, with a pool called tank.
type zfsHost struct {
	*lab
}

// newZFSHost launches the guest. Its image is built in the system's store, where
// it stays.
func newZFSHost(t *testing.T) zfsHost {
	t.Helper()
	if os.Getenv("FALCON_TEST_NO_ZFS") != "" {
		t.Skip("FALCON_TEST_NO_ZFS (scripts/test --no-zfs) leaves out the host with ZFS")
	}
	s := newSite(t)
	if !exists(filepath.Join(filepath.Dir(systemImage), zfsImage)) {
		ctx, cancel := context.WithTimeout(t.Context(), zfsBuildDeadline)
		defer cancel()
		cmd := exec.CommandContext(ctx, filepath.Join(built.dir, "falcon"), "image", "build", zfsImage)
		cmd.Env = append(os.Environ(), "FALCON_HOME="+filepath.Dir(filepath.Dir(systemImage)), "FALCON_DATASET=none")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("building the image %s: %v\n%s", zfsImage, err, out)
		}
	}
	cargo := s.mkdir("cargo")
	s.packMicro(cargo)
	// They run in the guest, whose C library may be older.
	static := []string{"CGO_ENABLED=0"}
	check(t, build(cargo, static, "./solo", "./testdata/any", "../cmd/falcon"))
	suite := exec.Command("go", "test", "-c", "-o", filepath.Join(cargo, "image.test"), "../falcon/internal/image")
	suite.Env = append(os.Environ(), static...)
	if out, err := suite.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", suite, err, out)
	}
	pool := filepath.Join(s.dir, "pool.raw")
	check(t, os.WriteFile(pool, nil, 0o600))
	check(t, os.Truncate(pool, 8<<30))
	h := zfsHost{s.lab("host", "zfshost", "--pool", pool, "--cargo", cargo)}
	h.launch()
	h.makePool()
	return h
}

// makePool makes the pool, in a machine started again if the kernel of the first
// hangs in it: what is tested is not OpenZFS.
func (h zfsHost) makePool() {
	h.t.Helper()
	const create = "modprobe zfs && zpool create -f -O mountpoint=none tank /dev/vdb"
	out := h.try(zfsPoolDeadline, create)
	if out.status == 0 {
		return
	}
	h.t.Logf("no pool, once more: %s", out)
	h.must("hyperstop", "host")
	h.must("hyperstart", "host")
	h.inside(create)
}

// packMicro puts the image micro into a folder: its disk, kernel and initrd.
func (s *site) packMicro(dir string) {
	s.t.Helper()
	if out := s.falcon("image", "export", "micro", filepath.Join(dir, "micro.img.zst")); out.status != 0 {
		s.t.Fatalf("exporting micro: %s", out)
	}
	img := s.showMicro()
	for name, from := range map[string]string{"vmlinux": img.Boot.Kernel, "initrd.img": img.Boot.Initrd} {
		data, err := os.ReadFile(from)
		check(s.t, err)
		check(s.t, os.WriteFile(filepath.Join(dir, name), data, 0o644))
	}
}

// microImage is what is needed to import the image micro elsewhere.
type microImage struct {
	Boot    struct{ Kernel, Initrd, Append string }
	Console struct{ User, Prompt string }
}

func (s *site) showMicro() (img microImage) {
	s.t.Helper()
	check(s.t, json.Unmarshal([]byte(s.falcon("image", "show", "--json", "micro").stdout), &img))
	return img
}

// quoted makes one word of a string for a shell.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// try runs a command in the guest, with falcon's programs in PATH and the
// dataset chosen.
func (h zfsHost) try(deadline time.Duration, command string) outcome {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline+time.Minute)
	defer cancel()
	begun := time.Now()
	out := h.finish(h.command(ctx, "exec", "--timeout", deadline.String(), "host",
		"export PATH=/opt/cargo:$PATH FALCON_DATASET=tank/falcon FALCON_HOME=/root/falcon; "+command))
	h.t.Logf("%.1f s: %s", time.Since(begun).Seconds(), command)
	return out
}

// inside runs a command in the guest, which has to succeed.
func (h zfsHost) inside(command string) string {
	h.t.Helper()
	out := h.try(zfsStepDeadline, command)
	if out.status != 0 {
		h.t.Fatalf("%s: %s", command, out)
	}
	return out.stdout
}

// says fails the test unless a command's output has some words, and its status
// is 0 if it is to succeed.
func (h zfsHost) says(command string, good bool, words ...string) {
	h.t.Helper()
	out := h.try(zfsStepDeadline, command+" 2>&1")
	if (out.status == 0) != good {
		h.t.Errorf("%s: %s", command, out)
	}
	for _, w := range words {
		if !strings.Contains(out.stdout, w) {
			h.t.Errorf("%s does not say %q: %s", command, w, out)
		}
	}
}

// has fails the test unless the dataset has exactly these datasets and snapshots.
func (h zfsHost) has(want ...string) {
	h.t.Helper()
	got := h.inside("zfs list -H -o name -t all -r tank/falcon")
	all := "tank/falcon\n"
	for _, name := range want {
		all += "tank/falcon/" + name + "\n"
	}
	if got != all {
		h.t.Errorf("ZFS has\n%swanted is\n%s", got, all)
	}
}

// TestHostWithZFS runs the store's tests, and labs, where there is a real
// OpenZFS: in a guest of falcon's own.
func TestHostWithZFS(t *testing.T) {
	h := newZFSHost(t)
	t.Run("store", func(t *testing.T) {
		h := h.in(t)
		out := h.try(zfsSuiteDeadline, "cd /tmp && FALCON_TEST_ZPOOL=tank image.test -test.run '^TestStore$/^pool$' -test.v 2>&1")
		if out.status != 0 || !strings.Contains(out.stdout, "--- PASS: TestStore/pool") || strings.Contains(out.stdout, "--- SKIP") {
			t.Errorf("the suite on a real pool: %s", out)
		}
	})
	if got := h.inside("zfs list -H -o name -t all"); got != "tank\n" {
		t.Fatalf("the suite has left\n%s", got)
	}
	t.Run("choice", func(t *testing.T) { h.in(t).testChoice() })
	t.Run("labs", func(t *testing.T) { h.in(t).testLabs() })
}

// in is the host for a part of its test.
func (h zfsHost) in(t *testing.T) zfsHost {
	s, l := *h.site, *h.lab
	s.t, l.site = t, &s
	return zfsHost{&l}
}

// testChoice looks at which store is chosen, and what is said about it.
func (h zfsHost) testChoice() {
	h.says("falcon doctor", false, "ZFS volumes in tank/falcon, because FALCON_DATASET says so") // not all tools are there
	h.says("FALCON_DATASET= falcon doctor", false, "files in /root/falcon, because FALCON_DATASET names no dataset, and there is no pool rpool")
	h.says("FALCON_DATASET=none falcon doctor", false, "files in /root/falcon, because no ZFS dataset is wanted")
	h.says("FALCON_DATASET=nopool/falcon falcon image ls", false, "cannot open 'nopool': no such pool", "zpool import nopool")
	h.says("FALCON_DATASET=a@b falcon image ls", false, `"a@b" is not the name of a ZFS dataset`)
}

// patient is a command that is tried again while it says that the console is busy:
// the prompt of a guest in a guest may be late.
func patient(command string) string {
	return "for i in 1 2 3 4 5 6 7 8; do (" + command + "); s=$?; [ $s = 125 ] || exit $s; sleep 5; done; exit $s"
}

// testLabs launches a lab, takes a snapshot of its node while that runs and one
// while it is stopped, and launches another lab from the second.
func (h zfsHost) testLabs() {
	micro := h.showMicro()
	h.inside("falcon image import /opt/cargo/micro.img.zst micro --kernel /opt/cargo/vmlinux --initrd /opt/cargo/initrd.img --append " +
		quoted(micro.Boot.Append) + " --user " + micro.Console.User + " --prompt " + quoted(micro.Console.Prompt))
	h.inside("mkdir -p /root/one/bay /root/two")
	const one, two = "cd /root/one && solo ", "cd /root/two && any "
	h.says("cd /root/one && solo --cargo-bay bay preflight", true, "ZFS volumes in tank/falcon")
	h.inside(one + "--cargo-bay bay" + zfsLaunch)
	h.says("cd /root/two && solo --cargo-bay ../one/bay launch", false, "/root/one/.falcon", "falcon destroy /root/one/.falcon")
	h.inside(patient(one + "exec --timeout 100s violin 'echo one > /root/one'"))
	h.inside(one + "snapshot violin first --live")
	h.inside(patient(one + "exec --timeout 100s violin 'echo two > /root/two; sync'"))
	h.inside(one + "hyperstop violin")
	h.inside(one + "snapshot violin second")
	h.says("falcon image rm micro", false, `image "first"`)
	h.says("falcon image rm second", false, `node "violin" of topology "solo" (/root/one/.falcon)`)
	h.has("img", "img/first", "img/first@falcon-first", "img/first@base", "img/micro", "img/micro@base",
		"img/second", "img/second@falcon-second", "img/second@base", "topo", "topo/solo", "topo/solo/violin")

	h.inside(two + "--node b:256:second" + zfsLaunch)
	if got := h.inside(patient(two + "exec --timeout 100s b 'cat /root/one /root/two; hostname'")); got != "one\ntwo\nb\n" {
		h.t.Errorf("the node of the second snapshot has %q", got)
	}
	h.inside(one + "destroy")
	// The environment has changed, and the record is damaged: the journal knows.
	h.inside("cd /root/two && echo rubbish > .falcon/topology.json && FALCON_DATASET=none falcon destroy .falcon")
	h.has("img", "img/first", "img/first@falcon-first", "img/first@base", "img/micro", "img/micro@base",
		"img/second", "img/second@falcon-second", "img/second@base", "topo")
	if got := h.inside("ls -A /root/one /root/two; pgrep -l qemu || true"); got != "/root/one:\nbay\n\n/root/two:\n" {
		h.t.Errorf("the labs have left\n%s", got)
	}
	h.inside("for image in second first micro; do falcon image rm $image || exit; done")
	h.has("img", "topo")
	if got := h.inside("find /root/falcon -type f"); got != "" {
		h.t.Errorf("the home has left\n%s", got)
	}
}
