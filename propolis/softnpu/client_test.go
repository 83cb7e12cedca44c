package softnpu

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// An ASIC's line may have anything on it.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte("login: \r\n{\"Answer\":{\"id\":1,\"result\":4}}\n"))
	f.Add([]byte("{\"Answer\":{\"id\":1,\"error\":\"no\"}}\n"))
	f.Add([]byte("{\"Answer\":{\"id\":1}}\n"))
	f.Fuzz(func(t *testing.T, line []byte) {
		near, far := net.Pipe()
		go func() { io.Copy(io.Discard, far) }()
		go func() { far.Write(line); far.Close() }()
		c := NewClient(t.Context(), "test", near, time.Second)
		c.id = 0
		var result any
		err := c.Ask(t.Context(), RadixRequest{}, &result)
		if err == nil && result == nil && !bytes.Contains(line, []byte("null")) {
			t.Fatalf("%q is an answer without a result", line)
		}
		c.Close()
	})
}
