//go:build linux

package examples_test

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// hostObjects lists what labs make outside of their folders: namespaces and
// devices on the host's interfaces.
func (s *site) hostObjects() map[string]bool {
	s.t.Helper()
	objects := make(map[string]bool)
	namespaces, err := filepath.Glob("/run/netns/falcon-*")
	check(s.t, err)
	for _, path := range namespaces {
		if !s.elsewhere(path) {
			objects["namespace "+filepath.Base(path)] = true
		}
	}
	links, err := netlink.LinkList()
	check(s.t, err)
	for _, l := range links {
		if l.Type() == "macvtap" || l.Type() == "macvlan" || l.Type() == "tuntap" {
			objects[l.Type()+" device "+l.Attrs().Name] = true
		}
	}
	return objects
}

// elsewhere reports whether a namespace belongs to a lab that is listed in a home
// of somebody else's, who works on the host at the same time.
func (s *site) elsewhere(namespace string) bool {
	var entry struct {
		Home string `json:"home"`
	}
	id := namespace[strings.LastIndexByte(namespace, '-')+1:]
	data, err := os.ReadFile(filepath.Join("/run/falcon/labs", id+".json"))
	return err == nil && json.Unmarshal(data, &entry) == nil && entry.Home != "" && entry.Home != s.home && !strings.HasPrefix(entry.Home, s.dir)
}

// clean fails the test for everything that its labs have left on the host.
func (s *site) clean(when string) {
	s.t.Helper()
	for o := range s.hostObjects() {
		if !s.before[o] {
			s.t.Errorf("leak %s: %s", when, o)
		}
	}
	for _, leaks := range [][]string{s.processes(), s.mounts(), s.sockets(), s.files()} {
		for _, l := range leaks {
			s.t.Errorf("leak %s: %s", when, l)
		}
	}
}

// processes lists those that refer to the site, by their arguments, their working
// directory, or the home in their environment, which is all that QEMU has.
func (s *site) processes() []string {
	var found []string
	dirs, err := filepath.Glob("/proc/[0-9]*")
	check(s.t, err)
	for _, dir := range dirs {
		// A process may have ended meanwhile.
		args, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		cwd, _ := os.Readlink(filepath.Join(dir, "cwd"))
		env, _ := os.ReadFile(filepath.Join(dir, "environ"))
		ours := slices.Contains(strings.Split(string(env), "\x00"), "FALCON_HOME="+s.home)
		if ours || strings.Contains(string(args), s.dir) || strings.HasPrefix(cwd, s.dir) {
			found = append(found, "process "+filepath.Base(dir)+" in "+cwd+": "+strings.ReplaceAll(string(args), "\x00", " "))
		}
	}
	return found
}

func (s *site) mounts() []string  { return s.linesOf("mount", "/proc/self/mountinfo") }
func (s *site) sockets() []string { return s.linesOf("socket", "/proc/net/unix") }

// linesOf lists the lines of a file that name the site.
func (s *site) linesOf(kind, path string) []string {
	data, err := os.ReadFile(path)
	check(s.t, err)
	var found []string
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, s.dir) {
			found = append(found, kind+" "+line)
		}
	}
	return found
}

// files lists what labs have left in the home and in their folders.
func (s *site) files() []string {
	var found []string
	for _, dir := range slices.Compact([]string{s.dir, s.home}) {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			folder := filepath.Dir(path)
			switch {
			case d.Name() == ".falcon", d.Type()&fs.ModeSocket != 0,
				folder == filepath.Join(s.home, "topo"), folder == filepath.Join(s.home, "labs"), folder == filepath.Join(s.home, "tmp"):
				found = append(found, "file "+path)
			}
			return nil
		})
		check(s.t, err)
	}
	return found
}
