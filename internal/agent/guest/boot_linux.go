package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/internal/agent"
)

// bootFile keeps what each boot of the guest needs: a guest may start over without
// anybody of falcon's being there.
const bootFile = "/var/lib/falcon-agent/boot"

// machineUUID is where the kernel has the machine's UUID.
const machineUUID = "/sys/class/dmi/id/product_uuid"

// keepBoot keeps what of an identity does not outlast a boot by itself.
func keepBoot(path string, i agent.Identity) error {
	if len(i.Mounts) == 0 {
		return removeIfThere(path)
	}
	content := string(agent.Identity{Hostname: i.Hostname, MachineID: i.MachineID, Mounts: i.Mounts}.Encode())
	err := rewrite(path, content, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		err = rewrite(path, content, 0o600)
	}
	if err == nil {
		go flush(path) // a guest may panic at once; nobody waits for the disk
	}
	return err
}

// flush has a file written to the disk.
func flush(path string) {
	if fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
		_ = unix.Fsync(fd)
		unix.Close(fd)
	}
}

// keptBoot returns what keepBoot has kept for this machine. A disk may have become
// another machine's, as by a snapshot, which has other mounts.
func keptBoot(path, uuidFile string) (i agent.Identity, kept bool) {
	content, err := readFile(path)
	if err != nil {
		return i, false
	}
	uuid, err := readFile(uuidFile)
	if err != nil {
		return i, false
	}
	i, err = agent.DecodeIdentity(content)
	is := strings.ToLower(strings.ReplaceAll(strings.TrimSpace(string(uuid)), "-", ""))
	return i, err == nil && i.MachineID == is
}

// boot does again what belongs to each boot. What fails is for falcon to say when
// it sets the guest up; the agent serves all the same.
func (s *server) boot() {
	i, kept := keptBoot(bootFile, machineUUID)
	if !kept {
		return
	}
	if err := unix.Sethostname([]byte(i.Hostname)); err != nil {
		fmt.Fprintln(os.Stderr, "falcon-agent: setting the host name:", err)
	}
	for _, m := range i.Mounts {
		if err := s.mount9p(m); err != nil {
			fmt.Fprintln(os.Stderr, "falcon-agent:", err)
			continue
		}
		s.booted = append(s.booted, m)
	}
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
