package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// poolEnv names a pool of a real ZFS for the suite to run on. The examples' tests
// have it run in a guest that has one.
const poolEnv = "FALCON_TEST_ZPOOL"

// suite is a store, and how its disks are read and written.
type suite struct {
	Store
	zfs *ZFS // nil for one of files
	// model is set where commands can be made to fail.
	model bool
}

// TestStore holds every kind of store to one behaviour.
func TestStore(t *testing.T) {
	for _, kind := range []struct {
		name string
		make func(t *testing.T) *suite
	}{{"files", newFilesSuite}, {"model", newModelSuite}, {"pool", newPoolSuite}} {
		t.Run(kind.name, func(t *testing.T) {
			if kind.name == "pool" && os.Getenv(poolEnv) == "" {
				t.Skip(poolEnv + " names no pool of a real ZFS")
			}
			for _, b := range behaviours {
				if kind.name == "files" && strings.HasPrefix(b.name, "ZFS/") {
					continue
				}
				t.Run(b.name, func(t *testing.T) { b.check(t, kind.make(t)) })
			}
		})
	}
}

// behaviours are what is checked. Those of ZFS are not asked of stores of files.
var behaviours = []struct {
	name  string
	check func(*testing.T, *suite)
}{
	{"an image is what was put into it", testImageIsWhatWasPut},
	{"imports take every compression", testImports},
	{"a failed import leaves nothing", testFailedImport},
	{"exports give the disk back", testExports},
	{"a disk is a clone of its image", testDiskIsAClone},
	{"a disk's size is the image's or larger", testDiskSizes},
	{"a second disk is refused", testSecondDisk},
	{"disks are made at once", testParallelDisks},
	{"a used image stays", testUsedImage},
	{"snapshots of snapshots", testSnapshots},
	{"a snapshot's name is taken once", testSnapshotNames},
	{"a removed disk leaves nothing", testRemovedDisk},
	{"ZFS/disks in files", testDisksInFiles},
	{"ZFS/one lab for a name", testOneLabForAName},
	{"ZFS/volumes of others", testVolumesOfOthers},
	{"ZFS/volumes turned around by hand", testTurnedAround},
	{"ZFS/a disk is found without its topology", testDiskWithoutTopology},
	{"ZFS/properties", testProperties},
	{"ZFS/half-made images are swept", testHalfMade},
}

func newFilesSuite(t *testing.T) *suite { return &suite{Store: testStore(t)} }

func newModelSuite(t *testing.T) *suite {
	t.Helper()
	dir := newModel(t)
	s := newZFSSuite(t, "tank/falcon")
	s.model = true
	s.zfs.deviceDir = filepath.Join(dir, "dev")
	s.zfs.ready = func(device, _ string) error {
		_, err := os.Stat(device)
		return err
	}
	return s
}

func newPoolSuite(t *testing.T) *suite {
	t.Helper()
	dataset := os.Getenv(poolEnv) + "/falcon-test"
	t.Cleanup(func() { run(t, "zfs", "destroy", "-R", dataset) })
	run(t, "zfs", "create", "-o", "canmount=off", dataset)
	return newZFSSuite(t, dataset)
}

func newZFSSuite(t *testing.T, dataset string) *suite {
	t.Helper()
	store, err := Open(Options{Home: filepath.Join(t.TempDir(), "home"), Dataset: dataset})
	if err != nil {
		t.Fatal(err)
	}
	s := &suite{Store: store}
	s.zfs = store.(*ZFS)
	t.Cleanup(func() { s.noLeftFiles(t) })
	return s
}

// noLeftFiles looks for what a finished call has left in the home: locks and
// work folders.
func (s *suite) noLeftFiles(t *testing.T) {
	t.Helper()
	for _, dir := range []string{"lock", "tmp", "topo", "img"} {
		left, _ := filepath.Glob(filepath.Join(s.Home(), dir, "*"))
		if len(left) > 0 {
			t.Errorf("left in the home: %v", left)
		}
	}
}

// datasets lists what ZFS has below the store's dataset, without its name.
func (s *suite) datasets(t *testing.T) []string {
	t.Helper()
	if d, err := s.zfs.get(t.Context(), s.zfs.dataset); d == nil && err == nil {
		return nil
	}
	out := run(t, "zfs", "list", "-H", "-r", "-t", "all", "-o", "name", s.zfs.dataset)
	var all []string
	for line := range strings.Lines(out) {
		if name := strings.TrimPrefix(strings.TrimSpace(line), s.zfs.dataset+"/"); name != s.zfs.dataset {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

// has fails the test unless ZFS has exactly these datasets.
func (s *suite) has(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := s.datasets(t); !slices.Equal(got, want) {
		t.Errorf("ZFS has %v, want %v", got, want)
	}
}

// addImage stores an image whose disk begins with a word, and has another near
// its end, behind a hole.
func (s *suite) addImage(t *testing.T, name, word string) Image {
	t.Helper()
	d, err := s.Create(t.Context(), name, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Discard()
	write := func(file string, data []byte) {
		if err := os.WriteFile(filepath.Join(d.Dir, file), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("disk.raw", suiteDisk(word))
	write("vmlinux", []byte("kernel of "+word))
	write("rubbish", []byte("rubbish"))
	img, err := d.Commit(t.Context(), suiteSpec)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

var suiteSpec = Spec{
	Disk: "disk.raw", Format: "raw", OS: "test",
	Boot:    Boot{Method: BootKernel, Kernel: "vmlinux", Append: "quiet it's \"quoted\"\t"},
	Console: Console{Prompt: `\[micro [^\]\r\n]*\]# $`, User: "root", Known: true},
}

// suiteSize is no multiple of a volume's blocks.
const suiteSize = 4<<20 + 512

func suiteDisk(word string) []byte {
	disk := make([]byte, suiteSize)
	copy(disk, word)
	copy(disk[suiteSize-512:], "end of "+word)
	return disk
}

// writeAt changes a guest's disk, as a guest would.
func (s *suite) writeAt(t *testing.T, disk string, at int64, word string) {
	t.Helper()
	block := make([]byte, 4096)
	copy(block, word)
	if s.zfs == nil {
		qemuIO(t, disk, fmt.Sprintf("write -q -P %d %d 4096", word[0], at))
		return
	}
	f, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(block, at)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// reads fails the test unless a disk has a word's first letter somewhere; an
// empty word stands for zeros.
func (s *suite) reads(t *testing.T, disk string, at int64, word string) {
	t.Helper()
	want := byte(0)
	if word != "" {
		want = word[0]
	}
	if s.zfs == nil {
		if out := qemuIO(t, disk, fmt.Sprintf("read -P %d %d 1", want, at)); strings.Contains(out, "failed") {
			t.Errorf("%s lacks %q at %d: %s", disk, word, at, out)
		}
		return
	}
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, 512)
	if _, err := f.ReadAt(got, at); err != nil || got[0] != want {
		t.Errorf("%s has %q at %d, want %q: %v", disk, got[:8], at, word, err)
	}
}

func qemuIO(t *testing.T, disk, command string) string {
	t.Helper()
	return run(t, "qemu-io", "-f", "qcow2", "-c", command, disk)
}

func (s *suite) addDisk(t *testing.T, o DiskOwner, image string) string {
	t.Helper()
	if err := s.CreateDisk(t.Context(), o, image, DiskOptions{}); err != nil {
		t.Fatal(err)
	}
	if !s.HasDisk(t.Context(), o, "") {
		t.Fatalf("the store does not have the disk of %s", o)
	}
	return s.DiskPath(o, "")
}

func (s *suite) take(t *testing.T, node, name string) Image {
	t.Helper()
	img, err := s.Snapshot(t.Context(), owner(node), name, nil)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func (s *suite) removeDisk(t *testing.T, nodes ...string) {
	t.Helper()
	for _, node := range nodes {
		if err := s.RemoveDisk(t.Context(), owner(node)); err != nil {
			t.Fatal(err)
		}
	}
}

func (s *suite) removeImage(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := s.Remove(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
}

// inUse fails the test unless an image cannot be removed for these users.
func (s *suite) inUse(t *testing.T, name string, by ...string) {
	t.Helper()
	var used *InUseError
	if err := s.Remove(t.Context(), name); !errors.As(err, &used) {
		t.Errorf("removing image %s: %v", name, err)
		return
	}
	for _, b := range by {
		if !strings.Contains(strings.Join(used.By, ", "), b) {
			t.Errorf("image %s is used by %q, want %q among them", name, used.By, b)
		}
	}
	if len(used.By) != len(by) {
		t.Errorf("image %s is used by %q, want %q", name, used.By, by)
	}
}

func testImageIsWhatWasPut(t *testing.T, s *suite) {
	var steps []Step
	d, err := s.Create(t.Context(), "base", func(p Step) { steps = append(steps, p) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), "base"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a draft is seen: %v", err)
	}
	d.Discard()
	img := s.addImage(t, "base", "hello")
	sum := sha256.Sum256(append(suiteDisk("hello"), "kernel of hello"...))
	if want := "sha256:" + hex.EncodeToString(sum[:]); img.Digest != want || img.DigestOf != "files" {
		t.Errorf("digest %s of %s, want %s", img.Digest, img.DigestOf, want)
	}
	if img.VirtualSize != suiteSize || img.Size <= 0 || img.Created.IsZero() || img.OS != "test" || img.Console != suiteSpec.Console ||
		img.Boot.Method != BootKernel || img.Boot.Append != suiteSpec.Boot.Append || img.ReadOnly || img.Parent != "" || !filepath.IsAbs(img.Disk) {
		t.Errorf("the image is %+v", img)
	}
	if kernel, err := os.ReadFile(img.Boot.Kernel); err != nil || string(kernel) != "kernel of hello" {
		t.Errorf("its kernel is %q, %v", kernel, err)
	}
	if _, err := s.Create(t.Context(), "base", nil); !errors.Is(err, ErrExists) {
		t.Errorf("a second image of the name: %v", err)
	}
	all, err := s.List(t.Context())
	if err != nil || len(all) != 1 || all[0] != img {
		t.Errorf("List = %+v, %v", all, err)
	}
	s.removeImage(t, "base")
	if exists(img.Boot.Kernel) {
		t.Error("the kernel of a removed image is left")
	}
	if err := s.Remove(t.Context(), "base"); !errors.Is(err, ErrNotFound) {
		t.Errorf("removing an image twice: %v", err)
	}
	if s.zfs != nil {
		s.has(t, "img")
	}
}

func testImports(t *testing.T, s *suite) {
	for _, c := range []struct {
		name string
		pack func(*bytes.Buffer, []byte) error
	}{
		{"plain.raw", func(b *bytes.Buffer, data []byte) error { b.Write(data); return nil }},
		{"packed.raw.xz", func(b *bytes.Buffer, data []byte) error {
			w, err := xz.NewWriter(b)
			if err != nil {
				return err
			}
			_, err = w.Write(data)
			return errors.Join(err, w.Close())
		}},
		{"packed.raw.gz", func(b *bytes.Buffer, data []byte) error {
			w := gzip.NewWriter(b)
			_, err := w.Write(data)
			return errors.Join(err, w.Close())
		}},
		{"packed.img.zst", func(b *bytes.Buffer, data []byte) error {
			w, err := zstd.NewWriter(b)
			if err != nil {
				return err
			}
			_, err = w.Write(data)
			return errors.Join(err, w.Close())
		}},
	} {
		var packed bytes.Buffer
		if err := c.pack(&packed, suiteDisk("hello")); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), c.name)
		if err := os.WriteFile(file, packed.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		name := strings.ReplaceAll(c.name, ".", "-")
		var last Step
		img, err := Import(t.Context(), s.Store, file, name, ImportOptions{Boot: Boot{Method: BootBIOS}, Progress: func(p Step) {
			if p.Bytes {
				last = p
			}
		}})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		sum := sha256.Sum256(suiteDisk("hello"))
		if img.Digest != "sha256:"+hex.EncodeToString(sum[:]) || last.Done != last.Total || last.Total == 0 {
			t.Errorf("%s: %+v, at last %+v", c.name, img, last)
		}
		disk := s.addDisk(t, owner(strings.ReplaceAll(name, "-", "_")), name)
		s.reads(t, disk, 0, "hello")
		s.reads(t, disk, 1<<20, "")
		s.reads(t, disk, suiteSize-512, "end")
	}
}

func testFailedImport(t *testing.T, s *suite) {
	file := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(file, suiteDisk("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	var digest *DigestError
	_, err := Import(t.Context(), s.Store, file, "base", ImportOptions{SHA256: strings.Repeat("0", 64)})
	if !errors.As(err, &digest) {
		t.Errorf("a wrong digest: %v", err)
	}
	if all, err := s.List(t.Context()); err != nil || len(all) > 0 {
		t.Errorf("List = %+v, %v", all, err)
	}
	s.addImage(t, "base", "hello") // the name is free
}

func testExports(t *testing.T, s *suite) {
	s.addImage(t, "base", "hello")
	dir := t.TempDir()
	for _, file := range []string{"disk.raw", "disk.qcow2", "disk.img.zst"} {
		path := filepath.Join(dir, file)
		if err := s.Export(t.Context(), "base", path, nil); err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if err := s.Export(t.Context(), "base", path, nil); err == nil || !strings.Contains(err.Error(), "exists") {
			t.Errorf("%s is written over: %v", file, err)
		}
		again, err := Import(t.Context(), s.Store, path, "again", ImportOptions{Boot: Boot{Method: BootUEFI}})
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		// A volume is whole blocks, and qcow2 files of one are too.
		if again.VirtualSize != suiteSize && again.VirtualSize != roundUp(suiteSize, volumeBlock) {
			t.Errorf("%s came back with %d bytes", file, again.VirtualSize)
		}
		disk := s.addDisk(t, owner("n"), "again")
		s.reads(t, disk, 0, "hello")
		s.reads(t, disk, suiteSize-512, "end")
		s.removeDisk(t, "n")
		s.removeImage(t, "again")
	}
	if data, err := os.ReadFile(filepath.Join(dir, "disk.raw")); err != nil || !bytes.Equal(data, suiteDisk("hello")) {
		t.Errorf("the raw file has %d bytes, and is not the disk: %v", len(data), err)
	}
	if err := s.Export(t.Context(), "nothing", filepath.Join(dir, "x.raw"), nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("exporting nothing: %v", err)
	}
	if s.zfs != nil {
		s.has(t, "img", "img/base", "img/base@base", "topo")
	}
}

func testDiskIsAClone(t *testing.T, s *suite) {
	img := s.addImage(t, "base", "hello")
	a, b := s.addDisk(t, owner("a"), "base"), s.addDisk(t, owner("b"), "base")
	s.writeAt(t, a, 1<<20, "alpha")
	s.reads(t, a, 0, "hello")
	s.reads(t, a, 1<<20, "alpha")
	s.reads(t, b, 1<<20, "")
	disks, err := s.Disks(t.Context())
	if err != nil || len(disks) != 2 {
		t.Fatalf("Disks = %+v, %v", disks, err)
	}
	d := disks[0]
	if d.Owner != owner("a") || d.Image != "base" || d.ImageDir != img.Dir || d.Path != a || d.Size < suiteSize || d.Used <= 0 {
		t.Errorf("Disks = %+v", d)
	}
}

func testDiskSizes(t *testing.T, s *suite) {
	s.addImage(t, "base", "hello")
	for i, c := range []struct {
		ask  int64
		good bool
	}{{0, true}, {suiteSize, true}, {1 << 30, true}, {suiteSize - 512, false}, {suiteSize + 1, false}, {-512, false}} {
		o := owner(fmt.Sprintf("n%d", i))
		err := s.CreateDisk(t.Context(), o, "base", DiskOptions{Size: c.ask})
		if (err == nil) != c.good {
			t.Errorf("size %d: %v", c.ask, err)
		}
		if has := s.HasDisk(t.Context(), o, ""); has != c.good {
			t.Errorf("size %d: the disk is there: %v", c.ask, has)
		}
	}
	disks, err := s.Disks(t.Context())
	if err != nil || len(disks) != 3 || disks[2].Size != 1<<30 {
		t.Errorf("Disks = %+v, %v", disks, err)
	}
}

func testSecondDisk(t *testing.T, s *suite) {
	s.addImage(t, "base", "hello")
	s.addDisk(t, owner("violin"), "base")
	if err := s.CreateDisk(t.Context(), owner("violin"), "base", DiskOptions{}); !errors.Is(err, ErrDiskExists) {
		t.Errorf("a second disk: %v", err)
	}
	if !s.HasDisk(t.Context(), owner("violin"), "") {
		t.Error("the refusal of a second disk has removed the first")
	}
	if err := s.CreateDisk(t.Context(), owner("piano"), "nothing", DiskOptions{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("a disk on no image: %v", err)
	}
	for _, o := range []DiskOwner{owner("../../etc"), owner("a@b"), {ID: "../x", Topology: "duo", Node: "a"}} {
		if err := s.CreateDisk(t.Context(), o, "base", DiskOptions{}); err == nil {
			t.Errorf("%+v led out of the store", o)
		}
	}
}

func testParallelDisks(t *testing.T, s *suite) {
	s.addImage(t, "base", "hello")
	nodes := []string{"a", "b", "c", "d", "e", "f"}
	each := func(do func(node string) error) {
		var all sync.WaitGroup
		for _, node := range nodes {
			all.Go(func() {
				if err := do(node); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
	each(func(node string) error { return s.CreateDisk(t.Context(), owner(node), "base", DiskOptions{}) })
	if disks, err := s.Disks(t.Context()); err != nil || len(disks) != len(nodes) {
		t.Errorf("Disks = %+v, %v", disks, err)
	}
	each(func(node string) error { return s.RemoveDisk(t.Context(), owner(node)) })
	if s.zfs != nil {
		s.has(t, "img", "img/base", "img/base@base", "topo")
	}
}

func testUsedImage(t *testing.T, s *suite) {
	s.addImage(t, "base", "hello")
	s.addDisk(t, owner("violin"), "base")
	s.inUse(t, "base", owner("violin").String())
	s.take(t, "violin", "one")
	s.inUse(t, "base", `image "one"`)
	s.inUse(t, "one", owner("violin").String())
	s.removeDisk(t, "violin")
	s.inUse(t, "base", `image "one"`)
	s.removeImage(t, "one", "base")
	if s.zfs != nil {
		s.has(t, "img", "topo")
	}
}

func testSnapshots(t *testing.T, s *suite) {
	base := s.addImage(t, "base", "hello")
	disk := s.addDisk(t, owner("violin"), "base")
	var last Image
	for i, name := range []string{"one", "two", "three"} {
		s.writeAt(t, disk, int64(i+1)<<20, name)
		img := s.take(t, "violin", name)
		if want := []string{"base", "one", "two"}[i]; img.Parent != want || img.DigestOf != "snapshot" || img.Digest == last.Digest {
			t.Errorf("%s is %+v, its parent is to be %s", name, img, want)
		}
		if img.Boot != base.Boot || img.Console != base.Console || img.OS != base.OS {
			t.Errorf("%s boots by %+v %+v, base by %+v", name, img.Boot, img.Console, base.Boot)
		}
		last = img
	}
	for i, image := range []string{"one", "two", "three"} {
		on := s.addDisk(t, owner("on_"+image), image)
		for j, word := range []string{"one", "two", "three"} {
			if j > i {
				word = ""
			}
			s.reads(t, on, int64(j+1)<<20, word)
		}
		s.reads(t, on, 0, "hello")
	}
	s.inUse(t, "one", `image "two"`, owner("on_one").String())
	s.inUse(t, "three", owner("violin").String(), owner("on_three").String())
	s.reads(t, disk, 3<<20, "three")
	s.removeDisk(t, "violin", "on_one", "on_two", "on_three")
	s.inUse(t, "two", `image "three"`)
	s.removeImage(t, "three", "two", "one", "base")
	if s.zfs != nil {
		s.has(t, "img", "topo")
	}
}

func testSnapshotNames(t *testing.T, s *suite) {
	s.addImage(t, "base", "hello")
	s.addDisk(t, owner("violin"), "base")
	s.take(t, "violin", "one")
	for _, name := range []string{"one", "base"} {
		if _, err := s.Snapshot(t.Context(), owner("violin"), name, nil); !errors.Is(err, ErrExists) {
			t.Errorf("a snapshot %s: %v", name, err)
		}
	}
	for node, name := range map[string]string{"violin": "no/name", "piano": "two"} {
		if _, err := s.Snapshot(t.Context(), owner(node), name, nil); err == nil {
			t.Errorf("a snapshot %s of %s is taken", name, node)
		}
	}
}

func testRemovedDisk(t *testing.T, s *suite) {
	s.addImage(t, "base", "hello")
	s.addDisk(t, owner("violin"), "base")
	s.addDisk(t, owner("piano"), "base")
	s.removeDisk(t, "violin", "violin", "nobody")
	if s.HasDisk(t.Context(), owner("violin"), "") || !s.HasDisk(t.Context(), owner("piano"), "") {
		t.Error("not the disk of violin alone is gone")
	}
	s.removeDisk(t, "piano")
	if disks, err := s.Disks(t.Context()); err != nil || len(disks) > 0 {
		t.Errorf("Disks = %+v, %v", disks, err)
	}
	if s.zfs != nil {
		s.has(t, "img", "img/base", "img/base@base", "topo")
	}
	disk := s.addDisk(t, owner("violin"), "base")
	s.reads(t, disk, 0, "hello")
}

func testDisksInFiles(t *testing.T, s *suite) {
	s.addImage(t, "base", "hello")
	var last Step
	o := DiskOptions{Backing: BackingFile, Size: 8 << 20, Progress: func(p Step) { last = p }}
	if err := s.CreateDisk(t.Context(), owner("violin"), "base", o); err != nil {
		t.Fatal(err)
	}
	path := s.DiskPath(owner("violin"), BackingFile)
	if info, err := os.Stat(path); err != nil || info.Size() != 8<<20 || info.Mode() != 0o600 {
		t.Errorf("the disk is %v, %v", info, err)
	}
	s.reads(t, path, 0, "hello")
	s.reads(t, path, suiteSize-512, "end")
	if last.Done != suiteSize || last.Total != suiteSize {
		t.Errorf("at last it said %+v", last)
	}
	if !s.HasDisk(t.Context(), owner("violin"), BackingFile) || s.HasDisk(t.Context(), owner("violin"), "") {
		t.Error("the store does not know the disk for a file")
	}
	if err := s.CreateDisk(t.Context(), owner("violin"), "base", o); !errors.Is(err, ErrDiskExists) {
		t.Errorf("a second disk: %v", err)
	}
	s.inUse(t, "base", owner("violin").String())
	if _, err := s.Snapshot(t.Context(), owner("violin"), "one", nil); err == nil || !strings.Contains(err.Error(), "file") {
		t.Errorf("a snapshot of it: %v", err)
	}
	if disks, err := s.Disks(t.Context()); err != nil || len(disks) != 1 || disks[0].Path != path || disks[0].Size != 8<<20 {
		t.Errorf("Disks = %+v, %v", disks, err)
	}
	s.removeDisk(t, "violin")
	if exists(filepath.Join(s.Home(), "zfs")) {
		t.Error("a removed disk has left its folder")
	}
	s.has(t, "img", "img/base", "img/base@base")
}

func testOneLabForAName(t *testing.T, s *suite) {
	s.addImage(t, "base", "hello")
	mine := owner("violin")
	other := DiskOwner{ID: "t2", Topology: mine.Topology, Folder: "/other/.falcon", Node: "violin"}
	if err := Conflict(t.Context(), s.Store, other); err != nil {
		t.Errorf("before there is a lab: %v", err)
	}
	s.addDisk(t, mine, "base")
	for _, o := range []DiskOwner{other, {ID: "t2", Topology: "duo", Folder: "/other/.falcon", Node: "piano"}} {
		for what, err := range map[string]error{
			"Conflict":   Conflict(t.Context(), s.Store, o),
			"CreateDisk": s.CreateDisk(t.Context(), o, "base", DiskOptions{}),
		} {
			if err == nil || !strings.Contains(err.Error(), mine.Folder) {
				t.Errorf("%s of another lab of the name: %v", what, err)
			}
		}
		if err := s.RemoveDisk(t.Context(), o); err != nil {
			t.Error(err)
		}
	}
	if s.HasDisk(t.Context(), other, "") || !s.HasDisk(t.Context(), mine, "") {
		t.Error("the disk went from one lab to the other")
	}
	if err := Conflict(t.Context(), s.Store, mine); err != nil {
		t.Errorf("the lab itself: %v", err)
	}
	// A name without disks, of a lab that ended between two steps, is free.
	s.removeDisk(t, "violin")
	run(t, "zfs", "create", "-o", "canmount=off", "-o", userTopology+`={"id":"gone","folder":"/gone"}`, s.zfs.topologyName("duo"))
	if err := s.CreateDisk(t.Context(), other, "base", DiskOptions{}); err != nil {
		t.Error(err)
	}
}

func testVolumesOfOthers(t *testing.T, s *suite) {
	z := s.zfs
	s.addImage(t, "base", "hello")
	foreign := z.imageName("debian-11.0")
	run(t, "zfs", "create", "-V", "8388608", "-o", "refreservation=none", foreign)
	if _, err := s.Get(t.Context(), "debian-11.0"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a volume without its snapshot is an image: %v", err)
	}
	if _, err := s.Create(t.Context(), "debian-11.0", nil); !errors.Is(err, ErrExists) {
		t.Errorf("the name of a foreign volume: %v", err)
	}
	run(t, "zfs", "snapshot", foreign+"@base")
	run(t, "zfs", "create", "-V", "8388608", "-o", "refreservation=none", z.imageName("other"))
	run(t, "zfs", "snapshot", z.imageName("other")+"@base")
	all, err := s.List(t.Context())
	if err != nil || len(all) != 3 || !all[1].Console.Known || all[2].Console.Known || all[2].VirtualSize != 8<<20 || all[2].Digest == all[1].Digest {
		t.Errorf("List = %+v, %v", all, err)
	}
	s.addDisk(t, owner("violin"), "other")
	s.take(t, "violin", "one")
	s.removeDisk(t, "violin")
	s.removeImage(t, "one")
	if err := s.Remove(t.Context(), "other"); err == nil || !strings.Contains(err.Error(), "zfs destroy -r "+z.imageName("other")) {
		t.Errorf("a foreign image is removed: %v", err)
	}
	// What is inherited does not make a volume ours, nor does its place.
	run(t, "zfs", "set", userImage+"=draft", z.dataset+"/img")
	if _, err := s.Create(t.Context(), "other", nil); !errors.Is(err, ErrExists) {
		t.Errorf("a volume that inherits our property is swept: %v", err)
	}
	run(t, "zfs", "create", "-o", "canmount=off", z.topologyName("duo"))
	if err := s.CreateDisk(t.Context(), owner("violin"), "base", DiskOptions{}); err == nil || !strings.Contains(err.Error(), "was not made by this program") {
		t.Errorf("a disk below a foreign file system: %v", err)
	}
	s.removeDisk(t, "violin")
	if err := z.destroy(t.Context(), foreign); err == nil {
		t.Error("a foreign volume is destroyed")
	}
	s.has(t, "img", "img/base", "img/base@base", "img/debian-11.0", "img/debian-11.0@base", "img/other", "img/other@base", "topo", "topo/duo")
}

func testTurnedAround(t *testing.T, s *suite) {
	z := s.zfs
	s.addImage(t, "base", "hello")
	disk := s.addDisk(t, owner("violin"), "base")
	s.writeAt(t, disk, 1<<20, "one")
	s.take(t, "violin", "one")
	s.take(t, "violin", "two")
	// Now one stands on a snapshot of two, base on one of theirs.
	run(t, "zfs", "promote", z.imageName("two"))
	s.inUse(t, "one", `image "two"`)
	s.inUse(t, "two", owner("violin").String())
	s.removeDisk(t, "violin")
	s.removeImage(t, "two")
	on := s.addDisk(t, owner("piano"), "one")
	s.reads(t, on, 1<<20, "one")
	// A disk that others were made to stand on can go too.
	s.take(t, "piano", "three")
	run(t, "zfs", "promote", z.diskName(owner("piano")))
	s.removeDisk(t, "piano")
	on = s.addDisk(t, owner("viola"), "three")
	s.reads(t, on, 1<<20, "one")
	s.removeDisk(t, "viola")
	s.removeImage(t, "three", "one", "base")
	s.has(t, "img", "topo")
}

func testDiskWithoutTopology(t *testing.T, s *suite) {
	s.addImage(t, "base", "hello")
	s.addDisk(t, owner("violin"), "base")
	o := owner("violin")
	o.Topology = ""
	for range 2 {
		if err := s.RemoveDisk(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	s.has(t, "img", "img/base", "img/base@base", "topo")
}

func testProperties(t *testing.T, s *suite) {
	z := s.zfs
	s.addImage(t, "base", "hello")
	if err := s.CreateDisk(t.Context(), owner("violin"), "base", DiskOptions{Size: 16 << 20, Reservation: 8 << 20}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ dataset, property, want string }{
		{z.imageName("base"), "volblocksize", "4096"},
		{z.imageName("base"), "refreservation", "none"},
		{z.diskName(owner("violin")), "origin", z.imageName("base") + "@base"},
		{z.diskName(owner("violin")), "volsize", "16777216"},
		{z.diskName(owner("violin")), "reservation", "8388608"},
		{z.diskName(owner("violin")), "sync", "disabled"},
		{z.diskName(owner("violin")), userDisk, `{"id":"t1","topology":"duo","folder":"/lab/duo/.falcon","node":"violin"}`},
	} {
		out := run(t, "zfs", "get", "-Hp", "-d", "1", "-t", "volume", "-o", "name,property,value,source", c.property, c.dataset)
		line, _, _ := strings.Cut(out, "\n")
		if f := strings.Split(line, "\t"); len(f) != 4 || (f[2] != c.want && !(c.want == "none" && f[2] == "0")) {
			t.Errorf("%s of %s is %q, want %s", c.property, c.dataset, line, c.want)
		}
	}
	err := s.CreateDisk(t.Context(), owner("piano"), "base", DiskOptions{Reservation: 1 << 50})
	if err == nil || !strings.Contains(err.Error(), "size is greater than available space") || !strings.Contains(err.Error(), z.dataset) {
		t.Errorf("a reservation larger than the pool: %v", err)
	}
	s.has(t, "img", "img/base", "img/base@base", "topo", "topo/duo", "topo/duo/violin")
}

func testHalfMade(t *testing.T, s *suite) {
	z := s.zfs
	s.addImage(t, "base", "hello")
	s.addDisk(t, owner("violin"), "base")
	// An import that was killed.
	run(t, "zfs", "create", "-V", "8388608", "-o", "refreservation=none", "-o", userImage+"="+imageDraft, z.imageName("killed"))
	if all, err := s.List(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("List = %+v, %v", all, err)
	}
	s.addImage(t, "killed", "now")
	s.removeImage(t, "killed")
	// Snapshots that were killed after each of their steps.
	r := `={"version":1,"name":"one","parent":{"name":"base","dir":"` + z.imageName("base") + `"},"owner":{"id":"t1","topology":"duo","node":"violin"}}`
	disk, one := z.diskName(owner("violin")), z.imageName("one")
	killed := [][]string{{"snapshot", disk + "@falcon-one"}, {"clone", "-o", userImage + r, disk + "@falcon-one", one}, {"promote", one}}
	for n := 1; n <= len(killed); n++ {
		for _, step := range killed[:n] {
			run(t, "zfs", step...)
		}
		if _, err := s.Get(t.Context(), "one"); !errors.Is(err, ErrNotFound) {
			t.Errorf("killed after step %d: %v", n, err)
		}
		s.take(t, "violin", "one")
		s.removeDisk(t, "violin")
		s.removeImage(t, "one")
		s.addDisk(t, owner("violin"), "base")
		for _, step := range killed[:n] {
			run(t, "zfs", step...)
		}
		// Another name, and a removal, end it as well.
		s.take(t, "violin", "two")
		s.removeDisk(t, "violin")
		s.removeImage(t, "two")
		s.has(t, "img", "img/base", "img/base@base", "topo")
		s.addDisk(t, owner("violin"), "base")
		for _, step := range killed[:n] {
			run(t, "zfs", step...)
		}
		if n > 1 { // there is an image
			s.removeImage(t, "one")
			s.take(t, "violin", "one")
			s.removeDisk(t, "violin")
			s.removeImage(t, "one")
			s.addDisk(t, owner("violin"), "base")
			for _, step := range killed[:n] {
				run(t, "zfs", step...)
			}
		}
		s.removeDisk(t, "violin") // goes with what it was to become
		s.has(t, "img", "img/base", "img/base@base", "topo")
		s.addDisk(t, owner("violin"), "base")
	}
	// A disk that was killed before it had its size.
	s.removeDisk(t, "violin")
	s.addDisk(t, owner("piano"), "base")
	draft, err := property(userDisk, zvolDisk{DiskOwner: owner("violin"), Draft: true})
	if err != nil {
		t.Fatal(err)
	}
	run(t, "zfs", "clone", "-o", draft, z.imageName("base")+"@base", disk)
	if s.HasDisk(t.Context(), owner("violin"), "") {
		t.Error("a disk that is not finished is one")
	}
	s.addDisk(t, owner("violin"), "base")
}

// zfsCommands returns what the model was asked, a line each.
func zfsCommands(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(os.Getenv(modelEnv), "commands"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(data)
}
