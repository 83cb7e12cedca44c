//go:build linux

package main

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/falcon-vm/falcon-go/internal/agent"
	"github.com/falcon-vm/falcon-go/internal/mux"
)

// inFlight is how many commands are given at once to those who have daemons.
func inFlight() int { return runtime.NumCPU() + 1 }

// libvirt starts the same images by libvirt. Its daemon is started for the first
// lab.
type libvirt struct {
	b      *bench
	daemon *daemon
	failed error
}

func (c *libvirt) peer() peer {
	return peer{Name: "libvirt", Version: c.b.packageVersion(context.Background(), "libvirt-daemon"),
		Settings: fmt.Sprintf("Debian's libvirtd and QEMU driver, the daemon running before the clock starts; a bridge for each link and `virsh create` (%d at once) of domains with the same disk image, kernel, memory, processor and interfaces, until the guest agent of each has run `true`; disks are made before", inFlight())}
}

func (c *libvirt) dir() string { return filepath.Join(c.b.work, "v") }

func (c *libvirt) virsh(ctx context.Context, args ...string) (string, error) {
	uri := "qemu:///system?socket=" + filepath.Join(c.dir(), "libvirt-sock")
	out, err := c.b.output(ctx, "virsh", append([]string{"-q", "-c", uri}, args...)...)
	return strings.TrimSpace(string(out)), err
}

// serve starts the daemon. /etc is a copy on write of this run's own.
func (c *libvirt) serve(ctx context.Context) error {
	if err := c.b.missing("libvirtd", "virt-qemu-run", "virsh"); err != nil {
		return err
	}
	for _, dir := range []string{c.dir(), "/etc/libvirt"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for path, text := range map[string]string{
		"/etc/libvirt/qemu.conf": `user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
remember_owner = 0
`,
		filepath.Join(c.dir(), "conf"): fmt.Sprintf("unix_sock_dir = %q\nauth_unix_rw = \"none\"\n", c.dir()),
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	// The driver looks its default user and group up before it reads that it
	// is to use others; a package that starts services makes them.
	for path, line := range map[string]string{"/etc/passwd": "libvirt-qemu:x:64055:64055::/:/bin/false\n", "/etc/group": "libvirt-qemu:x:64055:\n"} {
		if strings.Contains(readFile(path), "libvirt-qemu:") {
			continue
		}
		if err := os.WriteFile(path, []byte(readFile(path)+line), 0o644); err != nil {
			return err
		}
	}
	ready := func(ctx context.Context) error { _, err := c.virsh(ctx, "version"); return err }
	d, err := c.b.startDaemon(ctx, filepath.Join(c.dir(), "log"), ready, "libvirtd",
		"--config", filepath.Join(c.dir(), "conf"), "--pid-file", filepath.Join(c.dir(), "pid"))
	c.daemon = d
	return err
}

func (c *libvirt) open(ctx context.Context, r ring) (lab, error) {
	if c.daemon == nil && c.failed == nil {
		c.failed = c.serve(ctx)
	}
	if c.failed != nil {
		return nil, c.failed
	}
	dir, err := os.MkdirTemp(c.b.work, "w")
	if err != nil {
		return nil, err
	}
	l := &libvirtLab{libvirt: c, ring: r, dir: dir}
	if err := l.prepare(ctx); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// libvirtLab is a ring of domains.
type libvirtLab struct {
	*libvirt
	ring     ring
	dir      string
	bridges  []string
	sessions []*mux.Session
	created  bool
}

// imageInfo is the part of an image's description that is used here.
type imageInfo struct {
	Disk        string
	Format      string
	VirtualSize int64 `json:"virtual_size"`
	Boot        struct{ Kernel, Initrd, Append string }
}

func (b *bench) image(name string) (imageInfo, string, error) {
	dir := filepath.Join(b.work, "home", "img", name)
	var info imageInfo
	text, err := os.ReadFile(filepath.Join(dir, "image.json"))
	if err == nil {
		err = json.Unmarshal(text, &info)
	}
	return info, dir, err
}

// prepare makes disks and descriptions.
func (l *libvirtLab) prepare(ctx context.Context) error {
	info, images, err := l.b.image(l.ring.image)
	if err != nil {
		return err
	}
	for i := range l.ring.nodes {
		disk := filepath.Join(l.dir, fmt.Sprintf("n%d.qcow2", i))
		err := l.b.do(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", info.Format, "-b", filepath.Join(images, info.Disk), disk,
			strconv.FormatInt(info.VirtualSize, 10))
		if err != nil {
			return err
		}
		if err := os.WriteFile(l.description(i), []byte(l.domain(i, info, images, disk)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (l *libvirtLab) description(i int) string {
	return filepath.Join(l.dir, fmt.Sprintf("n%d.xml", i))
}
func (l *libvirtLab) socket(i int) string { return filepath.Join(l.dir, fmt.Sprintf("n%d", i)) }
func bridgeName(i int) string             { return fmt.Sprintf("fb%d", i) }

// domain describes a node as falcon makes it.
func (l *libvirtLab) domain(i int, info imageInfo, images, disk string) string {
	var nics strings.Builder
	for j := range l.ring.nics() {
		link := (i + j) % l.ring.nodes // between node link-1 and node link
		fmt.Fprintf(&nics, "<interface type='bridge'><source bridge='%s'/><model type='virtio'/><rom enabled='no'/></interface>", bridgeName(link))
	}
	initrd := ""
	if info.Boot.Initrd != "" {
		initrd = "<initrd>" + escaped(filepath.Join(images, info.Boot.Initrd)) + "</initrd>"
	}
	return fmt.Sprintf(`<domain type='qemu'>
<name>n%d</name><memory unit='MiB'>%d</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type><kernel>%s</kernel>%s<cmdline>%s</cmdline></os>
<features><acpi/><apic/><tcg><tb-cache unit='MiB'>256</tb-cache></tcg></features>
<cpu mode='custom' match='exact' check='none'><model fallback='forbid'>Nehalem</model></cpu>
<devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2' discard='unmap'/><source file='%s'/><target dev='vda' bus='virtio'/></disk>
<console type='pty'><target type='serial'/></console>
<channel type='unix'><source mode='bind' path='%s'/><target type='virtio' name='dev.falcon.agent.0'/></channel>
%s
<controller type='usb' model='none'/><memballoon model='none'/>
</devices>
</domain>
`, i, memory[l.ring.image], escaped(filepath.Join(images, info.Boot.Kernel)), initrd, escaped(info.Boot.Append), escaped(disk), escaped(l.socket(i)), nics.String())
}

func escaped(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a builder takes all
	return b.String()
}

func (l *libvirtLab) launch(ctx context.Context) error {
	if l.ring.nics() > 0 {
		for i := range l.ring.nodes {
			bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName(i)}}
			if err := errors.Join(netlink.LinkAdd(bridge), netlink.LinkSetUp(bridge)); err != nil {
				return fmt.Errorf("making the bridge %s: %w", bridgeName(i), err)
			}
			l.bridges = append(l.bridges, bridgeName(i))
		}
	}
	l.created = true
	err := each(ctx, l.ring.nodes, inFlight(), func(ctx context.Context, i int) error {
		_, err := l.virsh(ctx, "create", l.description(i))
		return err
	})
	if err != nil {
		return err
	}
	l.sessions = make([]*mux.Session, l.ring.nodes)
	return each(ctx, l.ring.nodes, 0, func(ctx context.Context, i int) error {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", l.socket(i))
		if err != nil {
			return err
		}
		session := mux.Host(conn)
		l.sessions[i] = session
		return answers(ctx, agent.New(func(ctx context.Context) (io.ReadWriteCloser, error) { return session.Open(ctx, nil) }))
	})
}

func (l *libvirtLab) processes() ([]int, error) {
	var pids []int
	for i := range l.ring.nodes {
		path := fmt.Sprintf("/run/libvirt/qemu/n%d.pid", i)
		pid, err := strconv.Atoi(strings.TrimSpace(readFile(path)))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

func (l *libvirtLab) destroy(ctx context.Context) error {
	var err error
	if l.created {
		err = each(ctx, l.ring.nodes, inFlight(), func(ctx context.Context, i int) error {
			_, err := l.virsh(ctx, "destroy", fmt.Sprintf("n%d", i))
			return err
		})
		l.created = false
	}
	for _, name := range l.bridges {
		err = errors.Join(err, netlink.LinkDel(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}))
	}
	l.bridges = nil
	return err
}

func (l *libvirtLab) close() {
	ctx, cancel := context.WithTimeout(context.Background(), commandDeadline)
	defer cancel()
	_ = l.destroy(ctx) // the end of the namespaces ends what this cannot
	for _, s := range l.sessions {
		if s != nil {
			s.Close()
		}
	}
	os.RemoveAll(l.dir)
}

// stop ends the daemon.
func (c *libvirt) stop() {
	if c.daemon != nil {
		c.daemon.stop()
	}
}
