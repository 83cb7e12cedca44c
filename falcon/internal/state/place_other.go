//go:build !linux

package state

func handleOf(string) string { return "" }

// Trace returns where the folder is now. The error is os.ErrNotExist when it was
// deleted, and wraps ErrUntraced when that cannot be told: it takes Linux.
func (p Place) Trace() (path string, err error) { return "", ErrUntraced }
