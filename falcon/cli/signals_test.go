package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/state"
)

func TestSignalsCancelOnceAndThenEnd(t *testing.T) {
	type sent struct {
		signal syscall.Signal
		after  time.Duration // since the one before
	}
	const later = time.Second
	for name, tt := range map[string]struct {
		sent   []sent
		broken bool           // nobody reads the output
		cause  syscall.Signal // 0 for none
		end    syscall.Signal
	}{
		"Ctrl-C":                 {sent: []sent{{syscall.SIGINT, 0}}, cause: syscall.SIGINT},
		"Ctrl-\\":                {sent: []sent{{syscall.SIGQUIT, 0}}, cause: syscall.SIGQUIT},
		"Ctrl-C twice":           {sent: []sent{{syscall.SIGINT, 0}, {syscall.SIGINT, later}}, cause: syscall.SIGINT, end: syscall.SIGINT},
		"Ctrl-C and Ctrl-\\":     {sent: []sent{{syscall.SIGINT, 0}, {syscall.SIGQUIT, later}}, cause: syscall.SIGINT, end: syscall.SIGQUIT},
		"timeout(1)":             {sent: []sent{{syscall.SIGTERM, 0}, {syscall.SIGTERM, time.Millisecond}}, cause: syscall.SIGTERM},
		"a terminal is closed":   {sent: []sent{{syscall.SIGHUP, 0}, {syscall.SIGHUP, later}}, cause: syscall.SIGHUP},
		"closed after Ctrl-C":    {sent: []sent{{syscall.SIGINT, 0}, {syscall.SIGHUP, later}}, cause: syscall.SIGINT},
		"nobody reads":           {sent: []sent{{syscall.SIGPIPE, 0}, {syscall.SIGPIPE, later}}, broken: true, cause: syscall.SIGPIPE},
		"nobody reads, Ctrl-C":   {sent: []sent{{syscall.SIGPIPE, 0}, {syscall.SIGINT, later}}, broken: true, cause: syscall.SIGPIPE, end: syscall.SIGINT},
		"a connection is broken": {sent: []sent{{syscall.SIGPIPE, 0}}},
		"that, and then Ctrl-C":  {sent: []sent{{syscall.SIGPIPE, 0}, {syscall.SIGINT, later}}, cause: syscall.SIGINT},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			var end syscall.Signal
			w := signalWatch{cancel: cancel, broken: func() bool { return tt.broken }, end: func(by signalError) { end = by.Signal }}
			now := time.Now()
			for _, s := range tt.sent {
				now = now.Add(s.after)
				w.take(s.signal, now)
			}
			var cause signalError
			errors.As(context.Cause(ctx), &cause)
			if cause.Signal != tt.cause || end != tt.end {
				t.Errorf("cancelled by %d, ended by %d; want %d, %d", cause.Signal, end, tt.cause, tt.end)
			}
		})
	}
}

func TestAnInterruptedCommandEndsWithTheStatusOfTheSignal(t *testing.T) {
	for signal, status := range map[syscall.Signal]int{
		syscall.SIGHUP: 129, syscall.SIGINT: 130, syscall.SIGQUIT: 131, syscall.SIGPIPE: 141, syscall.SIGTERM: 143,
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(signalError{signal})
		p := testProgram{lab: fakeLab{err: fmt.Errorf("working: %w", context.Cause(ctx))}}
		if got := p.runContext(t, ctx, "launch"); got.status != status || !strings.Contains(got.stderr, "signal received") {
			t.Errorf("%v: %+v, want status %d", signal, got, status)
		}
	}
}

func TestTheSecondSignalSaysWhatIsLeftAndWhatClearsIt(t *testing.T) {
	standing := filepath.Join(t.TempDir(), "it's here")
	folder, err := state.Open(standing)
	if err != nil {
		t.Fatal(err)
	}
	if err := folder.Create(); err != nil {
		t.Fatal(err)
	}
	j, err := folder.Journal()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(j.Make(state.Object{Kind: state.Disk, Name: "a"}, state.Object{Kind: state.Server, Name: "a"}), j.Close()); err != nil {
		t.Fatal(err)
	}
	nothing := filepath.Join(t.TempDir(), "nothing")
	for _, tt := range []struct {
		dir, args string
		want      []string // nil for nothing to say
	}{
		{standing, "launch", []string{"1 node, 1 disk", standing, `falcon destroy '` + strings.ReplaceAll(standing, "'", `'\''`) + "'"}},
		{standing, "dest", []string{"1 node, 1 disk", "falcon destroy"}},
		{nothing, "launch", []string{"falcon doctor --fix"}},
		{standing, "snapshot violin x", []string{"falcon doctor --fix"}},
		{standing, "exec violin ls", nil},
		{standing, "info", nil},
	} {
		var p testProgram
		a := p.app(t)
		a.dir = tt.dir
		got := leaves(a.root, strings.Fields(tt.args))
		if tt.want == nil && got != "" {
			t.Errorf("%s: %q, want nothing", tt.args, got)
		}
		for _, want := range tt.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q lacks %q", tt.args, got, want)
			}
		}
	}
}
