//go:build !linux

package falcon

import (
	"fmt"
	"log/slog"
	"runtime"

	"github.com/falcon-vm/falcon-go/falcon/internal/state"
)

// selfPath is this program.
const selfPath = "/proc/self/path/a.out"

func newNativeHost(_, _ string, _ *state.Folder, _ *slog.Logger) (host, error) {
	return nil, fmt.Errorf("falcon cannot run topologies on %s yet", runtime.GOOS)
}
