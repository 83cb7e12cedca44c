package falcon

import (
	"log/slog"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/falcon/internal/state"
)

// selfPath is this program.
const selfPath = "/proc/self/path/a.out"

func newNativeHost(c hostChoice, topology string, folder *state.Folder, log *slog.Logger) (host, error) {
	images, err := image.Open(image.Options{Home: c.home, Dataset: c.dataset})
	if err != nil {
		return nil, err
	}
	return newIllumosHost(images, topology, folder, log)
}
