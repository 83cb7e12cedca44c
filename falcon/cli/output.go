package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
)

// output is standard output that keeps the first error of what is written to it:
// many a line is written by who has better things to do than to look at that.
type output struct {
	file *os.File

	mu  sync.Mutex
	err error
}

// watchOutput has a tree's commands write to standard output through an output,
// if that is where they write to.
func watchOutput(root *cobra.Command) *output {
	o := &output{file: os.Stdout}
	if root.OutOrStdout() == io.Writer(o.file) {
		root.SetOut(o)
	}
	return o
}

// Write writes to standard output.
func (o *output) Write(p []byte) (int, error) {
	n, err := o.file.Write(p)
	if err != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.err == nil {
			o.err = err
		}
	}
	return n, err
}

// Fd is that of standard output, for those who ask whether it is a terminal.
func (o *output) Fd() uintptr { return o.file.Fd() }

// lost returns an error when not all could be written. That nobody reads it any
// more is none.
func (o *output) lost() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil || errors.Is(o.err, syscall.EPIPE) {
		return nil
	}
	return fmt.Errorf("it is done, but not all of its output could be written: %w", o.err)
}

// forChildren is a writer as programs are to inherit it.
func forChildren(w io.Writer) io.Writer {
	if o, ok := w.(*output); ok {
		return o.file
	}
	return w
}
