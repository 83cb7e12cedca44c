package image

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func needTool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return path
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(needTool(t, name), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func testStore(t *testing.T, system ...string) *Files {
	t.Helper()
	s, err := OpenFiles(Options{Home: filepath.Join(t.TempDir(), "home"), System: append([]string{}, system...)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const testImageSize = 16 << 20

// addImage stores an image that boots by kernel; its disk begins with word.
func addImage(t *testing.T, s *Files, name, word string) Image {
	t.Helper()
	d, err := s.Create(t.Context(), name, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Discard()
	raw := filepath.Join(d.Dir, "disk.raw")
	if err := os.WriteFile(raw, []byte(word), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(raw, testImageSize); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.Dir, "vmlinux"), []byte("kernel"), 0o600); err != nil {
		t.Fatal(err)
	}
	img, err := d.Commit(t.Context(), Spec{
		Disk: "disk.raw", Format: "raw", OS: "test",
		Boot:    Boot{Method: BootKernel, Kernel: "vmlinux", Append: "quiet"},
		Console: Console{Prompt: "# $", Known: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func addDisk(t *testing.T, s *Files, o DiskOwner, image string) string {
	t.Helper()
	if err := s.CreateDisk(t.Context(), o, image, DiskOptions{}); err != nil {
		t.Fatal(err)
	}
	return s.DiskPath(o, "")
}

func owner(node string) DiskOwner {
	return DiskOwner{ID: "t1", Topology: "duo", Folder: "/lab/duo/.falcon", Node: node}
}

// leftovers lists what a store holds besides empty folders.
func leftovers(t *testing.T, s *Files) []string {
	t.Helper()
	var all []string
	for _, dir := range []string{"img", "topo", "lock", "tmp"} {
		entries, err := os.ReadDir(filepath.Join(s.Home(), dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			all = append(all, dir+"/"+e.Name())
		}
	}
	return all
}

func TestValidName(t *testing.T) {
	for name, ok := range map[string]bool{
		"micro": true, "debian-12": true, "a.b_C-9": true, strings.Repeat("x", MaxName): true,
		"": false, "9p": false, ".hidden": false, "a/b": false, "../x": false, "a b": false, "é": false,
		strings.Repeat("x", MaxName+1): false,
	} {
		if err := ValidName(name); (err == nil) != ok {
			t.Errorf("ValidName(%q) = %v", name, err)
		}
	}
}

func TestDefaultHomeFollowsTheEnvironment(t *testing.T) {
	t.Setenv("FALCON_HOME", "/srv/falcon")
	if home, err := DefaultHome(); err != nil || home != "/srv/falcon" {
		t.Errorf("with FALCON_HOME: %q, %v", home, err)
	}
	t.Setenv("FALCON_HOME", "")
	t.Setenv("XDG_DATA_HOME", "/data")
	want := "/data/falcon"
	if os.Geteuid() == 0 {
		want = SystemHome
	}
	if home, err := DefaultHome(); err != nil || home != want {
		t.Errorf("with XDG_DATA_HOME: %q, %v, want %q", home, err, want)
	}
}

func TestEmptyStoreIsNotMadeByLooking(t *testing.T) {
	s := testStore(t)
	if images, err := s.List(t.Context()); err != nil || len(images) != 0 {
		t.Errorf("List = %v, %v", images, err)
	}
	_, err := s.Get(t.Context(), "micro")
	var missing *NotFoundError
	if !errors.Is(err, ErrNotFound) || !errors.As(err, &missing) || missing.Name != "micro" {
		t.Errorf("Get = %v", err)
	}
	if exists(s.Home()) {
		t.Error("the store's folder was made")
	}
}

func TestCommittedImageIsComplete(t *testing.T) {
	s := testStore(t)
	addImage(t, s, "base", "hello")
	img, err := s.Get(t.Context(), "base")
	if err != nil {
		t.Fatal(err)
	}
	sum := run(t, "sh", "-c", `cat "$1" "$2" | sha256sum`, "sh", img.Disk, img.Boot.Kernel)
	if want := "sha256:" + strings.Fields(sum)[0]; img.Digest != want {
		t.Errorf("digest %s, of the files it is %s", img.Digest, want)
	}
	if img.VirtualSize != testImageSize || img.Size <= 0 || img.Size > 1<<20 {
		t.Errorf("virtual size %d, size %d", img.VirtualSize, img.Size)
	}
	if img.Boot.Kernel != filepath.Join(img.Dir, "vmlinux") || img.Boot.Append != "quiet" || !img.Console.Known {
		t.Errorf("boot %+v, console %+v", img.Boot, img.Console)
	}
	if left := leftovers(t, s); len(left) != 1 {
		t.Errorf("beside the image there is %v", left)
	}
}

func TestHalfMadeImageIsNotSeen(t *testing.T) {
	s := testStore(t)
	d, err := s.Create(t.Context(), "base", nil)
	if err != nil {
		t.Fatal(err)
	}
	if images, err := s.List(t.Context()); err != nil || len(images) != 0 {
		t.Errorf("List = %v, %v", images, err)
	}
	if _, err := d.Commit(t.Context(), Spec{Disk: "disk.raw", Format: "raw"}); err == nil {
		t.Error("an image without a disk was stored")
	}
	d.Discard()
	if left := leftovers(t, s); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestSecondBuilderWaitsForTheFirst(t *testing.T) {
	s := testStore(t)
	first, err := s.Create(t.Context(), "base", nil)
	if err != nil {
		t.Fatal(err)
	}
	second, waits := make(chan error, 1), make(chan Step, 1)
	go func() {
		d, err := s.Create(t.Context(), "base", func(p Step) { waits <- p })
		if err == nil {
			d.Discard()
		}
		second <- err
	}()
	other, err := s.Create(t.Context(), "other", nil) // another name is free meanwhile
	if err != nil {
		t.Fatal(err)
	}
	other.Discard()
	select {
	case err := <-second:
		t.Fatalf("the second builder did not wait: %v", err)
	case <-waits:
	}
	if err := os.WriteFile(filepath.Join(first.Dir, "disk.raw"), make([]byte, 512), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Commit(t.Context(), Spec{Disk: "disk.raw", Format: "raw"}); err != nil {
		t.Fatal(err)
	}
	first.Discard()
	if err := <-second; !errors.Is(err, ErrExists) {
		t.Errorf("the second builder got %v, want ErrExists", err)
	}
}

func TestWorkFoldersOfDeadBuildersAreSwept(t *testing.T) {
	s := testStore(t)
	alive, err := s.Create(t.Context(), "alive", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Discard()
	dead := filepath.Join(s.Home(), "tmp", "dead-1")
	if err := os.Mkdir(dead, 0o755); err != nil {
		t.Fatal(err)
	}
	d, err := s.Create(t.Context(), "next", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Discard()
	if exists(dead) || !exists(alive.Dir) {
		t.Errorf("after a sweep: dead %v, alive %v", exists(dead), exists(alive.Dir))
	}
}

func TestSystemImagesAreSeenButNotRemoved(t *testing.T) {
	system := testStore(t)
	addImage(t, system, "micro", "theirs")
	addImage(t, system, "both", "theirs")
	s := testStore(t, system.Home())
	mine := addImage(t, s, "both", "mine")

	images, err := s.List(t.Context())
	if err != nil || len(images) != 2 {
		t.Fatalf("List = %v, %v", images, err)
	}
	if both, micro := images[0], images[1]; both.ReadOnly || both.Digest != mine.Digest || !micro.ReadOnly {
		t.Errorf("List = %+v", images)
	}
	if err := s.Remove(t.Context(), "micro"); !errors.Is(err, ErrReadOnly) {
		t.Errorf("Remove = %v, want ErrReadOnly", err)
	}
	path := addDisk(t, s, owner("violin"), "micro")
	if info := run(t, "qemu-img", "info", "-f", "qcow2", path); !strings.Contains(info, system.Home()) {
		t.Errorf("the disk does not stand on the system's image:\n%s", info)
	}
}

func TestRemoveRefusesWhatSomethingStandsOn(t *testing.T) {
	s := testStore(t)
	addImage(t, s, "base", "hello")
	addDisk(t, s, owner("violin"), "base")
	if _, err := s.Snapshot(t.Context(), owner("violin"), "tuned", nil); err != nil {
		t.Fatal(err)
	}
	addDisk(t, s, owner("piano"), "base")
	for image, by := range map[string][]string{
		"base":  {`image "tuned"`, `node "piano" of topology "duo" (/lab/duo/.falcon)`},
		"tuned": {`node "violin" of topology "duo" (/lab/duo/.falcon)`},
	} {
		err := s.Remove(t.Context(), image)
		var inUse *InUseError
		if !errors.As(err, &inUse) || strings.Join(inUse.By, ";") != strings.Join(by, ";") {
			t.Errorf("Remove(%s) = %v, want in use by %v", image, err, by)
		}
	}
	for _, node := range []string{"violin", "piano"} {
		if err := s.RemoveDisk(t.Context(), owner(node)); err != nil {
			t.Fatal(err)
		}
	}
	for _, image := range []string{"tuned", "base"} {
		if err := s.Remove(t.Context(), image); err != nil {
			t.Errorf("Remove(%s) = %v", image, err)
		}
	}
	if left := leftovers(t, s); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
	if err := s.Remove(t.Context(), "base"); !errors.Is(err, ErrNotFound) {
		t.Errorf("removing it again = %v", err)
	}
}

func TestDamagedImageDoesNotHideOthers(t *testing.T) {
	s := testStore(t)
	addImage(t, s, "good", "x")
	bad := addImage(t, s, "bad", "x")
	if err := os.WriteFile(filepath.Join(bad.Dir, recordFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	images, err := s.List(t.Context())
	if err == nil || !strings.Contains(err.Error(), `"bad"`) || len(images) != 1 || images[0].Name != "good" {
		t.Errorf("List = %v, %v", images, err)
	}
}
