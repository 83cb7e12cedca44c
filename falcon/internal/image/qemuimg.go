package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"github.com/falcon-vm/falcon-go/falcon/internal/process"
)

// qemuImg runs qemu-img; its output goes to out if that is not nil.
func qemuImg(ctx context.Context, out io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, "qemu-img", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	defer process.EndWithUs(cmd.SysProcAttr, syscall.SIGKILL)()
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if out != nil {
		cmd.Stdout = out
	}
	err := cmd.Run()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return fmt.Errorf("%w: install QEMU's disk tools (Debian package qemu-utils)", err)
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("qemu-img %s: %w: %s", args[0], err, strings.TrimSpace(said.String()))
	}
	return nil
}

// checkQcow2 has qemu-img verify the inner structure of a qcow2 file.
func checkQcow2(ctx context.Context, path string) error {
	const leaked = 3 // qemu-img's status for clusters that nothing refers to: harmless
	err := qemuImg(ctx, nil, "check", "-q", "-f", "qcow2", path)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == leaked {
		return nil
	}
	return err
}

// convertProgress turns what qemu-img convert -p prints, "    (12.34/100%)\r",
// into reports.
type convertProgress struct {
	what     string
	progress Progress
}

var percentRE = regexp.MustCompile(`\(([0-9.]+)/100%\)`)

func (c convertProgress) Write(p []byte) (int, error) {
	if m := percentRE.FindAllSubmatch(p, -1); m != nil {
		if percent, err := strconv.ParseFloat(string(m[len(m)-1][1]), 64); err == nil {
			c.progress.Report(Step{What: c.what, Done: int64(percent), Total: 100})
		}
	}
	return len(p), nil
}
