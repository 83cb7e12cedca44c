package build

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

// unpack extracts the files of packages into a folder. /bin, /sbin and /lib*
// become parts of /usr, as on any installed Debian, so that old and new packages
// agree on every path. Owners and special files are left out.
func unpack(ctx context.Context, dir string, debs ...string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, deb := range debs {
		if err := unpackOne(ctx, root, deb); err != nil {
			return fmt.Errorf("unpacking %s: %w", path.Base(deb), err)
		}
	}
	return nil
}

func unpackOne(ctx context.Context, root *os.Root, deb string) error {
	r, w := io.Pipe()
	go func() {
		w.CloseWithError(command{tool: dpkgDeb, args: []string{"--fsys-tarfile", deb}, stdout: w}.run(ctx))
	}()
	defer r.Close() // ends dpkg-deb if we stop early
	files := tar.NewReader(r)
	for {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := unpackFile(root, h, files); err != nil {
			return err
		}
	}
}

func unpackFile(root *os.Root, h *tar.Header, content io.Reader) error {
	name := merged(h.Name)
	if h.Typeflag == tar.TypeDir {
		return root.MkdirAll(name, 0o755)
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		return root.Link(merged(h.Linkname), name)
	case tar.TypeReg:
		f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		return errors.Join(err, f.Close())
	}
	return nil
}

// merged is a package's path below /usr where the merged /usr has it.
func merged(name string) string {
	name = path.Clean(strings.TrimPrefix(name, "/"))
	switch first, _, _ := strings.Cut(name, "/"); first {
	case "bin", "sbin", "lib", "lib32", "lib64", "libx32":
		return "usr/" + name
	}
	return name
}
