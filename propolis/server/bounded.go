package server

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
)

// DroppedBytes is the field of a line in a log that tells how much was dropped
// before it, counted in bytes of the log as it was.
const DroppedBytes = "dropped_bytes"

// boundedLog is a log that does not outgrow a limit: it is then cut to its latter
// half, below a line that says so. Its readers keep their file.
type boundedLog struct {
	mu    sync.Mutex
	file  *os.File
	size  int64
	limit int64
}

// bound keeps what is written to a regular file below a limit. Anything else, and
// a limit of 0, is left alone.
func bound(w io.Writer, limit int64) io.Writer {
	file, ok := w.(*os.File)
	if !ok || limit <= 0 {
		return w
	}
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return w
	}
	return &boundedLog{file: file, size: info.Size(), limit: limit}
}

// Write implements io.Writer.
func (b *boundedLog) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.size+int64(len(p)) > b.limit {
		b.cut()
	}
	n, err := b.file.Write(p)
	b.size += int64(n)
	return n, err
}

// cut drops the older half. That it cannot be read drops all: the host's disk
// matters more.
func (b *boundedLog) cut() {
	kept, err := b.latter(b.limit / 2)
	if err != nil {
		kept = nil
	}
	var text bytes.Buffer
	newLogger(&text, slog.LevelInfo).Warn("the log was cut: what is older was dropped", DroppedBytes, b.size-int64(len(kept)), "limit", b.limit)
	text.Write(kept)
	if err := b.file.Truncate(0); err != nil {
		return
	}
	_, _ = b.file.Seek(0, io.SeekStart) // for a file that is not appended to
	n, _ := b.file.Write(text.Bytes())  // a full disk: what is lost is lost
	b.size = int64(n)
}

// latter returns the last lines of the file, n bytes at the most.
func (b *boundedLog) latter(n int64) ([]byte, error) {
	// The descriptor may be one for writing only.
	file, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", b.file.Fd()))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	b.size = info.Size() // others may have written to it
	from := max(b.size-n, 0)
	data, err := io.ReadAll(io.NewSectionReader(file, from, n))
	if from > 0 {
		_, data, _ = bytes.Cut(data, []byte("\n"))
	}
	return data, err
}
