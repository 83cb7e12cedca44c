package image

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestAHomeThatSomebodyElseCanChangeIsRefused also where it is not there yet.
func TestAHomeThatSomebodyElseCanChangeIsRefused(t *testing.T) {
	mkdir := func(path string, mode os.FileMode, uid int) error {
		return errors.Join(os.Mkdir(path, 0o700), os.Chmod(path, mode), os.Chown(path, uid, uid))
	}
	const other = 54321
	me := os.Geteuid()
	for name, tt := range map[string]struct {
		make func(dir string) error // of dir/home, or what is to hold it
		root bool                   // it takes root to make
		path string                 // below dir, that is to blame; "-" for none
	}{
		"one's own":        {func(dir string) error { return mkdir(dir+"/home", 0o700, me) }, false, "-"},
		"for all to read":  {func(dir string) error { return mkdir(dir+"/home", 0o755, me) }, false, "-"},
		"not there":        {func(string) error { return nil }, false, "-"},
		"writable for all": {func(dir string) error { return mkdir(dir+"/home", 0o777, me) }, false, "home"},
		"sticky":           {func(dir string) error { return mkdir(dir+"/home", 0o777|os.ModeSticky, me) }, false, "home"},
		"another's":        {func(dir string) error { return mkdir(dir+"/home", 0o700, other) }, true, "home"},
		"of a group": {func(dir string) error {
			return errors.Join(mkdir(dir+"/home", 0o770, me), os.Chown(dir+"/home", me, other))
		}, true, "home"},
		"in what is another's": {func(dir string) error {
			return errors.Join(mkdir(dir+"/a", 0o755, other), os.Symlink("a", dir+"/link"), os.Symlink("link", dir+"/home"))
		}, true, "a"},
		"a link of another's": {func(dir string) error {
			return errors.Join(mkdir(dir+"/a", 0o700, me), os.Symlink("a", dir+"/home"), os.Lchown(dir+"/home", other, other))
		}, true, "home"},
		"a link of one's own": {func(dir string) error { return errors.Join(mkdir(dir+"/a", 0o700, me), os.Symlink("a", dir+"/home")) }, false, "-"},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.root && me != 0 {
				t.Skip("it gives a folder away, which needs root")
			}
			dir := t.TempDir()
			if err := tt.make(dir); err != nil {
				t.Fatal(err)
			}
			_, err := OpenFiles(Options{Home: dir + "/home", System: []string{}})
			var bad *HomeError
			switch {
			case tt.path == "-" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.path != "-" && (!errors.As(err, &bad) || bad.Path != filepath.Join(dir, tt.path)):
				t.Errorf("OpenFiles = %v, want %s to blame", err, tt.path)
			}
		})
	}
}
