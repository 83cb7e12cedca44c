package guest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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
		if err := os.WriteFile("/etc/machine-id", []byte(i.MachineID+"\n"), 0o444); err != nil {
			return fmt.Errorf("setting the machine id: %w", err)
		}
	}
	if i.SSHKeys {
		if err := s.renewSSHKeys(); err != nil {
			return fmt.Errorf("making the SSH server's host keys: %w", err)
		}
	}
	return nil
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
	if err := os.WriteFile("/etc/hostname", []byte(name+"\n"), 0o644); err != nil {
		return err
	}
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for line := range strings.Lines(string(hosts)) {
		line, _, _ = strings.Cut(line, "#")
		if names := strings.Fields(line); len(names) > 1 {
			for _, n := range names[1:] {
				if n == name {
					return nil
				}
			}
		}
	}
	f, err := os.OpenFile("/etc/hosts", os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "127.0.1.1 %s\n", name)
	return errors.Join(err, f.Close())
}

// renewSSHKeys removes the host keys and has new ones made where there is an SSH
// server.
func (s *server) renewSSHKeys() error {
	old, err := filepath.Glob("/etc/ssh/ssh_host_*_key*")
	if err != nil || len(old) == 0 {
		return err
	}
	for _, key := range old {
		if err := os.Remove(key); err != nil {
			return err
		}
	}
	if _, err := lookPath("ssh-keygen", variable(s.env, "PATH")); err != nil {
		return nil // nor is there a server that holds the old ones
	}
	if err := s.command("ssh-keygen", "-A"); err != nil {
		return err
	}
	if _, err := lookPath("systemctl", variable(s.env, "PATH")); err != nil {
		return nil
	}
	return s.command("systemctl", "try-restart", "ssh.service", "sshd.service")
}

// commandLimit bounds the commands that a call runs by itself.
const commandLimit = time.Minute

// command runs a command, whose output becomes part of its error.
func (s *server) command(argv ...string) error {
	p, err := s.start(agent.Exec{Argv: argv, Merge: true})
	if err != nil {
		return err
	}
	defer p.close()
	timer := time.AfterFunc(commandLimit, func() { p.end(true) })
	defer timer.Stop()
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
		return fmt.Errorf("%s did not end within %v: %s", argv[0], commandLimit, said)
	case status != 0:
		return fmt.Errorf("%s ended with status %d: %s", argv[0], status.ExitStatus(), said)
	}
	return nil
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
