//go:build !linux || !amd64

package confine

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// Jail is the place of a program that is being started.
type Jail struct{}

// Prepare has cmd start the program as it is: there is nothing to confine it with.
func Prepare(cmd *exec.Cmd, cfg Config) (*Jail, error) {
	cmd.Path, cmd.Args, cmd.ExtraFiles = cfg.Path, append([]string{cfg.Path}, cfg.Args...), cfg.Files
	cmd.Env, cmd.SysProcAttr = append(os.Environ(), cfg.Env...), &syscall.SysProcAttr{Setpgid: true}
	if cfg.Level != Least {
		return nil, ErrUnavailable
	}
	return &Jail{}, nil
}

// StartError returns err.
func StartError(err error) error { return err }

// Enter does nothing.
func (j *Jail) Enter(int) error { return nil }

// Close does nothing.
func (j *Jail) Close() {}

// System is empty.
func System(string) []Mount { return nil }

// Probe says that there is nothing.
func Probe() (Level, error) {
	return Least, errors.New("programs are confined on Linux for amd64 only")
}

// Lower does nothing.
func Lower() error { return nil }

// LowerSelf does nothing.
func LowerSelf() error { return nil }
