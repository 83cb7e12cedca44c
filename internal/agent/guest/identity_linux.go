package guest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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
	if err := s.sow(); err != nil {
		return fmt.Errorf("adding the clone's seed: %w", err)
	}
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
	if i.MachineID != "" {
		s.replaceBooted(i.Mounts)
		i.SSHKeys = i.SSHKeys && exists(sshFolder)
		if err := s.keep(i); err != nil {
			return fmt.Errorf("keeping what the guest is: %w", err)
		}
	}
	s.goOn()
	if i.SSHKeys {
		if err := s.makeSSHKeys(); err != nil {
			return err
		}
	}
	// The network comes up when the guest is not its template any more.
	if err := s.takeUp(); err != nil {
		return err
	}
	if err := s.mount(i.Mounts); err != nil {
		return err
	}
	s.free(i.MachineID)
	return nil
}

// addEntropy credits random bytes to the kernel and has its generator start
// over from them.
func addEntropy(entropy []byte) error {
	fd, err := unix.Open("/dev/random", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// struct rand_pool_info: bits, bytes, data.
	info := binary.NativeEndian.AppendUint32(nil, uint32(len(entropy)*8))
	info = binary.NativeEndian.AppendUint32(info, uint32(len(entropy)))
	info = append(info, entropy...)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), rndAddEntropy, uintptr(unsafe.Pointer(&info[0]))); errno != 0 {
		return errno
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), rndReseedCRNG, 0); errno != 0 && errno != unix.EINVAL {
		return errno // EINVAL: before Linux 4.14, which reseeds by itself
	}
	return nil
}

// hostnameFile and hostsFile are where a host name is kept.
const (
	hostnameFile = "/etc/hostname"
	hostsFile    = "/etc/hosts"
)

// setHostname sets the host name now and for later boots.
func setHostname(name string) error {
	if err := unix.Sethostname([]byte(name)); err != nil {
		return err
	}
	if err := rewrite(hostnameFile, name+"\n", 0o644); err != nil {
		return err
	}
	return addHost(hostsFile, name)
}

// addHost adds a name to a file like /etc/hosts if it is not in it. A reset may have
// left zeros where lines were not on the disk yet.
func addHost(path, name string) error {
	hosts, err := readFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	hosts = bytes.ReplaceAll(hosts, []byte{0}, nil)
	for line := range strings.Lines(string(hosts)) {
		line, _, _ = strings.Cut(line, "#")
		if names := strings.Fields(line); len(names) > 1 && slices.Contains(names[1:], name) {
			return nil
		}
	}
	if len(hosts) > 0 && hosts[len(hosts)-1] != '\n' {
		hosts = append(hosts, '\n')
	}
	return rewrite(path, string(hosts)+"127.0.1.1 "+name+"\n", 0o644)
}

// machineIDFile is where a machine id is kept, and dbusMachineID where D-Bus
// looks for it. Most systems have a link there.
const (
	machineIDFile = "/etc/machine-id"
	dbusMachineID = "/var/lib/dbus/machine-id"
)

// journals are the folders in which systemd keeps a machine's journal, in one of
// its own by the machine's id.
var journals = []string{"/run/log/journal", "/var/log/journal"}

// setMachineID sets the machine id now and for later boots.
func setMachineID(id string) error {
	if was, err := readFile(machineIDFile); err == nil {
		if was := strings.TrimSpace(string(was)); was != "" && was != id && filepath.Base(was) == was {
			for _, dir := range journals {
				_ = os.Rename(filepath.Join(dir, was), filepath.Join(dir, id)) // most have none
			}
		}
	}
	if err := rewrite(machineIDFile, id+"\n", 0o444); err != nil {
		return err
	}
	if info, err := os.Lstat(dbusMachineID); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	return rewrite(dbusMachineID, id+"\n", 0o444)
}

// readFile reads a small file. What package os does to be able to wait for files
// is new to a clone, and has to be translated.
func readFile(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	buf := make([]byte, 0, 4096)
	for {
		n, err := unix.Read(fd, buf[len(buf):cap(buf)])
		if err != nil {
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 0 {
			return buf, nil
		}
		buf = slices.Grow(buf[:len(buf)+n], 1)
	}
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
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	said, status, err := s.output(ctx, argv...)
	if err == nil && status != 0 {
		err = fmt.Errorf("%s ended with status %d: %s", argv[0], status, said)
	}
	return err
}

// output runs a command and returns what it said and its exit status.
func (s *server) output(ctx context.Context, argv ...string) (said string, status int, err error) {
	began := time.Now()
	p, err := s.start(agent.Exec{Argv: argv, Merge: true})
	if err != nil {
		return "", 0, err
	}
	defer p.close()
	defer context.AfterFunc(ctx, func() { p.end(true) })()
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
	exit := p.wait()
	_ = p.stdout.SetReadDeadline(time.Now().Add(time.Second))
	said = <-output
	switch {
	case p.timedOut:
		err = fmt.Errorf("%s did not end within %v: %s", argv[0], time.Since(began).Round(time.Second), said)
	case exit.Signaled():
		err = fmt.Errorf("%s was ended by a signal, %v: %s", argv[0], exit.Signal(), said)
	}
	return said, exit.ExitStatus(), err
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
