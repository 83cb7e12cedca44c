package process

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// psinfo is what falcon needs of illumos' /proc/PID/psinfo, whose layout for
// 64-bit programs is that of psinfo_t in proc(5).
type psinfo struct {
	pid int
	// threads is 0 for a zombie.
	threads int
	// start is when the process was started, in nanoseconds since 1970.
	start uint64
}

// Where the fields are in psinfo_t of an LP64 program, in bytes.
const (
	psinfoThreads   = 4  // pr_nlwp, int
	psinfoPID       = 8  // pr_pid, pid_t
	psinfoStartSec  = 88 // pr_start.tv_sec, time_t
	psinfoStartNsec = 96 // pr_start.tv_nsec, long
	psinfoLeast     = psinfoStartNsec + 8
)

var errPsinfo = errors.New("its psinfo is not what this program knows")

// parsePsinfo reads a psinfo of a little-endian 64-bit host, which all are that
// bhyve runs on.
func parsePsinfo(data []byte) (psinfo, error) {
	if len(data) < psinfoLeast {
		return psinfo{}, fmt.Errorf("%w: %d bytes", errPsinfo, len(data))
	}
	le := binary.LittleEndian
	sec, nsec := int64(le.Uint64(data[psinfoStartSec:])), int64(le.Uint64(data[psinfoStartNsec:]))
	if sec < 0 || nsec < 0 || nsec >= 1e9 {
		return psinfo{}, fmt.Errorf("%w: it was started at %d s and %d ns", errPsinfo, sec, nsec)
	}
	return psinfo{
		pid:     int(int32(le.Uint32(data[psinfoPID:]))),
		threads: int(int32(le.Uint32(data[psinfoThreads:]))),
		start:   uint64(sec)*1e9 + uint64(nsec),
	}, nil
}
