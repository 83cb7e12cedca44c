package softnpu

import (
	"strings"
	"testing"
)

func TestMatchesInText(t *testing.T) {
	for _, tt := range []struct {
		kind       string
		bits       int
		text, want string // empty if it comes back as it was
	}{
		{"exact", 32, "10.0.0.2", ""},
		{"exact", 32, "0x0a000002", "10.0.0.2"},
		{"exact", 128, "fd00:1122::1", ""},
		{"exact", 48, "a8:40:25:00:00:01", ""},
		{"exact", 16, "65535", ""},
		{"exact", 2048, "123456789012345678901234567890", ""},
		{"lpm", 32, "10.0.1.0/24", ""},
		{"lpm", 32, "10.0.1.7", "10.0.1.7/32"},
		{"lpm", 128, "::/0", ""},
		{"lpm", 128, "_", "::/0"},
		{"ternary", 12, "_", ""},
		{"ternary", 12, "100", ""},
		{"ternary", 12, "100&&&0xff0", ""},
		{"range", 16, "1000..1999", ""},
		{"range", 16, "53", ""},
		{"range", 32, "10.0.0.50..10.0.0.60", ""},
		{"range", 16, "_", "0..65535"},
	} {
		k := Key{"k", tt.kind, tt.bits}
		m, err := ParseMatch(k, tt.text)
		if err != nil {
			t.Errorf("%s of %d bits, %s: %v", tt.kind, tt.bits, tt.text, err)
			continue
		}
		want := tt.want
		if want == "" {
			want = tt.text
		}
		if got := FormatMatch(k, m); got != want {
			t.Errorf("%s of %d bits, %s: got %s, want %s", tt.kind, tt.bits, tt.text, got, want)
		}
	}
}

func TestBadTextIsRefused(t *testing.T) {
	for _, tt := range []struct {
		kind string
		bits int
		text string
		want string
	}{
		{"exact", 32, "fd00::1", "key k (exact, 32 bits): fd00::1 is an address of 128 bits: want 32"},
		{"exact", 128, "a8:40:25:00:00:01", "is an address of 48 bits: want 128"},
		{"exact", 8, "256", "256 has more than 8 bits"},
		{"exact", 8, "-1", "neither a number nor an address"},
		{"exact", 8, "", "neither a number nor an address"},
		{"exact", 8, "_", "it needs a value"},
		{"exact", 128, "fe80::1%eth0", "neither a number nor an address"},
		{"lpm", 32, "10.0.0.0/33", `"33" is not the length of a prefix: want 0 to 32`},
		{"lpm", 32, "10.0.0.0/", `"" is not the length of a prefix`},
		{"ternary", 4, "1&&&16", "16 has more than 4 bits"},
		{"range", 8, "1..x", `"x" is neither`},
	} {
		if _, err := ParseMatch(Key{"k", tt.kind, tt.bits}, tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s of %d bits, %q: %v, want %q", tt.kind, tt.bits, tt.text, err, tt.want)
		}
	}
}
