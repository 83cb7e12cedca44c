package guest

import (
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/internal/agent"
)

// Requests of /dev/random, from the kernel's linux/random.h.
const (
	rndAddEntropy = 0x40085203
	rndReseedCRNG = 0x5207
)

// identify makes the guest the machine that it is to be.
func (s *server) identify(content []byte) error {
	i, err := agent.DecodeIdentity(content)
	if err != nil {
		return err
	}
	// Randomness first: whatever draws from it later differs from what other
	// clones draw.
	if len(i.Entropy) > 0 {
		if err := addEntropy(i.Entropy); err != nil {
			return fmt.Errorf("adding entropy: %w", err)
		}
	}
	if !i.Time.IsZero() {
		ts := unix.NsecToTimespec(i.Time.UnixNano())
		if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
			return fmt.Errorf("setting the clock: %w", err)
		}
	}
	if i.Hostname != "" {
		if err := setHostname(i.Hostname); err != nil {
			return fmt.Errorf("setting the host name: %w", err)
		}
	}
	if i.MachineID != "" {
		if err := setMachineID(i.MachineID); err != nil {
			return fmt.Errorf("setting the machine id: %w", err)
		}
	}
	if i.SSHKeys {
		if err := renewSSHKeys(sshFolder, i.Hostname); err != nil {
			return fmt.Errorf("making the SSH server's host keys: %w", err)
		}
	}
	// The network comes up when the guest is not its template any more.
	if err := s.takeUp(); err != nil {
		return err
	}
	return s.mount(i.Mounts)
}

// addEntropy credits random bytes to the kernel and has its generator start
// over from them.
func addEntropy(entropy []byte) error {
	f, err := os.OpenFile("/dev/random", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	// struct rand_pool_info: bits, bytes, data.
	info := binary.NativeEndian.AppendUint32(nil, uint32(len(entropy)*8))
	info = binary.NativeEndian.AppendUint32(info, uint32(len(entropy)))
	info = append(info, entropy...)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), rndAddEntropy, uintptr(unsafe.Pointer(&info[0]))); errno != 0 {
		return errno
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), rndReseedCRNG, 0); errno != 0 && errno != unix.EINVAL {
		return errno // EINVAL: before Linux 4.14, which reseeds by itself
	}
	return nil
}

// setHostname sets the host name now and for later boots.
func setHostname(name string) error {
	if err := unix.Sethostname([]byte(name)); err != nil {
		return err
	}
	if err := rewrite("/etc/hostname", name+"\n", 0o644); err != nil {
		return err
	}
	return addHost("/etc/hosts", name)
}

// addHost adds a name to a file like /etc/hosts if it is not in it.
func addHost(path, name string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	hosts, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(hosts)) {
		line, _, _ = strings.Cut(line, "#")
		if names := strings.Fields(line); len(names) > 1 && slices.Contains(names[1:], name) {
			return nil
		}
	}
	line := "127.0.1.1 " + name + "\n"
	if len(hosts) > 0 && hosts[len(hosts)-1] != '\n' {
		line = "\n" + line
	}
	_, err = f.WriteString(line)
	return err
}

// dbusMachineID is where D-Bus looks for the machine id. Most systems have a
// link there.
const dbusMachineID = "/var/lib/dbus/machine-id"

// setMachineID sets the machine id now and for later boots.
func setMachineID(id string) error {
	if err := rewrite("/etc/machine-id", id+"\n", 0o444); err != nil {
		return err
	}
	if info, err := os.Lstat(dbusMachineID); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	return rewrite(dbusMachineID, id+"\n", 0o444)
}

// rewrite gives a small file a content, if it has another. A file is not emptied
// first: ext4 would write what follows to the disk at once, which costs a guest
// that is translated as much as all else.
func rewrite(path, content string, mode os.FileMode) error {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, uint32(mode))
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	old := make([]byte, len(content)+1)
	n, err := unix.Pread(fd, old, 0)
	if err == nil && string(old[:n]) == content {
		return nil
	}
	if _, err := unix.Pwrite(fd, []byte(content), 0); err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: err}
	}
	if n > len(content) {
		if err := unix.Ftruncate(fd, int64(len(content))); err != nil {
			return &fs.PathError{Op: "truncate", Path: path, Err: err}
		}
	}
	return nil
}

// commandLimit bounds the commands that a call runs by itself.
const commandLimit = time.Minute

// command runs a command, whose output becomes part of its error.
func (s *server) command(argv ...string) error {
	said, status, err := s.output(commandLimit, nil, argv...)
	if err == nil && status != 0 {
		err = fmt.Errorf("%s ended with status %d: %s", argv[0], status, said)
	}
	return err
}

// output runs a command within a time and, if there is one, no longer than a
// call, and returns what it said and its exit status.
func (s *server) output(limit time.Duration, c *call, argv ...string) (string, int, error) {
	p, err := s.start(agent.Exec{Argv: argv, Merge: true})
	if err != nil {
		return "", 0, err
	}
	defer p.close()
	timer := time.AfterFunc(limit, func() { p.end(true) })
	defer timer.Stop()
	if c != nil {
		c.stream.OnEnd(func() { p.end(false) })
	}
	output := make(chan string, 1)
	go func() {
		var said []byte
		buf := make([]byte, 4096)
		for {
			n, err := p.stdout.Read(buf)
			if len(said) < 4096 {
				said = append(said, buf[:n]...)
			}
			if err != nil {
				output <- strings.TrimSpace(string(said))
				return
			}
		}
	}()
	status := p.wait()
	_ = p.stdout.SetReadDeadline(time.Now().Add(time.Second))
	said := <-output
	switch {
	case p.timedOut:
		return said, 0, fmt.Errorf("%s did not end within %v: %s", argv[0], limit, said)
	case status.Signaled():
		return said, 0, fmt.Errorf("%s was ended by a signal, %v: %s", argv[0], status.Signal(), said)
	}
	return said, status.ExitStatus(), nil
}

// power begins the orderly end of the guest.
func (s *server) power(a agent.PowerAction) error {
	switch a {
	case agent.PowerOff, agent.Reboot:
	default:
		return fmt.Errorf("%q is no way to end a guest", a)
	}
	unix.Sync()
	p, err := s.start(agent.Exec{Argv: []string{string(a)}, Merge: true})
	if err != nil {
		return err
	}
	go func() {
		p.wait()
		p.close()
	}()
	return nil
}
