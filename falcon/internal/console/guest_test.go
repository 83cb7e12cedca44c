package console

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// A guest that knows the exchange gets each command as it was given, whatever
// is in it.
func TestHandoverGetsTheCommand(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := newID()
		command := rapid.StringOf(rapid.OneOf(rapid.SampledFrom([]rune("'\\\n $\"#|;%äx")), rapid.Rune())).
			Filter(func(s string) bool { return !strings.Contains(s, "\x00") }).Draw(t, "command")
		command = strings.Repeat(command, rapid.SampledFrom([]int{1, 1, 400}).Draw(t, "times"))
		direct := rapid.Bool().Draw(t, "direct")
		around := script
		if direct {
			around = directScript
		}
		parts := payloads(around(id, command))
		line := strings.TrimPrefix(bootstrapLine(id, len(parts[0]), len(parts) > 1), clearLine)
		h := ParseBootstrap(strings.TrimSuffix(line, "\n"))
		if h == nil {
			t.Fatalf("no exchange in %q", line)
		}
		d := NewDecoder(id)
		feed := func(s string) {
			if _, err := d.Feed([]byte(s)); err != nil {
				t.Fatal(err)
			}
		}
		feed(h.Ready())
		sent, done := 0, false
		for _, p := range parts {
			for rest := p; rest != ""; {
				if done {
					t.Fatal("it was done before the end of the payload")
				}
				n := min(payloadLine, len(rest))
				answer, end, err := h.Line(rest[:n])
				if err != nil {
					t.Fatal(err)
				}
				done, rest, sent = end, rest[n:], sent+n
				feed(answer)
			}
		}
		if !done || h.Shell != command || h.Direct != direct {
			t.Fatalf("done %v, direct %v, command %q, want %q", done, h.Direct, h.Shell, command)
		}
		if !d.Ready || d.Acked != sent || d.Mismatch {
			t.Fatalf("ready %v, %d bytes acknowledged of %d", d.Ready, d.Acked, sent)
		}
	})
}

func TestHandoverSendsWhatTheDecoderExpects(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		out := rapid.SliceOf(rapid.Byte()).Draw(t, "output")
		out = bytes.Repeat(out, rapid.SampledFrom([]int{1, 3, 5000}).Draw(t, "times"))
		status := rapid.IntRange(0, 255).Draw(t, "status")
		h := &Handover{id: newID()}
		var wire bytes.Buffer
		if err := h.Send(&wire, bytes.NewReader(out), func() int { return status }); err != nil {
			t.Fatal(err)
		}
		d := NewDecoder(h.id)
		got, err := d.Feed(wire.Bytes())
		if err != nil || !d.Ended || d.Status != status || !bytes.Equal(got, out) {
			t.Fatalf("error %v, ended %v, status %d (want %d), output %d bytes (want %d)", err, d.Ended, d.Status, status, len(got), len(out))
		}
		d = NewDecoder(h.id)
		if _, err := d.Feed([]byte(h.Status(status))); err != nil || d.Status != status || !d.Ended {
			t.Fatalf("alone: error %v, ended %v, status %d, want %d", err, d.Ended, d.Status, status)
		}
	})
}

func TestHandoverRefusesOtherLines(t *testing.T) {
	for _, line := range []string{"", "ls", strings.TrimPrefix(verifyLine("ABCDEFGHI"), clearLine), " (_i=ABCDEFGHI;echo)"} {
		if ParseBootstrap(line) != nil {
			t.Errorf("%q was taken for an exchange", line)
		}
	}
	id := newID()
	h := ParseBootstrap(strings.TrimPrefix(bootstrapLine(id, 4, false), clearLine))
	answer, done, err := h.Line("12345")
	d := NewDecoder(id)
	if _, ferr := d.Feed([]byte(answer)); ferr != nil || !d.Mismatch || !done || err == nil {
		t.Errorf("payload that is too long: %v, mismatch %v, done %v, error %v", ferr, d.Mismatch, done, err)
	}
	h = ParseBootstrap(strings.TrimPrefix(bootstrapLine(id, 4, false), clearLine))
	if _, _, err := h.Line("true"); err == nil {
		t.Error("a script of somebody else's was taken")
	}
}
