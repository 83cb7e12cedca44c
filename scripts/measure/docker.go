//go:build linux

package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// docker makes containers of Docker's, joined by veth pairs. Its daemon is
// started for the first lab.
type docker struct {
	b      *bench
	daemon *daemon
	driver string // of storage, as the daemon has chosen it
	failed error
}

// dockerImage is a micro guest's root file system.
const dockerImage = "micro"

func (c *docker) peer() peer {
	return peer{Name: "Docker", Version: c.b.packageVersion(context.Background(), "docker.io"),
		Settings: fmt.Sprintf("Debian's docker.io, its daemon running before the clock starts, storage driver %s; `docker run --network none` of micro's root file system (%d at once) and a veth pair for each link, until `docker exec true` has ended in each; a container, not a machine",
			cmp.Or(c.driver, "unknown"), inFlight())}
}

func (c *docker) socket() string { return "unix://" + filepath.Join(c.b.work, "d.sock") }

func (c *docker) cli(ctx context.Context, args ...string) (string, error) {
	// Debian's client, wherever another may be.
	out, err := c.b.output(ctx, "/usr/bin/docker", append([]string{"-H", c.socket()}, args...)...)
	return strings.TrimSpace(string(out)), err
}

func (c *docker) open(ctx context.Context, r ring) (lab, error) {
	if c.daemon == nil && c.failed == nil {
		c.failed = c.serve(ctx)
	}
	if c.failed != nil {
		return nil, c.failed
	}
	return &dockerLab{docker: c, nodes: r.nodes}, nil
}

// serve starts the daemon and makes the image.
func (c *docker) serve(ctx context.Context) error {
	if err := c.b.missing("dockerd", "containerd", "/usr/bin/docker"); err != nil {
		return err
	}
	dir := filepath.Join(c.b.work, "d")
	root := filepath.Join(dir, "root")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	config := filepath.Join(dir, "daemon.json")
	if err := os.WriteFile(config, []byte("{}\n"), 0o644); err != nil {
		return err
	}
	ready := func(ctx context.Context) error { _, err := c.cli(ctx, "version"); return err }
	d, err := c.b.startDaemon(ctx, filepath.Join(dir, "log"), ready, "dockerd", "--config-file", config,
		"--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"), "--pidfile", filepath.Join(dir, "pid"),
		"-H", c.socket(), "--iptables=false", "--ip6tables=false", "--bridge=none", "--cgroup-parent=/"+c.b.cgroup)
	if err != nil {
		return err
	}
	c.daemon = d
	if c.driver, err = c.cli(ctx, "info", "-f", "{{.Driver}}"); err != nil {
		return err
	}
	if err := c.importImage(ctx, dir, root); err != nil {
		return fmt.Errorf("making Docker's image: %w", err)
	}
	return nil
}

// importImage makes an image of what is on the disk of the image micro.
func (c *docker) importImage(ctx context.Context, dir, root string) error {
	raw, archive := filepath.Join(dir, "micro.raw"), filepath.Join(dir, "micro.tar")
	disk := filepath.Join(c.b.work, "home", "img", "micro", "disk.qcow2")
	for _, command := range [][]string{
		{"qemu-img", "convert", "-O", "raw", disk, raw},
		{"debugfs", "-R", "rdump / " + root, raw},
		{"tar", "-C", root, "-cf", archive, "."},
	} {
		if err := c.b.do(ctx, command[0], command[1:]...); err != nil {
			return err
		}
	}
	_, err := c.cli(ctx, "import", archive, dockerImage)
	return err
}

// dockerLab is a ring of containers.
type dockerLab struct {
	*docker
	nodes int
	pids  []int
}

func (l *dockerLab) launch(ctx context.Context) error {
	l.pids = make([]int, l.nodes)
	limit := inFlight()
	err := each(ctx, l.nodes, limit, func(ctx context.Context, i int) error {
		name := containerName(i)
		if _, err := l.cli(ctx, "run", "-d", "--name", name, "--network", "none", "--cap-add", "NET_ADMIN", dockerImage, "sleep", "1000000"); err != nil {
			return err
		}
		text, err := l.cli(ctx, "inspect", "-f", "{{.State.Pid}}", name)
		if err != nil {
			return err
		}
		l.pids[i], err = strconv.Atoi(text)
		return err
	})
	if err != nil {
		return err
	}
	if l.nodes > 1 {
		for i := range l.nodes {
			if err := vethBetween(l.pids[i], "eth1", l.pids[(i+1)%l.nodes], "eth0"); err != nil {
				return err
			}
		}
	}
	return each(ctx, l.nodes, limit, func(ctx context.Context, i int) error {
		_, err := l.cli(ctx, "exec", containerName(i), "true")
		return err
	})
}

func containerName(i int) string { return fmt.Sprintf("n%d", i) }

// vethBetween joins two processes' network namespaces.
func vethBetween(a int, nameA string, b int, nameB string) error {
	nsA, err := netns.GetFromPid(a)
	if err != nil {
		return err
	}
	defer nsA.Close()
	nsB, err := netns.GetFromPid(b)
	if err != nil {
		return err
	}
	defer nsB.Close()
	handle, err := netlink.NewHandleAt(nsA, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer handle.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = nameA
	if err := handle.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: nameB, PeerNamespace: netlink.NsFd(nsB)}); err != nil {
		return fmt.Errorf("making a veth pair between containers: %w", err)
	}
	return nil
}

// processes are the containers and the shims that hold them.
func (l *dockerLab) processes() ([]int, error) {
	pids := append([]int(nil), l.pids...)
	for _, pid := range l.pids {
		var parent int
		text := readFile(fmt.Sprintf("/proc/%d/status", pid))
		_, rest, _ := strings.Cut(text, "\nPPid:")
		if _, err := fmt.Sscan(rest, &parent); err != nil {
			return nil, fmt.Errorf("the shim of process %d: %w", pid, err)
		}
		pids = append(pids, parent)
	}
	return pids, nil
}

func (l *dockerLab) destroy(ctx context.Context) error {
	return each(ctx, l.nodes, inFlight(), func(ctx context.Context, i int) error {
		_, err := l.cli(ctx, "rm", "-f", "-v", containerName(i))
		return err
	})
}

func (l *dockerLab) close() {
	ctx, cancel := context.WithTimeout(context.Background(), commandDeadline)
	defer cancel()
	names, err := l.cli(ctx, "ps", "-aq")
	if err != nil || names == "" {
		return
	}
	if _, err := l.cli(ctx, append([]string{"rm", "-f"}, strings.Fields(names)...)...); err != nil {
		slog.Warn("Docker does not remove its containers", "error", err)
	}
}

// stop ends the daemon.
func (c *docker) stop() {
	if c.daemon != nil {
		c.daemon.stop()
	}
}
