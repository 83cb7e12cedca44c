package link

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const someMAC = "02:00:00:00:00:01"

func TestVNICNames(t *testing.T) {
	tests := []struct{ got, want string }{
		{KernelVNIC("violin-0", 0), "violin-0"},
		{KernelVNIC("violin-0", 9000), "violin-0?mtu=9000"},
		{HostVNIC("fx0", 0), "host:fx0"},
		{HostVNIC("fx0", 1500), "host:fx0?mtu=1500"},
		{SocketVNIC("violin-0.link", "piano-0.link", someMAC, 0),
			"dgram:violin-0.link?peer=piano-0.link&mac=02:00:00:00:00:01"},
		{SocketVNIC("violin-0.link", "piano-0.link", someMAC, 9000),
			"dgram:violin-0.link?peer=piano-0.link&mac=02:00:00:00:00:01&mtu=9000"},
		{SocketVNIC("a", "../b c&d=e+f", someMAC, 0), "dgram:a?peer=..%2Fb+c%26d%3De%2Bf&mac=02:00:00:00:00:01"},
		{UserVNIC(someMAC, 0), "user:?mac=02:00:00:00:00:01"},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("got %s, want %s", tt.got, tt.want)
		}
		v, err := ParseVNICName(tt.got)
		if err != nil || v.String() != tt.want {
			t.Errorf("%s parses to %+v, %v", tt.got, v, err)
		}
	}
}

func TestParseVNICNameRefuses(t *testing.T) {
	for name, why := range map[string]string{
		"":                                 "",
		"host:":                            "",
		"wire:x":                           "unknown",
		":x":                               "colon",
		"x?speed=10":                       "unknown",
		"x?mtu=67":                         "not within",
		"x?mtu=big":                        "invalid syntax",
		"x?peer=y":                         "peer",
		"dgram:a?mac=" + someMAC:           "peer",
		"dgram:a?peer=b":                   "MAC",
		"dgram:?peer=b&mac=" + someMAC:     "name",
		"user:":                            "MAC",
		"user:x?mac=" + someMAC:            "name",
		"user:?mac=03:00:00:00:00:01":      "multicast",
		"user:?mac=02:00:00:00:00:00:00:1": "invalid",
		"x?mtu=%zz":                        "invalid",
	} {
		if v, err := ParseVNICName(name); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %+v, %v, want %q in the error", name, v, err, why)
		}
	}
}

func TestVNICNameRoundTrip(t *testing.T) {
	mac := rapid.Map(rapid.SliceOfN(rapid.Byte(), 5, 5), func(b []byte) string {
		return "02:" + strings.TrimPrefix(hardware(b), ":")
	})
	name := rapid.StringMatching(`[a-zA-Z0-9_.~-]{1,15}`)
	rapid.Check(t, func(t *rapid.T) {
		v := VNICName{
			Kind: rapid.SampledFrom([]VNICKind{VNICDevice, VNICHost, VNICSocket, VNICUser}).Draw(t, "kind"),
			MTU:  rapid.OneOf(rapid.Just(0), rapid.IntRange(MinMTU, MaxMTU)).Draw(t, "mtu"),
		}
		if v.Kind != VNICUser {
			v.Name = name.Draw(t, "name")
		}
		if v.Kind == VNICSocket {
			v.Peer = rapid.StringN(1, 50, -1).Draw(t, "peer")
		}
		if v.Kind == VNICSocket || v.Kind == VNICUser || rapid.Bool().Draw(t, "with mac") {
			v.MAC = mac.Draw(t, "mac")
		}
		got, err := ParseVNICName(v.String())
		if err != nil || got != v {
			t.Fatalf("%+v became %s, which is %+v, %v", v, v, got, err)
		}
	})
}

func hardware(b []byte) string {
	var s strings.Builder
	const digits = "0123456789abcdef"
	for _, x := range b {
		s.Write([]byte{':', digits[x>>4], digits[x&15]})
	}
	return s.String()
}

func FuzzParseVNICName(f *testing.F) {
	for _, s := range []string{"violin-0", "host:fx0?mtu=1500", "user:?mac=" + someMAC,
		"dgram:a?peer=b&mac=" + someMAC + "&mtu=9000", "a:b:c?d?e", "::", "x?mtu=%31500"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := ParseVNICName(s)
		if err != nil {
			return
		}
		again, err := ParseVNICName(v.String())
		if err != nil || again != v {
			t.Errorf("%q is %+v, whose name %q is %+v, %v", s, v, v, again, err)
		}
	})
}
