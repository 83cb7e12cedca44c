package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/internal/agent"
)

// bootFile keeps what each boot of the guest needs: a guest may start over without
// anybody of falcon's being there.
const bootFile = "/var/lib/falcon-agent/boot"

// machineUUID is where the kernel has the machine's UUID.
const machineUUID = "/sys/class/dmi/id/product_uuid"

// keepBoot keeps an identity for later boots. SSH keys that are still to be made
// stay so.
func keepBoot(path string, i agent.Identity) error {
	if was, err := readKept(path); err == nil && was.MachineID == i.MachineID && was.SSHKeys {
		i.SSHKeys = true
	}
	kept := agent.Identity{Hostname: i.Hostname, MachineID: i.MachineID, SSHKeys: i.SSHKeys, Mounts: i.Mounts}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return rewrite(path, string(kept.Encode()), 0o600)
}

// flushPause is how long after that it is written to the disk: other guests may be
// launched at this moment, and have the host's processors until then.
const flushPause = 300 * time.Millisecond

// keep keeps an identity for later boots, and has it written to the disk soon. Nobody
// waits for that: ten guests at once take a second. A guest that is reset before is
// seen to have lost it.
func (s *server) keep(i agent.Identity) error {
	s.keeping.Lock()
	defer s.keeping.Unlock()
	made := !exists(bootFile)
	err := keepBoot(bootFile, i)
	if err == nil {
		time.AfterFunc(flushPause, func() { s.flush(made) })
	}
	return err
}

// flush has what is kept written to the disk, and where that was made.
func (s *server) flush(made bool) {
	s.keeping.Lock()
	defer s.keeping.Unlock()
	err := writeOut(bootFile, unix.Fsync)
	if dir := filepath.Dir(bootFile); made && err == nil {
		err = errors.Join(writeOut(dir, unix.Fsync), writeOut(filepath.Dir(dir), unix.Fsync))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "falcon-agent: keeping what the guest is:", err)
	}
}

// keptKeys notes that a machine's SSH keys are made, once they are on the disk.
func keptKeys(path, sshFolder string) error {
	i, err := readKept(path)
	if err != nil || !i.SSHKeys {
		return err
	}
	if err := writeOut(sshFolder, unix.Syncfs); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	i.SSHKeys = false
	return errors.Join(rewrite(path, string(i.Encode()), 0o600), writeOut(path, unix.Fsync))
}

// writeOut has a file or folder, or the file system that it is on, written to the disk.
func writeOut(path string, sync func(fd int) error) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = sync(fd)
		unix.Close(fd)
	}
	if err != nil {
		return &fs.PathError{Op: "sync", Path: path, Err: err}
	}
	return nil
}

// readKept returns what keepBoot has kept, for whichever machine.
func readKept(path string) (agent.Identity, error) {
	content, err := readFile(path)
	if err != nil {
		return agent.Identity{}, err
	}
	return agent.DecodeIdentity(content)
}

// keptBoot returns what keepBoot has kept for this machine. A disk may have become
// another machine's, as by a snapshot, which has other mounts.
func keptBoot(path, uuidFile string) (i agent.Identity, kept bool) {
	i, err := readKept(path)
	if err != nil {
		return i, false
	}
	uuid, err := readFile(uuidFile)
	is := strings.ToLower(strings.ReplaceAll(strings.TrimSpace(string(uuid)), "-", ""))
	return i, err == nil && i.MachineID == is
}

// boot does again what belongs to each boot, and what a reset may have taken away
// before it was on the disk. What fails is for falcon to say when it sets the guest
// up; the agent serves all the same.
func (s *server) boot() {
	i, kept := keptBoot(bootFile, machineUUID)
	if !kept {
		id, _ := readFile(machineIDFile) // some systems have none
		s.machine = strings.TrimSpace(string(id))
		return
	}
	warn := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "falcon-agent: being this machine again:", err)
		}
	}
	warn(setHostname(i.Hostname))
	err := setMachineID(i.MachineID)
	if err == nil {
		s.machine = i.MachineID
	}
	warn(err)
	if i.SSHKeys {
		warn(s.makeSSHKeys())
	}
	for _, m := range i.Mounts {
		if err := s.mount9p(m); err != nil {
			warn(err)
			continue
		}
		s.booted = append(s.booted, m)
	}
}

// makeSSHKeys makes the SSH server's host keys anew. What takes long goes on when
// it returns.
func (s *server) makeSSHKeys() error {
	late, err := renewSSHKeys(sshFolder, rereadSSHKeys)
	if err != nil {
		return fmt.Errorf("making the SSH server's host keys: %w", err)
	}
	go func() {
		if late != nil {
			if err := <-late; err != nil {
				fmt.Fprintln(os.Stderr, "falcon-agent: making the SSH server's RSA host key:", err)
				return
			}
		}
		s.keeping.Lock()
		defer s.keeping.Unlock()
		if err := keptKeys(bootFile, sshFolder); err != nil && !errors.Is(err, fs.ErrNotExist) {
			fmt.Fprintln(os.Stderr, "falcon-agent: noting that the SSH server has its host keys:", err)
		}
	}()
	return nil
}

// replaceBooted takes away what boot has mounted and is not wanted any more: the
// node was declared differently since.
func (s *server) replaceBooted(wanted []agent.Mount) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.booted {
		if !slices.Contains(wanted, m) {
			_ = unix.Unmount(m.Target, unix.MNT_DETACH) // mounting another says what is wrong
		}
	}
	s.booted = nil
}
