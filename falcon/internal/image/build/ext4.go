package build

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ext4Options describe a root file system.
type ext4Options struct {
	label string
	size  int64 // bytes
}

// makeExt4 makes a file system image of a tree, all of it root's, as any user:
// mke2fs copies the owner of each file on the host, which debugfs then mends.
func makeExt4(ctx context.Context, t *tree, work, out string, o ext4Options) error {
	root := filepath.Join(work, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	if err := t.write(root); err != nil {
		return fmt.Errorf("writing the root file system: %w", err)
	}
	if err := (command{tool: mke2fs, args: mkfsArgs(root, out, o)}).run(ctx); err != nil {
		return fmt.Errorf("making the root file system: %w", err)
	}
	if os.Geteuid() == 0 && os.Getegid() == 0 {
		return nil
	}
	var script strings.Builder
	for name := range t.nodes {
		fmt.Fprintf(&script, "sif \"/%s\" uid 0\nsif \"/%s\" gid 0\n", name, name)
	}
	return command{tool: debugfs, args: []string{"-w", "-f", "-", out}, stdin: strings.NewReader(script.String())}.run(ctx)
}

// ext4Features are named one by one, so that the file system does not depend on
// the host's mke2fs.conf and kernels that are older than the host can mount it.
const ext4Features = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg," +
	"sparse_super,large_file,huge_file,dir_nlink,extra_isize"

// mkfsArgs are mke2fs' arguments for a sparse file of the given size with what
// is in root. The journal has the usual size: growing the file system later
// takes transactions that do not fit into a small one.
func mkfsArgs(root, out string, o ext4Options) []string {
	return []string{
		"-q", "-t", "ext4", "-d", root, "-L", o.label, "-b", "4096", "-m", "0",
		"-O", ext4Features, "-E", "root_owner=0:0,lazy_itable_init=0,nodiscard", out, fmt.Sprintf("%dk", o.size>>10),
	}
}

// toQcow2 turns a raw disk into a compressed qcow2 file and removes it.
func toQcow2(ctx context.Context, raw, out string) error {
	err := command{tool: qemuImg, args: []string{"convert", "-f", "raw", "-O", "qcow2", "-c", raw, out}}.run(ctx)
	if err != nil {
		return err
	}
	return os.Remove(raw)
}
