package build

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
)

// An ordinary user gets the owners of files right inside a user namespace in
// which the user is root and a range of further ids is mapped.

// asRoot is a command that sees itself as root.
func asRoot(c command) command {
	if os.Geteuid() == 0 {
		return c
	}
	c.args = append([]string{"--map-root-user", "--map-auto", c.tool.name}, c.args...)
	c.tool = unshare
	return c
}

// canBootstrap says what an ordinary user lacks for building a whole system.
func canBootstrap(ctx context.Context) error {
	if os.Geteuid() == 0 {
		return nil
	}
	if err := require(unshare, newuidmap); err != nil {
		return fmt.Errorf("%w; or build this image as root", err)
	}
	if err := asRoot(command{tool: shell, args: []string{"-c", "exit 0"}}).run(ctx); err != nil {
		name := "USER"
		if u, err := user.Current(); err == nil {
			name = u.Username
		}
		return fmt.Errorf("this host gives you no user namespace with further ids (%w); build this image as root, or let root run: "+
			"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s", err, name)
	}
	return nil
}

// packScript makes a file system of a tar file: $1 the tar file, $2 a folder to
// make and to remove again, as nobody outside of the namespace can, and then the
// command that makes it.
const packScript = `tar=$1 dir=$2; shift 2
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' TERM INT HUP
mkdir "$dir" && tar -xpf "$tar" -C "$dir" --numeric-owner --exclude='./dev/*' && "$@"`

// tarToExt4 makes a file system image of a tar file, which it removes.
func tarToExt4(ctx context.Context, tarFile, work, out string, o ext4Options) error {
	path, err := mke2fs.find()
	if err != nil {
		return err
	}
	root := filepath.Join(work, "root")
	args := append([]string{"-e", "-c", packScript, "sh", tarFile, root, path}, mkfsArgs(root, out, o)...)
	if err := asRoot(command{tool: shell, args: args}).run(ctx); err != nil {
		return fmt.Errorf("making the root file system: %w", err)
	}
	return os.Remove(tarFile)
}
