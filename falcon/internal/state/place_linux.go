package state

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// handleOf returns a folder's file handle, behind the number of its file system,
// as FILESYSTEM:TYPE:BYTES.
func handleOf(path string) string {
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0)
	if err != nil {
		return "" // not every file system has them
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return ""
	}
	return fmt.Sprintf("%08x%08x:%d:%x", uint32(fs.Fsid.Val[0]), uint32(fs.Fsid.Val[1]), h.Type(), h.Bytes())
}

// Trace returns where the folder is now. The error is os.ErrNotExist when it was
// deleted, and wraps ErrUntraced when that cannot be told: it takes root.
func (p Place) Trace() (path string, err error) {
	number, h, err := parseHandle(p.Handle)
	if err != nil {
		return "", errors.Join(ErrUntraced, err)
	}
	mount, err := p.onFileSystem(number)
	if err != nil {
		return "", errors.Join(ErrUntraced, err)
	}
	defer mount.Close()
	fd, err := unix.OpenByHandleAt(int(mount.Fd()), h, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if errors.Is(err, unix.ESTALE) {
		return "", os.ErrNotExist
	}
	if err != nil {
		return "", errors.Join(ErrUntraced, err)
	}
	folder := os.NewFile(uintptr(fd), p.Folder)
	defer folder.Close()
	return pathOf(folder)
}

// pathOf returns where an open folder is.
func pathOf(folder *os.File) (string, error) {
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", folder.Fd()))
	switch {
	case err != nil:
		return "", errors.Join(ErrUntraced, err)
	case sameFile(folder, path):
		return path, nil
	case strings.HasSuffix(path, " (deleted)"): // and somebody works in it
		return "", os.ErrNotExist
	}
	return "", ErrUntraced
}

func parseHandle(s string) (fileSystem string, h unix.FileHandle, err error) {
	var kind int32
	var text string
	fileSystem, rest, _ := strings.Cut(s, ":")
	if _, err := fmt.Sscanf(rest, "%d:%s", &kind, &text); err != nil {
		return "", h, errors.New("nothing is known but its path")
	}
	data, err := hex.DecodeString(text)
	return fileSystem, unix.NewFileHandle(kind, data), err
}

// onFileSystem opens a folder above the place that is on its file system.
func (p Place) onFileSystem(number string) (*os.File, error) {
	for dir := filepath.Dir(p.Folder); ; dir = filepath.Dir(dir) {
		if above := PlaceOf(dir); above.Device == p.Device && strings.HasPrefix(above.Handle, number+":") {
			return os.Open(dir)
		}
		if dir == filepath.Dir(dir) {
			return nil, errors.New("its file system is not mounted there")
		}
	}
}
