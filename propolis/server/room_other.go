//go:build !linux

package server

// hasRoom leaves it to another try: machines run elsewhere for tests only.
func hasRoom(string) bool { return true }
