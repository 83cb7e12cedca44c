package image

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestDeviceIsAwaitedByEvent makes the folders and the link one after the other,
// as udev does, and replaces the link of an earlier volume.
func TestDeviceIsAwaitedByEvent(t *testing.T) {
	dir := t.TempDir()
	device := filepath.Join(dir, "zvol", "tank", "falcon", "violin")
	ready := func() error {
		target, err := os.Readlink(device)
		if err == nil && target != "/dev/zd16" {
			err = errors.New("it is another's")
		}
		return err
	}
	made := make(chan error, 1)
	go func() {
		step := func(do error) error {
			time.Sleep(20 * time.Millisecond) // so that the steps are events of their own
			return do
		}
		made <- errors.Join(
			step(os.Mkdir(filepath.Join(dir, "zvol"), 0o755)),
			step(os.MkdirAll(filepath.Dir(device), 0o755)),
			step(os.Symlink("/dev/zd0", device)),
			step(os.Symlink("/dev/zd16", device+".new")),
			step(os.Rename(device+".new", device)),
		)
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := awaitDevice(ctx, device, ready); err != nil {
		t.Error(err)
	}
	if err := <-made; err != nil {
		t.Error(err)
	}
}

func TestWaitForADeviceEndsWithTheContext(t *testing.T) {
	device := filepath.Join(t.TempDir(), "zvol", "violin")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	err := awaitDevice(ctx, device, func() error { return deviceReady(device, "tank/violin") })
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the last that was seen is %v", err)
	}
}

func TestFileIsNoVolume(t *testing.T) {
	path := filepath.Join(t.TempDir(), "violin")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := deviceReady(path, "tank/violin"); err == nil {
		t.Error("a file is taken for a volume")
	}
}
