package qemu

import (
	"cmp"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/falcon-vm/falcon-go/propolis"
	"github.com/falcon-vm/falcon-go/propolis/internal/confine"
)

// environment has the variables of the environment by which falcon finds its processes.
var environment = []string{"FALCON_LAB", "FALCON_NODE", "FALCON_HOME", "FALCON_PROGRAM"}

// resolver is where QEMU's own NAT finds the name servers.
const resolver = "/etc/resolv.conf"

// jail is how a command is confined.
func jail(cfg Config, host Host, c Command, f *files) confine.Config {
	j := confine.Config{
		Path: c.Path, Args: c.Args, Files: f.child, Opened: f.opens, Level: host.Level, HostNetwork: c.HostNetwork,
		IDBase: cmp.Or(cfg.IDBase, confine.FirstID), Mounts: slices.Concat(confine.System(c.Path), c.Mounts),
	}
	if !slices.ContainsFunc(c.Mounts, func(m confine.Mount) bool { return m.Writable }) {
		j.Owner, j.Group = reader(cfg.Spec, host) // else it writes as who has started it
	}
	if _, err := os.Stat(resolver); err == nil && c.HostNetwork {
		j.Mounts = append(j.Mounts, confine.Mount{Source: resolver, Target: resolver})
	}
	if path, err := filepath.EvalSymlinks(c.Path); err == nil {
		j.Path = path
	}
	for _, name := range environment {
		if value, ok := os.LookupEnv(name); ok {
			j.Env = append(j.Env, name+"="+value)
		}
	}
	return j
}

// reader is the user and group of the host as whom QEMU reads its folders: the
// owner of the first, or of one that is not for everybody.
func reader(spec propolis.InstanceSpec, host Host) (uid, gid int) {
	chosen := false
	for _, name := range slices.Sorted(maps.Keys(spec.Components)) {
		share, ok := spec.Components[name].(propolis.P9FS)
		info := host.Files[share.Source].info
		if !ok || info == nil {
			continue
		}
		const everybody = 0o005
		private := info.Mode()&everybody != everybody
		u, g := owner(info)
		if u >= confine.IDs || g >= confine.IDs || chosen && !private {
			continue
		}
		if uid, gid, chosen = u, g, true; private {
			break
		}
	}
	return uid, gid
}
func owner(info fs.FileInfo) (uid, gid int) {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(s.Uid), int(s.Gid)
	}
	return 0, 0
}
