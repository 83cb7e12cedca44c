package confine

import (
	"os"
	"path/filepath"
)

// System is what a program needs of the host to run at all: the libraries, and
// what belongs to the program if that is elsewhere.
func System(program string) []Mount {
	var mounts []Mount
	for _, dir := range []string{"/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/nix/store", "/gnu/store",
		"/etc/ld.so.cache", "/etc/alternatives"} {
		if _, err := os.Stat(dir); err == nil {
			mounts = append(mounts, Mount{Source: dir, Target: dir})
		}
	}
	for _, device := range []string{"/dev/null", "/dev/zero", "/dev/urandom"} {
		mounts = append(mounts, Mount{Source: device, Target: device, Device: true})
	}
	if path, err := filepath.EvalSymlinks(program); program != "" && err == nil && !covered(mounts, path) {
		mounts = append(mounts, Mount{Source: path, Target: path, Owned: true})
	}
	return mounts
}

func covered(mounts []Mount, path string) bool {
	for _, m := range mounts {
		if rel, err := filepath.Rel(m.Source, path); err == nil && filepath.IsLocal(rel) {
			return true
		}
	}
	return false
}
