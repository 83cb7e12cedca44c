package falcon

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/google/uuid"
)

// lease binds a topology to this program: a process of our own waits for the
// end of a pipe that only this program holds open, and then destroys the
// topology. That works however the program ends.
func (l *lab) lease(r *record) error {
	r.Lease = uuid.NewString()
	cmd := exec.Command(selfPath, l.folder.Path(), r.Lease)
	cmd.Args[0] = reaperName
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// The end for writing is closed with this process, and is never used.
	if _, err := cmd.StdinPipe(); err != nil {
		return fmt.Errorf("starting the reaper: %w", err)
	}
	cmd.Env = os.Environ()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the reaper: %w", err)
	}
	go func() { _ = cmd.Wait() }()
	return nil
}
