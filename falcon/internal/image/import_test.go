package image

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// testDisk is a disk of 4 MiB with noise at both ends and a hole between.
func testDisk(t *testing.T) []byte {
	t.Helper()
	disk := make([]byte, 4<<20)
	for _, part := range [][]byte{disk[:100_000], disk[len(disk)-100_000:]} {
		if _, err := rand.Read(part); err != nil {
			t.Fatal(err)
		}
	}
	return disk
}

func compressed(t *testing.T, open func(io.Writer) (io.WriteCloser, error), data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := open(&out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

var compressions = map[string]func(io.Writer) (io.WriteCloser, error){
	".xz":  func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) },
	".zst": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
	".gz":  func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
}

func putFile(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestImportOfEachCompressionIsTheDisk(t *testing.T) {
	disk := testDisk(t)
	files := map[string][]byte{"disk.raw": disk, "disk.img": disk}
	for ext, open := range compressions {
		files["disk.raw"+ext] = compressed(t, open, disk)
	}
	for name, data := range files {
		t.Run(name, func(t *testing.T) {
			s := testStore(t)
			sum := sha256.Sum256(data)
			var last Step
			img, err := Import(t.Context(), s, putFile(t, name, data), "disk", ImportOptions{
				SHA256: strings.ToUpper(hex.EncodeToString(sum[:])), OS: "test",
				Progress: func(p Step) {
					if p.Bytes {
						last = p
					}
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(img.Disk)
			if err != nil || !bytes.Equal(got, disk) {
				t.Errorf("the disk differs: %v", err)
			}
			if img.Size >= int64(len(disk))/2 {
				t.Errorf("the disk takes %d bytes: its hole was filled", img.Size)
			}
			if img.Boot.Method != BootBIOS || img.Console.Known || img.Format != "raw" {
				t.Errorf("imported as %+v", img)
			}
			if last.Done != int64(len(data)) || last.Total != int64(len(data)) {
				t.Errorf("progress ended with %+v, the file has %d bytes", last, len(data))
			}
		})
	}
}

func TestImportOfDamagedFilesMakesNoImage(t *testing.T) {
	disk := testDisk(t)
	cases := map[string]struct {
		file string
		data []byte
		o    ImportOptions
		want string
	}{
		"another digest":  {"d.raw", disk, ImportOptions{SHA256: strings.Repeat("0", 64)}, "digest"},
		"not a digest":    {"d.raw", disk, ImportOptions{SHA256: "abc"}, "64 hex digits"},
		"empty":           {"d.raw", nil, ImportOptions{}, "empty"},
		"unknown format":  {"d.bin", disk, ImportOptions{}, "--format"},
		"no such format":  {"d.raw", disk, ImportOptions{Format: "vmdk"}, "--format"},
		"raw is no qcow2": {"d.raw", disk, ImportOptions{Format: "qcow2"}, "no qcow2"},
		"vmdk":            {"d.raw", append([]byte("KDMV"), disk...), ImportOptions{}, "vmdk"},
		"boot method":     {"d.raw", disk, ImportOptions{Boot: Boot{Method: "grub"}}, "boot method"},
		"no kernel":       {"d.raw", disk, ImportOptions{Boot: Boot{Method: BootKernel}}, "--kernel"},
		"useless kernel":  {"d.raw", disk, ImportOptions{Boot: Boot{Method: BootUEFI, Kernel: "k"}}, "no use"},
		"missing kernel":  {"d.raw", disk, ImportOptions{Boot: Boot{Kernel: "/nothing/here"}}, "/nothing/here"},
	}
	for ext, open := range compressions {
		whole := compressed(t, open, disk)
		c := cases["another digest"]
		c.file, c.data, c.o, c.want = "d.raw"+ext, whole[:len(whole)/2], ImportOptions{}, "ends early"
		cases["truncated"+ext] = c
		flipped := bytes.Clone(whole)
		flipped[len(flipped)/2] ^= 0xff
		c.data, c.want = flipped, ""
		cases["damaged"+ext] = c
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := testStore(t)
			_, err := Import(t.Context(), s, putFile(t, c.file, c.data), "disk", c.o)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("Import = %v, want %q", err, c.want)
			}
			if exists(s.Home()) && len(leftovers(t, s)) > 0 {
				t.Errorf("left over: %v", leftovers(t, s))
			}
		})
	}
}

func TestImportTakesOnlyWholeQcow2(t *testing.T) {
	dir := t.TempDir()
	raw := putFile(t, "disk.raw", testDisk(t))
	good := filepath.Join(dir, "good.qcow2")
	run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, good)
	based := filepath.Join(dir, "based.qcow2")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", good, based)
	external := filepath.Join(dir, "external.qcow2")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file="+filepath.Join(dir, "data"), external, "1M")
	secret := filepath.Join(dir, "secret.qcow2")
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	encrypted := bytes.Clone(whole)
	encrypted[35] = 2 // crypt_method LUKS; making such a disk takes seconds
	if err := os.WriteFile(secret, encrypted, 0o600); err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(dir, "half.qcow2")
	if err := os.WriteFile(half, whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	misnamed := filepath.Join(dir, "qcow2.img")
	if err := os.Link(good, misnamed); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		good: "", based: "backing file", external: "another file", secret: "encrypted", half: "qemu-img check", misnamed: "--format qcow2",
	} {
		s := testStore(t)
		img, err := Import(t.Context(), s, file, "disk", ImportOptions{})
		switch {
		case want == "" && (err != nil || img.Format != "qcow2" || img.VirtualSize != 4<<20):
			t.Errorf("%s: %+v, %v", file, img, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", file, err, want)
		}
	}
}

func TestImportKeepsKernelAndConsole(t *testing.T) {
	s := testStore(t)
	kernel, initrd := putFile(t, "vmlinuz-6", []byte("kernel")), putFile(t, "initrd.gz", []byte("initrd"))
	img, err := Import(t.Context(), s, putFile(t, "d.raw", testDisk(t)), "disk", ImportOptions{
		Boot:    Boot{Kernel: kernel, Initrd: initrd, Append: "console=ttyS0"},
		Console: Console{Login: "login:", User: "root", Known: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{img.Boot.Kernel: "kernel", img.Boot.Initrd: "initrd"} {
		if got, err := os.ReadFile(path); err != nil || string(got) != want || filepath.Dir(path) != img.Dir {
			t.Errorf("%s holds %q, %v", path, got, err)
		}
	}
	if img.Boot.Method != BootKernel || img.Console.Login != "login:" {
		t.Errorf("imported as %+v", img)
	}
}

func TestImportTellsTheFirmwareByTheFirstSector(t *testing.T) {
	s := testStore(t)
	partitions := func(program string) []byte {
		disk := make([]byte, 1<<20)
		copy(disk, program)
		disk[450] = 0xee
		copy(disk[510:], "\x55\xaa")
		return disk
	}
	raw := putFile(t, "d.raw", partitions(""))
	qcow2 := filepath.Join(t.TempDir(), "d.qcow2")
	if err := qemuImg(t.Context(), nil, "convert", "-f", "raw", "-O", "qcow2", raw, qcow2); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ file, say, want string }{
		"uefi":       {file: raw, want: BootUEFI},
		"uefi-qcow2": {file: qcow2, want: BootUEFI},
		"asked-for":  {file: raw, say: BootBIOS, want: BootBIOS},
		"bios":       {file: putFile(t, "d.raw", partitions("\xeb\x63\x90")), want: BootBIOS},
		"no-table":   {file: putFile(t, "d.raw", make([]byte, 1<<20)), want: BootBIOS},
		"tiny":       {file: putFile(t, "d.raw", []byte("x")), want: BootBIOS},
	} {
		img, err := Import(t.Context(), s, tc.file, name, ImportOptions{Boot: Boot{Method: tc.say}})
		if err != nil || img.Boot.Method != tc.want {
			t.Errorf("%s: booted by %q, %v; want %q", name, img.Boot.Method, err, tc.want)
		}
	}
}

func TestCancelledImportLeavesNothing(t *testing.T) {
	s := testStore(t)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Import(ctx, s, putFile(t, "d.raw", testDisk(t)), "disk", ImportOptions{Progress: func(Step) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Import = %v", err)
	}
	if left := leftovers(t, s); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestExportFlattensAndComesBack(t *testing.T) {
	s := testStore(t)
	addImage(t, s, "base", "hello")
	disk := addDisk(t, s, owner("violin"), "base")
	write(t, disk, "0x11", "1M")
	if _, err := s.Snapshot(t.Context(), owner("violin"), "tuned", nil); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, testImageSize)
	copy(want, "hello")
	copy(want[1<<20:], bytes.Repeat([]byte{0x11}, 64<<10))
	dir := t.TempDir()
	for _, name := range []string{"a.raw", "b.img", "c.qcow2", "d.raw.zst", "e.qcow2.zst"} {
		file := filepath.Join(dir, name)
		if err := s.Export(t.Context(), "tuned", file, nil); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		other := testStore(t)
		img, err := Import(t.Context(), other, file, "back", ImportOptions{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		back := filepath.Join(t.TempDir(), "back.raw")
		run(t, "qemu-img", "convert", "-f", img.Format, "-O", "raw", img.Disk, back)
		if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s does not come back: %v", name, err)
		}
		if err := s.Export(t.Context(), "tuned", file, nil); err == nil {
			t.Errorf("%s was overwritten", name)
		}
	}
	for _, name := range []string{"f", "f.vmdk", "f.raw.xz"} {
		if err := s.Export(t.Context(), "tuned", filepath.Join(dir, name), nil); err == nil {
			t.Errorf("%s was written", name)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 5 {
		t.Errorf("in the folder there are %v, %v", entries, err)
	}
}
