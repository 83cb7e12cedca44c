// Package networkns does things inside other network namespaces.
package networkns

import (
	"fmt"
	"runtime"

	"github.com/vishvananda/netns"
)

// Run calls f on a thread of its own inside the network namespace at path, or
// just calls it if path is empty. The thread is not used again.
func Run(path string, f func() error) error {
	if path == "" {
		return f()
	}
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", path, err)
	}
	defer ns.Close()
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with us
		if err := netns.Set(ns); err != nil {
			result <- fmt.Errorf("entering network namespace %s: %w", path, err)
			return
		}
		result <- f()
	}()
	return <-result
}
