package build

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/process"
)

// tool is a program of the host that a build calls.
type tool struct {
	name string
	// pkg is the Debian package that has it.
	pkg string
}

var (
	aptGet     = tool{"apt-get", "apt"}
	dpkgDeb    = tool{"dpkg-deb", "dpkg"}
	mke2fs     = tool{"mke2fs", "e2fsprogs"}
	debugfs    = tool{"debugfs", "e2fsprogs"}
	qemuImg    = tool{"qemu-img", "qemu-utils"}
	xzTool     = tool{"xz", "xz-utils"}
	mmdebstrap = tool{"mmdebstrap", "mmdebstrap"}
	unshare    = tool{"unshare", "util-linux"}
	newuidmap  = tool{"newuidmap", "uidmap"}
	tarTool    = tool{"tar", "tar"}
	shell      = tool{"sh", "dash"}
)

// find looks in PATH and in the folders of system programs, which an ordinary
// user's PATH often lacks.
func (t tool) find() (string, error) {
	if path, err := exec.LookPath(t.name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		path := filepath.Join(dir, t.name)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("program %s is not installed: apt-get install %s", t.name, t.pkg)
}

// require says at once which programs a build misses, before it takes time.
func require(tools ...tool) error {
	for _, t := range tools {
		if _, err := t.find(); err != nil {
			return err
		}
	}
	return nil
}

// command is a call of a tool.
type command struct {
	tool   tool
	args   []string
	dir    string
	stdin  io.Reader
	stdout io.Writer
	// status gets what the program writes to descriptor 3.
	status io.Writer
}

// run runs the command with its children in a process group of its own, all of
// which end when the context does.
func (c command) run(ctx context.Context) error {
	path, err := c.tool.find()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, path, c.args...)
	cmd.Dir, cmd.Stdin = c.dir, c.stdin
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive",
		"PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	defer process.EndWithUs(cmd.SysProcAttr, syscall.SIGTERM)()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	var said tail
	cmd.Stdout, cmd.Stderr = &said, &said
	if c.stdout != nil {
		cmd.Stdout = c.stdout
	}
	wait := func() {}
	if c.status != nil {
		if wait, err = pipeTo(cmd, c.status); err != nil {
			return err
		}
	}
	err = cmd.Run()
	wait()
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", c.tool.name, ctx.Err())
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", c.tool.name, err, said.String())
	}
	return nil
}

// pipeTo gives the command a descriptor 3 that is copied to w. wait returns when
// all has been copied; call it after the command ended.
func pipeTo(cmd *exec.Cmd, w io.Writer) (wait func(), err error) {
	r, pw, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.ExtraFiles = []*os.File{pw}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(w, r)
		_ = r.Close()
	}()
	return func() {
		_ = pw.Close()
		<-done
	}, nil
}

// tail keeps the last words of a program.
type tail struct{ buf bytes.Buffer }

const tailBytes = 2000

func (t *tail) Write(p []byte) (int, error) {
	t.buf.Write(p)
	if over := t.buf.Len() - tailBytes; over > 0 {
		t.buf.Next(over)
	}
	return len(p), nil
}

func (t *tail) String() string { return strings.TrimSpace(t.buf.String()) }
