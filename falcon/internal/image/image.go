package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

// Ways in which a guest is started from an image.
const (
	BootBIOS   = "bios"   // SeaBIOS reads the disk's boot sector
	BootUEFI   = "uefi"   // OVMF reads the disk's EFI system partition
	BootKernel = "kernel" // the hypervisor loads Boot.Kernel itself
)

// Image is a base on which disks of nodes can be made.
type Image struct {
	Name string `json:"name"`
	// Digest is "sha256:" and 64 hex digits. DigestOf says of what.
	Digest string `json:"digest"`
	// DigestOf is "files" when Digest is that of the disk, the kernel and the
	// initrd as stored, one after the other (of the disk alone where there is
	// no kernel), or "snapshot" when nothing was read and Digest is a unique
	// identity that follows from the parent's.
	DigestOf string `json:"digest_of"`
	// Size is what the image's own files take on the host, in bytes.
	Size int64 `json:"size"`
	// VirtualSize is the size of the disk that a guest sees, in bytes.
	VirtualSize int64     `json:"virtual_size"`
	Created     time.Time `json:"created"`
	// Parent names the image that this one is an overlay of, if any.
	Parent  string  `json:"parent,omitempty"`
	Boot    Boot    `json:"boot"`
	Console Console `json:"console"`
	// OS is a word for people and for guest set-up, such as "debian-12".
	OS string `json:"os,omitempty"`
	// Agent is the version of the guest agent in it, empty if there is none.
	Agent string `json:"agent,omitempty"`
	// Dir is the image's folder, or the name of its ZFS volume. Disk is the
	// absolute path of its disk.
	Dir  string `json:"dir"`
	Disk string `json:"disk"`
	// Format is the disk's format, "raw" or "qcow2".
	Format string `json:"format"`
	// ReadOnly is set for an image of a system store.
	ReadOnly bool `json:"read_only"`

	parentDir string
}

// Boot says how a guest is started.
type Boot struct {
	// Method is BootBIOS, BootUEFI or BootKernel.
	Method string `json:"method"`
	// Kernel and Initrd are absolute paths, found through the parents.
	Kernel string `json:"kernel,omitempty"`
	Initrd string `json:"initrd,omitempty"`
	// Append is the kernel's command line.
	Append string `json:"append,omitempty"`
}

// Console describes what a guest says on its first serial port.
type Console struct {
	// Login is the end of the question for a user's name, such as "login:".
	// Empty means that a shell is there at once.
	Login string `json:"login,omitempty"`
	// User and Password answer that question; an empty Password is not asked for.
	User     string `json:"user,omitempty"`
	Password string `json:"password,omitempty"`
	// Prompt is a regular expression (RE2) which matches the end of what is on
	// the console when the shell waits for a command.
	Prompt string `json:"prompt,omitempty"`
	// Known is false for an image of which we know no login: its guests are
	// launched without set-up.
	Known bool `json:"known"`
}

// MaxName is the longest name of an image, in bytes. It leaves room in a file
// name (255 bytes) for what locks and temporary folders add.
const MaxName = 64

var nameRE = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]*$`)

// ValidName says what is wrong with an image's name, if anything.
func ValidName(name string) error {
	switch {
	case name == "":
		return errors.New("image name is empty")
	case len(name) > MaxName:
		return fmt.Errorf("image name %.20q… has %d bytes, at most %d are allowed", name, len(name), MaxName)
	case !nameRE.MatchString(name):
		return fmt.Errorf("image name %q: use a letter, then letters, digits, '.', '_' or '-'", name)
	}
	return nil
}

const (
	recordFile  = "image.json"
	pendingFile = "image.json.pending" // a snapshot that is not finished
	removedFile = "image.json.removed" // an image that is being removed
)

// record is image.json. File names in it are relative to the image's folder.
type record struct {
	Version     int        `json:"version"`
	Name        string     `json:"name"`
	Created     time.Time  `json:"created"`
	Digest      string     `json:"digest"`
	DigestOf    string     `json:"digest_of"`
	Disk        string     `json:"disk"`
	Format      string     `json:"format"`
	VirtualSize int64      `json:"virtual_size"`
	Parent      *parentRef `json:"parent,omitempty"`
	Boot        Boot       `json:"boot,omitzero"`
	Console     Console    `json:"console"`
	OS          string     `json:"os,omitempty"`
	Agent       string     `json:"agent,omitempty"`
	// Owner is whose disk became this image, for a snapshot.
	Owner *DiskOwner `json:"owner,omitempty"`
	// Template is what makes it one.
	Template *templateNote `json:"template,omitempty"`
}

// parentRef names an image by its folder too: a user's image and one of the
// system may have the same name.
type parentRef struct {
	Name string `json:"name"`
	Dir  string `json:"dir"`
	// Digest is what the image had when something was put on it, File its
	// disk's file then. Records of earlier programs have neither.
	Digest string     `json:"digest,omitempty"`
	File   *fileTrace `json:"file,omitempty"`
}

// known is the name by which people know what is referred to: of a template
// they know its image.
func (p parentRef) known() string {
	var r record
	if isTemplate(p.Name) && readJSON(filepath.Join(p.Dir, recordFile), &r) == nil && r.Parent != nil {
		return r.Parent.Name
	}
	return p.Name
}

const recordVersion = 1

// maxDepth bounds the chain of parents that is followed; QEMU itself opens a
// file for each, so a chain of this length is a mistake.
const maxDepth = 200

func loadImage(dir string) (Image, error) {
	var r record
	if err := readJSON(filepath.Join(dir, recordFile), &r); err != nil {
		return Image{}, err
	}
	return imageOf(dir, r)
}

func imageOf(dir string, r record) (Image, error) {
	if r.Version != recordVersion {
		return Image{}, fmt.Errorf("%s has version %d, this program knows %d", filepath.Join(dir, recordFile), r.Version, recordVersion)
	}
	img := Image{
		Name: filepath.Base(dir), Digest: r.Digest, DigestOf: r.DigestOf,
		Size: allocated(dir), VirtualSize: r.VirtualSize, Created: r.Created,
		Console: r.Console, OS: r.OS, Agent: r.Agent, Dir: dir, Disk: filepath.Join(dir, r.Disk), Format: r.Format,
	}
	if r.Parent != nil {
		img.Parent, img.parentDir = r.Parent.known(), r.Parent.Dir
	}
	boot, err := resolveBoot(dir, r)
	img.Boot = boot
	return img, err
}

// resolveBoot follows the parents to the image that says how to boot.
func resolveBoot(dir string, r record) (Boot, error) {
	for range maxDepth {
		if r.Boot.Method != "" || r.Parent == nil {
			b := r.Boot
			b.Kernel, b.Initrd = within(dir, b.Kernel), within(dir, b.Initrd)
			return b, nil
		}
		parent := *r.Parent
		r = record{}
		err := readJSON(filepath.Join(parent.Dir, recordFile), &r)
		if errors.Is(err, fs.ErrNotExist) {
			return Boot{}, gone(dir, parent)
		}
		if err != nil {
			return Boot{}, fmt.Errorf("parent image: %w", err)
		}
		dir = parent.Dir
	}
	return Boot{}, fmt.Errorf("image %s has more than %d parents", dir, maxDepth)
}

func within(dir, file string) string {
	if file == "" {
		return ""
	}
	return filepath.Join(dir, file)
}

// allocated is what the files of a folder take on the disk, holes left out.
func allocated(dir string) int64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil //nolint:nilerr // a size for people: what cannot be seen counts nothing
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			sum += st.Blocks * 512 // st_blocks counts 512 bytes everywhere
		}
		return nil
	})
	return sum
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
