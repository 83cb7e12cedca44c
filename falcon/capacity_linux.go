package falcon

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

// load reads what the kernel says of its memory and, where it counts that, of
// those who wait.
func (h *linuxHost) load() (hostLoad, error) {
	now := hostLoad{at: time.Now()}
	var err error
	if now.free, err = freeMemory(); err != nil {
		return now, err
	}
	cpu, cerr := stalled("cpu")
	memory, merr := stalled("memory")
	if cerr == nil && merr == nil { // a kernel may be built or booted without
		now.cpu, now.memory, now.measured = cpu, memory, true
	}
	return now, nil
}

// stalled returns for how long some task has waited for a resource since the
// host was started.
func stalled(resource string) (time.Duration, error) {
	data, err := os.ReadFile("/proc/pressure/" + resource)
	if err != nil {
		return 0, err
	}
	d, err := someTotal(data)
	if err != nil {
		return 0, fmt.Errorf("/proc/pressure/%s: %w", resource, err)
	}
	return d, nil
}

// errNoPressure says that a text is not one of /proc/pressure.
var errNoPressure = errors.New("no line of pressure")

// someTotal reads the total of the line "some" of a file of /proc/pressure.
func someTotal(data []byte) (time.Duration, error) {
	for line := range bytes.Lines(data) {
		rest, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("some "))
		if !ok {
			continue
		}
		_, total, ok := bytes.Cut(rest, []byte("total="))
		if !ok {
			break
		}
		us, err := strconv.ParseInt(string(total), 10, 64)
		return time.Duration(us) * time.Microsecond, err
	}
	return 0, errNoPressure
}
