package server

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"
)

// serverName is the name of the program in its log.
const serverName = "propolis-server"

// newLogger returns a logger that writes bunyan's format, one JSON object a
// line, which is what readers of Propolis' log know.
func newLogger(w io.Writer, level slog.Level) *slog.Logger {
	hostname, err := os.Hostname()
	if err != nil {
		hostname = "localhost" // bunyan requires one
	}
	h := slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: bunyanAttr})
	return slog.New(h).With("v", 0, "name", serverName, "hostname", hostname, "pid", os.Getpid())
}

// bunyanAttr gives the level its number and the time its zone and precision.
func bunyanAttr(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.LevelKey:
		return slog.Int("level", bunyanLevel(a.Value))
	case slog.TimeKey:
		return slog.String("time", a.Value.Time().UTC().Format(time.RFC3339Nano))
	}
	return a
}

// bunyanLevel returns bunyan's number of a level: debug is 20, info 30, warn
// 40 and error 50.
func bunyanLevel(v slog.Value) int {
	level, ok := v.Any().(slog.Level)
	switch {
	case !ok || level == slog.LevelInfo:
		return 30
	case level < slog.LevelInfo:
		return 20
	case level < slog.LevelError:
		return 40
	}
	return 50
}

// parseLevel reads the level of --log-level.
func parseLevel(s string) (slog.Level, error) {
	switch strings.ToLower(s) {
	case "trace", "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "error", "critical":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("--log-level %q: want trace, debug, info, warn, error or critical", s)
}
