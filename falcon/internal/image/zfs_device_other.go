//go:build !linux

package image

import (
	"context"
	"os"
	"time"
)

// deviceDir is where illumos has the raw devices of volumes.
const deviceDir = "/dev/zvol/rdsk"

// deviceReady says why the device of a volume cannot be used yet.
func deviceReady(device, _ string) error {
	f, err := os.Open(device)
	if err != nil {
		return err
	}
	return f.Close()
}

const devicePause = 20 * time.Millisecond

// awaitDevice waits until ready has nothing to say against a device, and returns
// the last that it said. The file system /dev makes the device when it is looked
// up, so it is there at once; the pauses are for the moment in which the volume
// is not yet known to it, of which nothing gives notice.
func awaitDevice(ctx context.Context, _ string, ready func() error) error {
	for {
		last := ready()
		if last == nil {
			return nil
		}
		select {
		case <-time.After(devicePause):
		case <-ctx.Done():
			return last
		}
	}
}

func missingDevice(dataset string) string { return " (see zfs list " + dataset + ")" }
