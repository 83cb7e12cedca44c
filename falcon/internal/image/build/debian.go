package build

import (
	"archive/tar"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
)

//go:embed files
var files embed.FS

const (
	debianRelease = "bookworm"
	debianSize    = 8 << 30
	debianPrompt  = `root@[^\r\n]*:[^\r\n]*# $`
)

var debianPackages = []string{
	"systemd", "systemd-sysv", "udev", "kmod", "procps", "less", "nano", "netbase", "e2fsprogs",
	"iproute2", "iputils-ping", "ethtool", "tcpdump", "iperf3", "frr", "qemu-guest-agent",
}

// debianMasked are units that a guest of a lab does not need and that take time
// at every boot, above all under TCG.
var debianMasked = []string{
	// devices are brought up by falcon-devices and falcon-later
	"systemd-udev-trigger.service", "systemd-udev-settle.service", "serial-getty@ttyS0.service", "getty@tty1.service",
	"getty-static.service", "console-getty.service",
	// book-keeping of a machine that lives for long
	"systemd-journal-flush.service", "systemd-journal-catalog-update.service", "systemd-update-utmp.service",
	"systemd-update-utmp-runlevel.service", "systemd-update-done.service", "systemd-random-seed.service",
	"systemd-hwdb-update.service", "systemd-pstore.service", "systemd-firstboot.service", "systemd-sysusers.service",
	"systemd-boot-system-token.service", "systemd-boot-update.service", "systemd-repart.service", "ldconfig.service",
	"systemd-pcrphase.service", "systemd-pcrphase-sysinit.service", "systemd-pcrphase-initrd.service", "systemd-pcrmachine.service",
	"systemd-tmpfiles-clean.timer", "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "logrotate.timer",
	"e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "man-db.timer",
	// services for people and networks that are not there
	"systemd-logind.service", "systemd-user-sessions.service", "systemd-timesyncd.service", "systemd-networkd.service",
	"systemd-networkd.socket", "systemd-network-generator.service", "systemd-resolved.service", "systemd-rfkill.socket",
	"systemd-ask-password-console.path", "systemd-ask-password-wall.path", "systemd-initctl.socket",
	// mounts and modules that come on demand
	"dev-hugepages.mount", "dev-mqueue.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount",
	"sys-kernel-config.mount", "sys-fs-fuse-connections.mount", "proc-sys-fs-binfmt_misc.automount", "systemd-binfmt.service",
	"kmod-static-nodes.service", "modprobe@.service", "systemd-modules-load.service", "systemd-remount-fs.service",
	"systemd-fsck-root.service", "systemd-tmpfiles-setup-dev.service",
}

// debianNoGenerators are generators of units that make none here. systemd runs
// all of them before it does anything else.
var debianNoGenerators = []string{
	"systemd-bless-boot-generator", "systemd-cryptsetup-generator", "systemd-debug-generator", "systemd-getty-generator",
	"systemd-gpt-auto-generator", "systemd-hibernate-resume-generator", "systemd-integritysetup-generator",
	"systemd-rc-local-generator", "systemd-run-generator", "systemd-system-update-generator", "systemd-sysv-generator",
	"systemd-veritysetup-generator",
}

// debianNoModules are folders of kernel modules for hardware that no hypervisor
// shows to a guest. Without them the image is half as large.
var debianNoModules = []string{
	"sound", "drivers/gpu", "drivers/media", "drivers/staging", "drivers/infiniband", "drivers/iio", "drivers/hwmon",
	"drivers/net/wireless", "drivers/bluetooth", "drivers/usb/gadget", "drivers/input/touchscreen", "drivers/platform",
}

// debian is a kind of Debian that can be built.
type debian struct {
	// packages are installed beside debianPackages; those of the kernel's
	// release have that appended to their name.
	packages, kernelPackages []string
	// components of the archive that they are in.
	components string
	// module is one that the packages are to have built for the kernel.
	module string
}

func buildDebian(ctx context.Context, j *job) (image.Spec, error) {
	return debian{components: mainComponent}.build(ctx, j)
}

// buildDebianZFS makes a Debian that can be a host of falcon with ZFS itself.
// The module is built for the image's kernel while the packages are installed.
func buildDebianZFS(ctx context.Context, j *job) (image.Spec, error) {
	return debian{
		packages:       []string{"zfs-dkms", "zfsutils-linux", "qemu-system-x86", "qemu-utils"},
		kernelPackages: []string{"linux-headers-"},
		components:     mainComponent + " contrib",
		module:         "zfs",
	}.build(ctx, j)
}

func (k debian) build(ctx context.Context, j *job) (image.Spec, error) {
	if err := require(aptGet, dpkgDeb, mmdebstrap, mke2fs, qemuImg, xzTool, tarTool); err != nil {
		return image.Spec{}, err
	}
	if err := canBootstrap(ctx); err != nil {
		return image.Spec{}, err
	}
	sources, p, err := j.fetchDebian(ctx, k.components)
	if err != nil {
		return image.Spec{}, err
	}
	j.step("unpacking the kernel")
	if err := p.writeKernel(ctx, filepath.Join(j.dir, "vmlinux")); err != nil {
		return image.Spec{}, err
	}
	if err := p.writeInitrd(filepath.Join(j.dir, "initrd.img")); err != nil {
		return image.Spec{}, err
	}
	agent, version, err := j.agentFor(ctx)
	if err != nil {
		return image.Spec{}, err
	}
	took := "a minute or two"
	if k.module != "" {
		took = "several minutes, because it builds a kernel module"
	}
	j.step("installing Debian, which takes " + took)
	system := filepath.Join(j.dir, "system.tar")
	if err := j.bootstrap(ctx, k, p, sources, debianTree(agent), system); err != nil {
		return image.Spec{}, err
	}
	j.step("making the root file system")
	raw := filepath.Join(j.dir, "disk.raw")
	if err := tarToExt4(ctx, system, j.dir, raw, ext4Options{label: "debian", size: debianSize}); err != nil {
		return image.Spec{}, err
	}
	j.step("compressing the disk")
	if err := toQcow2(ctx, raw, filepath.Join(j.dir, "disk.qcow2")); err != nil {
		return image.Spec{}, err
	}
	return image.Spec{
		Disk: "disk.qcow2", Format: "qcow2", OS: "debian-12",
		Boot:    image.Boot{Method: image.BootKernel, Kernel: "vmlinux", Initrd: "initrd.img", Append: kernelAppend + " systemd.show_status=false"},
		Console: image.Console{Prompt: debianPrompt, User: "root", Known: true},
		Agent:   version,
	}, nil
}

// fetchDebian gets what does not come by mmdebstrap: the kernel, the initramfs'
// busybox, and the lines of sources.list that mmdebstrap is to use.
func (j *job) fetchDebian(ctx context.Context, components string) (sources []string, p *parts, err error) {
	a, err := newApt(filepath.Join(j.dir, "apt"), j.mirror, debianRelease, j.progress)
	if err != nil {
		return nil, nil, err
	}
	if err := a.update(ctx); err != nil {
		return nil, nil, err
	}
	sources = []string{sourceLine(j.mirror, debianRelease, components)}
	if j.mirror == "" {
		if sources, err = a.sources(ctx, debianRelease, components); err != nil {
			return nil, nil, err
		}
	}
	p = &parts{programs: source(filepath.Join(j.dir, "programs"))}
	deb, err := a.download(ctx, "busybox-static")
	if err != nil {
		return nil, nil, err
	}
	if err := unpack(ctx, string(p.programs), deb); err != nil {
		return nil, nil, err
	}
	return sources, p, j.fetchKernel(ctx, a, p)
}

// bootstrap installs Debian, with a tree laid over it, into a tar file.
func (j *job) bootstrap(ctx context.Context, k debian, p *parts, sources []string, t *tree, out string) error {
	own := filepath.Join(j.dir, "own.tar")
	if err := writeOwnTar(own, t, p.modules); err != nil {
		return err
	}
	tar, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer tar.Close()
	packages := slices.Concat(debianPackages, k.packages)
	for _, begin := range k.kernelPackages {
		packages = append(packages, begin+p.modules.release())
	}
	// Hooks are shell commands of mmdebstrap's; all that varies goes through
	// the environment of a file name that we chose.
	args := []string{
		"--quiet", "--variant=minbase", "--format=tar", "--include=" + strings.Join(packages, ","),
		`--aptopt=Acquire::Languages "none"`,
		"--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-include=/usr/share/doc/*/copyright",
		"--customize-hook=tar-in " + shellQuote(own) + " /",
		`--customize-hook=chroot "$1" sh -e /usr/lib/falcon/configure ` + shellQuote(p.modules.release()),
		"--customize-hook=rm \"$1/usr/lib/falcon/configure\"",
	}
	if k.module != "" {
		args = append(args, `--customize-hook=chroot "$1" modinfo -k `+shellQuote(p.modules.release())+" -n "+shellQuote(k.module)+" >&2")
	}
	args = append(args, debianRelease, "-")
	if os.Geteuid() != 0 {
		args = append([]string{"--mode=unshare"}, args...)
	} else {
		args = append([]string{"--mode=root"}, args...)
	}
	return command{tool: mmdebstrap, args: append(args, sources...), stdout: tar}.run(ctx)
}

// shellQuote makes one word of a string for a shell.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// debianTree is what is laid over an installed Debian, with an agent if there is
// one.
func debianTree(agent []byte) *tree {
	t := newTree()
	if len(agent) > 0 {
		const unit = "etc/systemd/system/falcon-agent.service"
		t.file(agentProgram, 0o755, agent)
		t.file(unit, 0o644, embedded("debian-agent.service"))
		t.link("etc/systemd/system/multi-user.target.wants/falcon-agent.service", "/"+unit)
	}
	for _, unit := range debianMasked {
		t.link("etc/systemd/system/"+unit, "/dev/null")
	}
	for _, generator := range debianNoGenerators {
		t.link("etc/systemd/system-generators/"+generator, "/dev/null")
	}
	for _, name := range []string{"console", "devices", "later", "power-button"} {
		t.file("etc/systemd/system/falcon-"+name+".service", 0o644, embedded("debian-"+name+".service"))
	}
	for _, script := range []string{"power-button", "grow-root"} {
		t.file("usr/lib/falcon/"+script, 0o755, embedded(script))
	}
	t.file("usr/lib/falcon/configure", 0o755, embedded("debian-configure"))
	for name, content := range map[string]string{
		"etc/hostname":     "debian\n",
		"etc/hosts":        "127.0.0.1 localhost\n::1 localhost\n",
		"etc/fstab":        "# The root file system is mounted by the initramfs.\n",
		"etc/inputrc":      "set enable-bracketed-paste off\n",
		"etc/disk-sectors": fmt.Sprintln(debianSize / 512),
		"etc/systemd/journald.conf.d/falcon.conf": "[Journal]\nStorage=volatile\nAudit=no\n",
		"etc/systemd/system.conf.d/falcon.conf":   "[Manager]\nDefaultTimeoutStopSec=5s\n",
	} {
		t.file(name, 0o644, []byte(content))
	}
	return t
}

// embedded is a file of this package. That it is there, tests see to.
func embedded(name string) []byte {
	data, _ := fs.ReadFile(files, "files/"+name)
	return data
}

// writeOwnTar writes a tree and the kernel's modules to a tar file, all root's.
func writeOwnTar(path string, t *tree, m *modules) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := tar.NewWriter(f)
	err = errors.Join(t.tar(w), m.tar(w), w.Close())
	return errors.Join(err, f.Close())
}

func (t *tree) tar(w *tar.Writer) error {
	for _, name := range t.sorted() {
		n := t.nodes[name]
		h := &tar.Header{Name: name, Mode: int64(n.mode.Perm()), Typeflag: tar.TypeReg, Size: int64(len(n.data))}
		switch {
		case n.mode.IsDir():
			h.Typeflag = tar.TypeDir
		case n.mode&fs.ModeSymlink != 0:
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, string(n.data), 0
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write(n.data); err != nil {
				return err
			}
		}
	}
	return nil
}

// tar writes the modules that a guest may have a use for.
func (m *modules) tar(w *tar.Writer) error {
	return filepath.WalkDir(m.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(m.dir, path)
		if err != nil {
			return err
		}
		for _, dir := range debianNoModules {
			if rel == "kernel/"+dir {
				return filepath.SkipDir
			}
		}
		if !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		h := &tar.Header{Name: "usr/lib/modules/" + m.release() + "/" + rel, Mode: 0o644, Typeflag: tar.TypeReg, Size: info.Size()}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		in, err := os.Open(path)
		if err != nil {
			return err
		}
		defer in.Close()
		_, err = io.Copy(w, in)
		return err
	})
}
