package guest

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Program is where the agent is in a guest.
const Program = "/usr/lib/falcon/falcon-agent"

//go:embed files
var files embed.FS

// install puts this program into the system below root as the agent, and has
// its init start it from the next boot on. It reports which init that is.
func install(root string) (init string, err error) {
	if root == "/" {
		if err := loadDriver(); err != nil {
			return "", err
		}
	}
	s := installation(root)
	if err := s.copySelf(); err != nil {
		return "", fmt.Errorf("installing %s: %w", Program, err)
	}
	for _, i := range []struct {
		name   string
		runs   func() bool
		enable func() error
	}{
		{"the micro image's own", s.isMicro, func() error { return nil }}, // it looks for the program
		{"systemd", s.hasSystemd, s.enableSystemd},
		{"OpenRC", s.hasOpenRC, s.enableOpenRC},
		{"/etc/inittab", s.hasInittab, s.enableInittab},
	} {
		if i.runs() {
			if err := i.enable(); err != nil {
				return "", fmt.Errorf("having %s start the agent: %w", i.name, err)
			}
			return i.name, nil
		}
	}
	return "", fmt.Errorf("there is neither systemd nor OpenRC nor an /etc/inittab: have the system start %s at boot, and again when it ends", Program)
}

// driverFolder is there when the kernel has the driver of the agent's port.
const driverFolder = "/sys/bus/virtio/drivers/virtio_console"

// loadDriver sees to it that the kernel has the driver of the agent's port.
func loadDriver() error {
	if _, err := os.Stat(driverFolder); err == nil {
		return nil
	}
	said, err := exec.Command("modprobe", "virtio_console").CombinedOutput()
	if _, serr := os.Stat(driverFolder); serr != nil {
		return fmt.Errorf("the kernel has no driver virtio_console, by which the agent is reached: %w %s", errors.Join(err, serr), strings.TrimSpace(string(said)))
	}
	return nil
}

// installation is the root folder of a guest's system.
type installation string

func (s installation) path(p string) string { return filepath.Join(string(s), p) }

func (s installation) has(p string) bool {
	_, err := os.Stat(s.path(p))
	return err == nil
}

// copySelf puts the running program into place, at once.
func (s installation) copySelf() error {
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer in.Close()
	target := s.path(Program)
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	if a, err := os.Stat(target); err == nil {
		if b, err := in.Stat(); err == nil && os.SameFile(a, b) {
			return nil
		}
	}
	out, err := os.OpenFile(target+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Chmod(0o755), out.Close()); err != nil {
		return err
	}
	return os.Rename(target+".new", target)
}

// write writes one of our files to a place in the system.
func (s installation) write(name, target string, mode fs.FileMode) error {
	data, err := files.ReadFile("files/" + name)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(s.path(target)), 0o755); err != nil {
		return err
	}
	return os.WriteFile(s.path(target), data, mode)
}

// link makes a symbolic link, which may be there already.
func (s installation) link(target, name string) error {
	if err := os.MkdirAll(filepath.Dir(s.path(name)), 0o755); err != nil {
		return err
	}
	if err := os.Symlink(target, s.path(name)); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func (s installation) isMicro() bool {
	release, err := os.ReadFile(s.path("/etc/os-release"))
	return err == nil && strings.Contains("\n"+string(release), "\nID=falcon-micro\n")
}

func (s installation) hasSystemd() bool {
	return s.has("/usr/lib/systemd/systemd") || s.has("/lib/systemd/systemd")
}

func (s installation) enableSystemd() error {
	const unit = "/etc/systemd/system/falcon-agent.service"
	if !s.has(unit) { // an image of ours has one that knows its other units
		if err := s.write("falcon-agent.service", unit, 0o644); err != nil {
			return err
		}
	}
	return s.link(unit, "/etc/systemd/system/multi-user.target.wants/falcon-agent.service")
}

func (s installation) hasOpenRC() bool {
	return s.has("/sbin/openrc-run") || s.has("/usr/bin/openrc-run")
}

func (s installation) enableOpenRC() error {
	const script = "/etc/init.d/falcon-agent"
	if err := s.write("falcon-agent.openrc", script, 0o755); err != nil {
		return err
	}
	return s.link(script, "/etc/runlevels/default/falcon-agent")
}

func (s installation) hasInittab() bool { return s.has("/etc/inittab") }

// enableInittab adds a line to the table of System V's init or busybox', in
// which the first field is a terminal.
func (s installation) enableInittab() error {
	table, err := os.ReadFile(s.path("/etc/inittab"))
	if err != nil || strings.Contains(string(table), Program) {
		return err
	}
	line := "fa:2345:respawn:" + Program + "\n"
	if strings.Contains("\n"+string(table), "\n::") {
		line = "::respawn:" + Program + "\n"
	}
	if len(table) > 0 && !strings.HasSuffix(string(table), "\n") {
		line = "\n" + line
	}
	f, err := os.OpenFile(s.path("/etc/inittab"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line)
	return errors.Join(err, f.Close())
}
