package softnpu

import (
	"log/slog"
	"sync"
	"time"
)

// logEvery is how often one message of those that a guest can cause goes to
// the log. The counters have all of them.
const logEvery = 10 * time.Second

// logText bounds what an error can say there: it may quote a guest.
const logText = 500

// limitedLog is a log that a guest cannot fill.
type limitedLog struct {
	to *slog.Logger

	mu   sync.Mutex
	last map[string]*said // by message; they are constants, and so few
}

type said struct {
	at    time.Time
	since int // kept back since then
}

func (l *limitedLog) warn(message string, args ...any) {
	l.mu.Lock()
	s := l.last[message]
	if s == nil {
		s = &said{}
		if l.last == nil {
			l.last = map[string]*said{}
		}
		l.last[message] = s
	}
	if !s.at.IsZero() && time.Since(s.at) < logEvery {
		s.since++
		l.mu.Unlock()
		return
	}
	kept := s.since
	s.at, s.since = time.Now(), 0
	l.mu.Unlock()
	if kept > 0 {
		args = append(args, "more_before", kept)
	}
	for i, a := range args {
		if err, ok := a.(error); ok {
			if text := err.Error(); len(text) > logText {
				args[i] = text[:logText] + "…"
			}
		}
	}
	l.to.Warn(message, args...)
}
