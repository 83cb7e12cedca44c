package falcon

import (
	"fmt"
	"os/exec"
	"syscall"

	"github.com/google/uuid"
)

// lease binds the folder's topology to this program: a process of our own waits
// for the end of a pipe that only this program holds open, and then destroys
// the topology if its record has the lease. That works however the program
// ends.
func (l *lab) lease() (string, error) {
	lease := uuid.NewString()
	cmd := exec.Command(selfPath, l.folder.Path(), lease)
	cmd.Args[0] = reaperName
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// The end for writing is closed with this process, and is never used.
	if _, err := cmd.StdinPipe(); err != nil {
		return "", fmt.Errorf("starting the reaper: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("starting the reaper: %w", err)
	}
	go func() { _ = cmd.Wait() }()
	return lease, nil
}
