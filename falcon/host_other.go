//go:build !linux && !illumos

package falcon

import (
	"fmt"
	"log/slog"
	"runtime"

	"github.com/falcon-vm/falcon-go/falcon/internal/state"
)

// selfPath is this program where there is no such path by which it can be run.
const selfPath = "/proc/self/exe"

func newNativeHost(_ hostChoice, _ string, _ *state.Folder, _ *slog.Logger) (host, error) {
	return nil, fmt.Errorf("falcon cannot run topologies on %s yet", runtime.GOOS)
}
