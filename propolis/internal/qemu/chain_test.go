package qemu

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// qcow2 is the head of an image on a backing file of a format, which may be empty.
func qcow2(backing, format string, features uint64) []byte {
	head := make([]byte, 104)
	copy(head, qcow2Magic)
	binary.BigEndian.PutUint32(head[4:], 3)
	binary.BigEndian.PutUint64(head[72:], features)
	binary.BigEndian.PutUint32(head[100:], 104)
	if format != "" {
		head = binary.BigEndian.AppendUint32(head, qcow2Backing)
		head = binary.BigEndian.AppendUint32(head, uint32(len(format)))
		head = append(head, format...)
		head = append(head, make([]byte, -len(head)&7)...)
	}
	head = append(head, make([]byte, 8)...)
	if backing != "" {
		binary.BigEndian.PutUint64(head[8:], uint64(len(head)))
		binary.BigEndian.PutUint32(head[16:], uint32(len(backing)))
	}
	return append(head, backing...)
}

func TestWhatADiskStandsOn(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	for name, data := range map[string][]byte{
		"base.raw": {1}, "base.qcow2": qcow2("", "", 0), "middle.qcow2": qcow2(in("base.qcow2"), "qcow2", 0),
		"secret": {2}, "link.qcow2": qcow2("sym", "raw", 0),
		"top.qcow2": qcow2("middle.qcow2", "qcow2", 0), "on-raw.qcow2": qcow2(in("base.raw"), "raw", 0),
		"by-name.qcow2": qcow2(in("base.qcow2"), "", 0), "ring.qcow2": qcow2("ring.qcow2", "qcow2", 0),
		"stolen.qcow2": qcow2(in("secret"), "raw", 0), "gone.qcow2": qcow2(in("gone"), "raw", 0),
		"device.qcow2": qcow2("/dev/zero", "raw", 0), "folder.qcow2": qcow2(dir, "raw", 0),
		"url.qcow2": qcow2("nbd:127.0.0.1:1", "raw", 0), "json.qcow2": qcow2(`json:{"driver":"file"}`, "raw", 0),
		"other.qcow2": qcow2(in("base.raw"), "vmdk", 0), "data.qcow2": qcow2("", "", qcow2Data),
		"short.qcow2": []byte(qcow2Magic), "text.qcow2": []byte(strings.Repeat("text", 100)), "on-text.qcow2": qcow2("text.qcow2", "qcow2", 0),
		"far.qcow2": qcow2(in("base.raw"), "raw", 0)[:130],
	} {
		if err := os.WriteFile(in(name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(in("secret"), in("sym")); err != nil {
		t.Fatal(err)
	}
	bases := []string{in("base.raw"), in("middle.qcow2"), in("base.qcow2"), in("ring.qcow2"), in("text.qcow2")}
	for disk, want := range map[string][]Layer{
		"base.raw": nil, "base.qcow2": nil, "short.qcow2": nil, "text.qcow2": nil,
		"top.qcow2":     {{Path: in("middle.qcow2"), Format: "qcow2"}, {Path: in("base.qcow2"), Format: "qcow2"}},
		"on-raw.qcow2":  {{Path: in("base.raw"), Format: "raw"}},
		"by-name.qcow2": {{Path: in("base.qcow2"), Format: "qcow2"}},
	} {
		got := surveyDisk(in(disk), bases)
		if diff := cmp.Diff(want, got.Backing); diff != "" || got.Err != nil {
			t.Errorf("%s: %v %s", disk, got.Err, diff)
		}
	}
	for disk, want := range map[string]string{
		"stolen.qcow2": "its header was changed", "link.qcow2": "its header was changed", "ring.qcow2": "more than 200 files",
		"gone.qcow2": "no such file", "device.qcow2": "is no file", "folder.qcow2": "is no file", "url.qcow2": "is no file", "json.qcow2": "is no file",
		"other.qcow2": `"vmdk", which is not served`, "data.qcow2": "in another file", "on-text.qcow2": "is no qcow2 file",
		"far.qcow2": "damaged",
	} {
		if got := surveyDisk(in(disk), bases); got.Err == nil || !strings.Contains(got.Err.Error(), want) {
			t.Errorf("%s: %v, want %q", disk, got.Err, want)
		}
	}
	if got := surveyDisk(in("stolen.qcow2"), nil); got.Err != nil {
		t.Errorf("without a list: %v", got.Err)
	}
}
