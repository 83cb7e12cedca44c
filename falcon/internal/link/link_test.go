package link

import (
	"errors"
	"io/fs"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func validCable() Cable {
	return Cable{
		A: End{Name: "duo_violin_vn_vnic0", Device: "violin-0", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}},
		B: End{Name: "duo_piano_vn_vnic0", Device: "piano-0", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}},
	}
}

func TestValidateReportsWhatTheKernelWouldNot(t *testing.T) {
	external := External{Name: "duo_violin_vn_vnic1", Device: "fx0", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 3}, Host: "eth0"}
	tests := []struct {
		name string
		edit func(c *Cable, x *External)
		want string // in the error; empty for none
	}{
		{"as it should be", func(*Cable, *External) {}, ""},
		{"longest names", func(c *Cable, _ *External) {
			c.A.Device, c.A.Name = strings.Repeat("d", MaxDevice), strings.Repeat("n", MaxName)
		}, ""},
		{"device too long", func(c *Cable, _ *External) { c.A.Device = strings.Repeat("d", MaxDevice+1) }, "more than 15"},
		{"host end has no room for its inner device", func(c *Cable, _ *External) {
			c.B.Kind, c.B.Device = Host, strings.Repeat("d", MaxDevice)
		}, "more than 15"},
		{"host ends joined directly have", func(c *Cable, _ *External) {
			c.A.Kind, c.B.Kind, c.B.Device = Host, Host, strings.Repeat("d", MaxDevice)
		}, ""},
		{"name too long", func(c *Cable, _ *External) { c.A.Name = strings.Repeat("n", MaxName+1) }, "more than 127"},
		{"no name", func(c *Cable, _ *External) { c.A.Name = "" }, "not a device name"},
		{"no device", func(c *Cable, _ *External) { c.B.Device = "" }, "not a device name"},
		{"device is a template", func(c *Cable, _ *External) { c.B.Device = "tap%d" }, "cannot have"},
		{"device is a path", func(c *Cable, _ *External) { c.B.Device = "a/b" }, "cannot have"},
		{"device has a space", func(c *Cable, _ *External) { c.B.Device = "a b" }, "cannot have"},
		{"device is a dot", func(c *Cable, _ *External) { c.B.Device = "." }, "not a device name"},
		{"same device twice", func(c *Cable, _ *External) { c.B.Device = c.A.Device }, "used twice"},
		{"same name twice", func(c *Cable, _ *External) { c.B.Name = c.A.Name }, "used twice"},
		{"name is another's device", func(c *Cable, _ *External) { c.B.Name = c.A.Device }, "used twice"},
		{"external has a cable's name", func(c *Cable, x *External) { x.Name = c.A.Name }, "used twice"},
		{"no MAC", func(c *Cable, _ *External) { c.A.MAC = nil }, "not 6"},
		{"multicast MAC", func(c *Cable, _ *External) { c.A.MAC = net.HardwareAddr{3, 0, 0, 0, 0, 1} }, "multicast"},
		{"zero MAC", func(_ *Cable, x *External) { x.MAC = make(net.HardwareAddr, 6) }, "all zero"},
		{"smallest MTU", func(c *Cable, _ *External) { c.MTU = MinMTU }, ""},
		{"MTU too small", func(c *Cable, _ *External) { c.MTU = MinMTU - 1 }, "not within"},
		{"largest MTU", func(c *Cable, _ *External) { c.MTU = MaxMTU }, ""},
		{"MTU too large", func(c *Cable, _ *External) { c.MTU = MaxMTU + 1 }, "not within"},
		{"external on nothing", func(_ *Cable, x *External) { x.Host = "" }, "not a device name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, x := validCable(), external
			tt.edit(&c, &x)
			err := validate([]Cable{c}, []External{x})
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestValidateReportsEveryFault(t *testing.T) {
	a, b := validCable(), validCable()
	a.A.MAC, a.MTU = nil, 1
	err := validate([]Cable{a, b}, nil)
	for _, want := range []string{"not 6", "MTU 1 ", "used twice", a.A.Name + " - " + a.B.Name} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}

func TestCableDevices(t *testing.T) {
	tests := []struct {
		a, b EndKind
		want []string
	}{
		{VM, VM, []string{"violin-0", "piano-0"}},
		{VM, Host, []string{"violin-0", "piano-0", "piano-0~"}},
		{Host, VM, []string{"violin-0", "piano-0", "violin-0~"}},
		{Host, Host, []string{"violin-0", "piano-0"}},
	}
	for _, tt := range tests {
		c := validCable()
		c.A.Kind, c.B.Kind = tt.a, tt.b
		if got := c.Devices(); !slices.Equal(got, tt.want) {
			t.Errorf("%v - %v: %v, want %v", tt.a, tt.b, got, tt.want)
		}
	}
}

func TestOpErrorTellsTheReason(t *testing.T) {
	tests := []struct {
		cause error
		want  error
	}{
		{syscall.EPERM, ErrNotPermitted},
		{&fs.PathError{Op: "open", Path: "/dev/net/tun", Err: syscall.EACCES}, ErrNotPermitted},
		{syscall.EOPNOTSUPP, ErrNotSupported},
		{syscall.EEXIST, ErrInUse},
		{syscall.EBUSY, ErrInUse},
	}
	for _, tt := range tests {
		err := opError("create tap", "violin-0", tt.cause, "")
		if !errors.Is(err, tt.want) || !errors.Is(err, tt.cause) {
			t.Errorf("%v is not %v", err, tt.want)
		}
	}
	if err := opError("create tap", "violin-0", nil, "fix"); err != nil {
		t.Errorf("no failure became %v", err)
	}
	err := opError("create tap", "violin-0", syscall.ENODEV, "load the module")
	if got, want := err.Error(), "create tap violin-0: no such device (load the module)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
