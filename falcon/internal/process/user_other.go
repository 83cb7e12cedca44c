//go:build !linux

package process

import (
	"errors"
	"os"
	"strconv"
	"syscall"
)

// userOf returns the user whose a process is.
func userOf(pid int) (int, error) {
	info, err := os.Stat("/proc/" + strconv.Itoa(pid))
	if err != nil {
		return 0, err
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	return int(s.Uid), nil
}
