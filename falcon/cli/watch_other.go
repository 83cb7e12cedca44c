//go:build !linux

package cli

import (
	"context"
	"os"
	"time"
)

// fileWatch waits for changes of a file, by looking: event ports, which illumos
// has for this, are not in reach of the packages used here.
type fileWatch struct {
	ctx  context.Context
	path string
}

const lookEvery = 250 * time.Millisecond

// watchFile watches a file until ctx ends, which ends a Wait too.
func watchFile(ctx context.Context, path string) (*fileWatch, error) {
	return &fileWatch{ctx, path}, nil
}

// Wait returns when it is time to look at the file again. When it has no name
// any more the error is os.ErrNotExist.
func (w *fileWatch) Wait() error {
	select {
	case <-time.After(lookEvery):
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
	_, err := os.Stat(w.path)
	return err
}

// Close ends the watching.
func (w *fileWatch) Close() {}
