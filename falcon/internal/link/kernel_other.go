//go:build !linux

package link

import (
	"context"
	"fmt"
	"runtime"
)

func unsupported(what string) error {
	return fmt.Errorf("%s: %w on %s", what, ErrNotSupported, runtime.GOOS)
}

// Path returns an empty path: only Linux has network namespaces.
func (k *Kernel) Path() string { return "" }

// Create fails with ErrNotSupported.
func (k *Kernel) Create(_ context.Context, cables []Cable, externals []External) error {
	if err := validate(cables, externals); err != nil {
		return err
	}
	return unsupported("create links")
}

// Destroy fails with ErrNotSupported.
func (k *Kernel) Destroy(context.Context, []External) error {
	return unsupported("destroy links")
}

// Inspect fails with ErrNotSupported.
func (k *Kernel) Inspect(context.Context, []External) (map[string]Device, error) {
	return nil, unsupported("inspect links")
}

// DestroyExternals fails with ErrNotSupported.
func DestroyExternals([]External) error { return unsupported("destroy external links") }

// Namespaces returns none.
func Namespaces(context.Context) ([]string, error) { return nil, nil }

// Probe returns that nothing can be done.
func Probe(context.Context) (Capabilities, error) {
	err := unsupported("links of kernel devices")
	return Capabilities{Namespace: err, Tap: err, BPF: err, Mirred: err, Veth: err, Macvtap: err}, nil
}

// HostInterface fails with ErrNotSupported.
func HostInterface(context.Context, string) (Interface, error) {
	return Interface{}, unsupported("look at interfaces")
}

// DefaultRouteInterface fails with ErrNotSupported.
func DefaultRouteInterface(context.Context) (string, error) {
	return "", unsupported("find the default route")
}
