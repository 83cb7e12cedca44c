package server

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestLogLinesAreBunyan(t *testing.T) {
	var b lockedBuffer
	log := newLogger(&b, slog.LevelDebug)
	levels := map[string]float64{"a": 20, "b": 30, "c": 40, "d": 50}
	log.Debug("a", "local_addr", "[::]:12400")
	log.Info("b", "level", "not the level's number")
	log.Warn("c")
	log.Error("d")
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != len(levels) {
		t.Fatalf("got %d lines:\n%s", len(lines), &b)
	}
	for _, text := range lines {
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatal(err)
		}
		msg := line["msg"].(string)
		if msg != "b" && line["level"] != levels[msg] {
			t.Errorf("%s has level %v, want %v", msg, line["level"], levels[msg])
		}
		if line["v"] != 0.0 || line["name"] != "propolis-server" || line["hostname"] == "" || line["pid"] == 0.0 {
			t.Errorf("fields are missing: %s", text)
		}
		if _, err := time.Parse(time.RFC3339Nano, line["time"].(string)); err != nil || !strings.HasSuffix(line["time"].(string), "Z") {
			t.Errorf("time %v: %v", line["time"], err)
		}
	}
	// Upstream's falcon looks for this, spelled like this.
	if !strings.Contains(lines[0], `"local_addr":"[::]:12400"`) {
		t.Errorf("got %s", lines[0])
	}
}

func TestLogLevels(t *testing.T) {
	tests := map[string]slog.Level{
		"trace": slog.LevelDebug, "debug": slog.LevelDebug, "INFO": slog.LevelInfo,
		"warn": slog.LevelWarn, "error": slog.LevelError, "critical": slog.LevelError,
	}
	for name, want := range tests {
		if got, err := parseLevel(name); err != nil || got != want {
			t.Errorf("%s gave %v, %v", name, got, err)
		}
	}
	if _, err := parseLevel("loud"); err == nil {
		t.Error("level loud was accepted")
	}
}
