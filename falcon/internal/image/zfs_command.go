package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/mistifyio/go-zfs/v3"
)

// DatasetError is what ZFS said when it was asked to do something.
type DatasetError struct {
	// Verb is the command of zfs, Dataset what it was about.
	Verb, Dataset string
	// Err is a *zfs.Error where ZFS has said something.
	Err error
}

func (e *DatasetError) Error() string {
	return fmt.Sprintf("zfs %s %s: %s", e.Verb, e.Dataset, zfsWords(e.Err))
}

func (e *DatasetError) Unwrap() error { return e.Err }

// zfsWords returns what zfs or zpool have written to say why they failed.
func zfsWords(err error) string {
	var e *zfs.Error
	if !errors.As(err, &e) {
		return err.Error()
	}
	said, _, _ := strings.Cut(e.Stderr, "usage:")
	if said = strings.TrimSpace(said); said == "" {
		return e.Err.Error()
	}
	return strings.ReplaceAll(said, "\n", "; ")
}

// zfsSays tells whether an error of ZFS has these words. They are those of
// libzfs, the same on all systems; its exit status is 1 for all of them.
func zfsSays(err error, words string) bool {
	var e *zfs.Error
	return errors.As(err, &e) && strings.Contains(e.Stderr, words)
}

const (
	saysMissing   = "dataset does not exist"
	saysNoParent  = "parent does not exist"
	saysExists    = "dataset already exists"
	saysBusy      = "dataset is busy"
	saysClones    = "has dependent clones"
	userImage     = "falcon:image"    // of a volume below img: its record, or one of the words below
	userDisk      = "falcon:disk"     // of a volume below topo: its zvolDisk
	userTopology  = "falcon:topology" // of a file system below topo: the DiskOwner of all in it, without a node
	imageDraft    = "draft"           // falcon:image of an image that is being copied in
	imageReader   = "reader"          // falcon:image of a clone by which an image is read
	snapshotBase  = "base"            // of an image: what disks are clones of
	snapshotBegin = "falcon-"         // begins the name of the snapshot that a disk becomes an image by
)

// runZFS runs a command of zfs that go-zfs lacks, or whose result it cannot
// read everywhere: after create, clone and snapshot it reads the dataset's
// properties, and so do its lists. On illumos, which its build takes for Solaris
// and its code does not, it then reads an eleventh of ten columns.
func runZFS(ctx context.Context, dataset, verb string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "zfs", append([]string{verb}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C") // the words are looked at
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	switch {
	case err == nil:
		return stdout.String(), nil
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	default:
		err = &zfs.Error{Err: err, Debug: cmd.String(), Stderr: stderr.String()}
	}
	return "", &DatasetError{Verb: verb, Dataset: dataset, Err: err}
}

// promote turns a clone and the volume that it is a clone of around: the
// snapshot that it stands on, and all older ones, become its own.
func promote(ctx context.Context, clone string) error {
	_, err := runZFS(ctx, clone, "promote", clone)
	return err
}

func takeSnapshot(ctx context.Context, volume, name string) error {
	snapshot := volume + "@" + name
	_, err := runZFS(ctx, snapshot, "snapshot", snapshot)
	return err
}

// properties are the arguments by which zfs create and clone set properties.
func properties(all ...string) []string {
	var args []string
	for _, p := range all {
		args = append(args, "-o", p)
	}
	return args
}

func cloneSnapshot(ctx context.Context, snapshot, clone string, props ...string) error {
	_, err := runZFS(ctx, clone, "clone", append(properties(props...), snapshot, clone)...)
	return err
}

// setProperties sets several properties at once, which go-zfs does not.
func setProperties(ctx context.Context, dataset string, props ...string) error {
	_, err := runZFS(ctx, dataset, "set", append(props, dataset)...)
	return err
}

// destroyDataset destroys a dataset or a snapshot, unless clones stand on it. The
// caller knows that it is ours.
func destroyDataset(name string, withSnapshots bool) error {
	flags := zfs.DestroyDefault
	if withSnapshots {
		flags = zfs.DestroyRecursive
	}
	if err := (&zfs.Dataset{Name: name}).Destroy(flags); err != nil {
		return &DatasetError{Verb: "destroy", Dataset: name, Err: err}
	}
	return nil
}
