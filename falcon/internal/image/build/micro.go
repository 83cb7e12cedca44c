package build

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
)

// microPackages are what the programs of a micro guest come from.
var microPackages = []string{"busybox-static", "bash", "dash", "coreutils", "iproute2", "ethtool", "tcpdump", "iperf3", "e2fsprogs", "ncurses-base"}

// microPrograms are real programs; busybox stands in for all others. Its own
// shell is not among them: it would run its applets in place of real programs.
var microPrograms = []string{"bash", "dash", "cksum", "env", "timeout", "ip", "tc", "ss", "bridge", "ethtool", "tcpdump", "iperf3", "resize2fs"}

// bootModules are what the initramfs loads: what it takes to mount the root file
// system, and what is wanted as soon as there is a shell.
var bootModules = []string{"virtio_pci", "virtio_blk", "crc32c_generic", "ext4", "nvme", "virtio_net", "button", "pvpanic-mmio"}

// microModules are the drivers and protocols of a micro guest.
var microModules = []string{
	// devices
	"virtio_net", "virtio_console", "virtio_rng", "virtio_balloon", "virtio_scsi", "sd_mod", "sr_mod", "ahci", "ata_piix",
	"e1000", "e1000e", "vmw_vsock_virtio_transport", "button", "evdev", "vmgenid",
	// file systems
	"9p", "9pnet_virtio", "isofs", "vfat", "nls_ascii", "nls_cp437", "overlay", "fuse", "loop",
	// links
	"bridge", "br_netfilter", "bonding", "8021q", "vrf", "vxlan", "geneve", "macsec", "macvlan", "macvtap", "ipvlan",
	"wireguard", "tun", "tap", "veth", "dummy", "ifb", "team", "ip_gre", "ip6_gre", "ipip", "sit", "ip6_tunnel", "ip_tunnel",
	"l2tp_eth", "mpls_router", "mpls_iptunnel", "mpls_gso", "nlmon", "llc", "stp", "ppp_generic", "pppoe",
	// queueing and classification
	"sch_netem", "sch_tbf", "sch_htb", "sch_fq", "sch_fq_codel", "sch_ingress", "sch_prio", "sch_red", "sch_cake", "sch_sfq",
	"cls_u32", "cls_flower", "cls_matchall", "cls_bpf", "cls_fw", "act_mirred", "act_gact", "act_police", "act_pedit",
	"act_vlan", "act_skbedit", "act_csum", "act_bpf",
	// packet filter
	"nf_tables", "nft_ct", "nft_nat", "nft_chain_nat", "nft_masq", "nft_reject_inet", "nft_limit", "nft_log", "nft_fib_inet",
	"nf_nat", "nf_conntrack",
	// protocols and crypto that they ask for by name
	"sctp", "tcp_bbr", "packet_diag", "inet_diag", "tcp_diag", "udp_diag", "unix_diag", "af_packet_diag", "esp4", "esp6", "ah4", "ah6",
	"xfrm_user", "xfrm_interface", "gcm", "ccm", "ctr", "cmac", "ghash_generic", "aesni_intel", "crypto_user",
}

const (
	microSize   = 1 << 30
	microPrompt = `\[micro [^\]\r\n]*\]# $`
	// kernelAppend is the part of the command line that all our kernels share.
	// A high baud rate matters even to a virtual port: the receive timeout is
	// counted in characters. The rest saves start-up time, above all under TCG;
	// what the last options leave out are self-tests, the protection of kernel
	// memory from the kernel, access control beyond users, certificates for
	// modules, and statistics. Programs are loaded to the same addresses each
	// time (norandmaps), so that what TCG has translated serves the next process:
	// running a shell that runs a program takes a third of the time (measured).
	kernelAppend = "console=ttyS0,115200 root=/dev/vda quiet loglevel=3 mitigations=off nokaslr tsc=reliable no_timer_check " +
		"norandmaps cryptomgr.notests rodata=off lsm=landlock audit=0 " +
		"initcall_blacklist=load_system_certificate_list,crypto_kdf108_init,slab_sysfs_init"
)

func buildMicro(ctx context.Context, j *job) (image.Spec, error) {
	if err := require(aptGet, dpkgDeb, mke2fs, debugfs, qemuImg, xzTool); err != nil {
		return image.Spec{}, err
	}
	parts, err := j.fetchMicro(ctx)
	if err != nil {
		return image.Spec{}, err
	}
	j.step("unpacking the kernel")
	if err := parts.writeKernel(ctx, filepath.Join(j.dir, "vmlinux")); err != nil {
		return image.Spec{}, err
	}
	if err := parts.writeInitrd(filepath.Join(j.dir, "initrd.img")); err != nil {
		return image.Spec{}, err
	}
	agent, version, err := j.agentFor(ctx)
	if err != nil {
		return image.Spec{}, err
	}
	j.step("making the root file system")
	root, err := parts.microRoot(ctx, agent)
	if err != nil {
		return image.Spec{}, err
	}
	raw := filepath.Join(j.dir, "disk.raw")
	if err := makeExt4(ctx, root, j.dir, raw, ext4Options{label: "micro", size: microSize}); err != nil {
		return image.Spec{}, err
	}
	if err := toQcow2(ctx, raw, filepath.Join(j.dir, "disk.qcow2")); err != nil {
		return image.Spec{}, err
	}
	return image.Spec{
		Disk: "disk.qcow2", Format: "qcow2", OS: "micro",
		Boot:    image.Boot{Method: image.BootKernel, Kernel: "vmlinux", Initrd: "initrd.img", Append: kernelAppend},
		Console: image.Console{Prompt: microPrompt, User: "root", Known: true},
		Agent:   version,
	}, nil
}

// parts are unpacked packages.
type parts struct {
	programs source // user space
	kernel   source
	modules  *modules
}

func (j *job) fetchMicro(ctx context.Context) (*parts, error) {
	release, err := hostRelease()
	if err != nil {
		return nil, err
	}
	a, err := newApt(filepath.Join(j.dir, "apt"), j.mirror, release, j.progress)
	if err != nil {
		return nil, err
	}
	if err := a.update(ctx); err != nil {
		return nil, err
	}
	debs, err := a.closure(ctx, microPackages...)
	if err != nil {
		return nil, err
	}
	p := &parts{programs: source(filepath.Join(j.dir, "programs"))}
	j.step("unpacking packages")
	if err := unpack(ctx, string(p.programs), debs...); err != nil {
		return nil, err
	}
	return p, j.fetchKernel(ctx, a, p)
}

func (j *job) fetchKernel(ctx context.Context, a *apt, p *parts) error {
	pkg, err := a.kernelPackage(ctx)
	if err != nil {
		return err
	}
	deb, err := a.download(ctx, pkg)
	if err != nil {
		return err
	}
	p.kernel = source(filepath.Join(j.dir, "kernel"))
	if err := unpack(ctx, string(p.kernel), deb); err != nil {
		return err
	}
	p.modules, err = openModules(string(p.kernel))
	return err
}

func (p *parts) writeKernel(ctx context.Context, out string) error {
	bzImage, err := os.ReadFile(filepath.Join(string(p.kernel), "boot", "vmlinuz-"+p.modules.release()))
	if err != nil {
		return err
	}
	elf, err := vmlinux(ctx, bzImage)
	if err != nil {
		return err
	}
	return writeKernel(out, elf)
}

// writeInitrd makes the initramfs that our kernels start with. It is not
// compressed: unpacking costs more than reading.
func (p *parts) writeInitrd(out string) error {
	t := newTree()
	for _, dir := range []string{"dev", "proc", "root"} {
		t.folder(dir, 0o755)
	}
	t.link("lib", "usr/lib")
	busybox, err := os.ReadFile(filepath.Join(string(p.programs), "usr/bin/busybox"))
	if err != nil {
		return err
	}
	t.file("bin/busybox", 0o755, busybox)
	for _, applet := range []string{"sh", "mount", "mkdir", "modprobe", "switch_root", "usleep"} {
		t.link("bin/"+applet, "busybox")
	}
	t.file("init", 0o755, embedded("initramfs-init"))
	mods, err := p.modules.load(bootModules...)
	if err != nil {
		return err
	}
	writeModules(t, p.modules.release(), mods)
	return os.WriteFile(out, t.cpio(), 0o644)
}

// microRoot is the root file system of a micro guest, with an agent if there is
// one.
func (p *parts) microRoot(ctx context.Context, agent []byte) (*tree, error) {
	t := newTree()
	for _, dir := range []string{"dev", "proc", "sys", "run", "mnt", "opt/cargo-bay" /* where labs mount by custom */, "srv", "var/log", "var/run", "usr/bin", "etc"} {
		t.folder(dir, 0o755)
	}
	t.folder("root", 0o700)
	t.folder("tmp", fs.ModeSticky|0o777)
	t.link("bin", "usr/bin")
	t.link("sbin", "usr/bin")
	t.link("usr/sbin", "bin")
	t.link("lib", "usr/lib")
	t.link("lib64", "usr/lib64")
	t.link("usr/lib64/"+loader, "../lib/x86_64-linux-gnu/"+loader)
	for _, name := range microPrograms {
		if err := p.programs.program(t, name); err != nil {
			return nil, err
		}
	}
	if err := p.programs.program(t, "busybox"); err != nil {
		return nil, err
	}
	t.link("usr/bin/sh", "dash")
	if err := p.applets(ctx, t); err != nil {
		return nil, err
	}
	for _, dir := range []string{"usr/lib/terminfo", "etc/iproute2", "usr/lib/x86_64-linux-gnu/tc"} {
		if err := p.programs.folder(t, dir); err != nil {
			return nil, err
		}
	}
	mods, err := p.modules.load(append(bootModules, microModules...)...)
	if err != nil {
		return nil, err
	}
	writeModules(t, p.modules.release(), mods)
	microConfig(t)
	if len(agent) > 0 {
		t.file(agentProgram, 0o755, agent)
	}
	return t, nil
}

// applets makes a link to busybox for each of its commands that is not there as
// a real program.
func (p *parts) applets(ctx context.Context, t *tree) error {
	out, err := exec.CommandContext(ctx, filepath.Join(string(p.programs), "usr/bin/busybox"), "--list").Output()
	if err != nil {
		return fmt.Errorf("asking busybox for its commands: %w", err)
	}
	for _, name := range strings.Fields(string(out)) {
		if !t.has("usr/bin/" + name) {
			t.link("usr/bin/"+name, "busybox")
		}
	}
	return nil
}

func microConfig(t *tree) {
	t.file("usr/bin/init", 0o755, embedded("micro-init"))
	t.file("usr/lib/falcon/power-button", 0o755, embedded("power-button"))
	t.file("usr/lib/falcon/grow-root", 0o755, embedded("grow-root"))
	t.file("usr/lib/falcon/later", 0o755, embedded("micro-later"))
	for name, content := range map[string]string{
		"etc/hostname":     "micro\n",
		"etc/machine-id":   "", // each guest gets its own
		"etc/hosts":        "127.0.0.1 localhost\n::1 localhost\n",
		"etc/passwd":       "root:x:0:0:root:/root:/bin/bash\ntcpdump:x:100:100:tcpdump:/:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n",
		"etc/group":        "root:x:0:\ntcpdump:x:100:\ntty:x:5:\nnogroup:x:65534:\n",
		"etc/fstab":        string(embedded("micro-fstab")),
		"etc/profile":      string(embedded("micro-profile")),
		"etc/inputrc":      string(embedded("micro-inputrc")),
		"etc/disk-sectors": fmt.Sprintln(microSize / 512),
		"etc/os-release":   "NAME=\"Falcon micro\"\nID=falcon-micro\nPRETTY_NAME=\"Falcon micro\"\n",
	} {
		t.file(name, 0o644, []byte(content))
	}
}

// hostRelease is the code name of the host's own Debian. It matters only with a
// mirror, which does not say what to take from it.
func hostRelease() (string, error) {
	data, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", fmt.Errorf("finding the host's Debian release: %w", err)
	}
	for line := range bytes.Lines(data) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(string(line)), "VERSION_CODENAME="); ok {
			return strings.Trim(name, `"`), nil
		}
	}
	return "stable", nil
}
