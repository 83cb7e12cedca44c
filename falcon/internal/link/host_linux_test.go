package link

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
)

// A host of the test's own: a namespace without a name.
func onTestHost(t *testing.T, fn func(r *rtnl) error) {
	t.Helper()
	needRoot(t)
	if err := inPrivateNamespace(fn); err != nil {
		t.Fatal(err)
	}
}

func addRoute(r *rtnl, index int, to string, metric int, multipath bool) error {
	_, dst, err := net.ParseCIDR(to)
	if err != nil {
		return err
	}
	route := &netlink.Route{Dst: dst, Priority: metric, LinkIndex: index, Scope: netlink.SCOPE_LINK}
	if multipath {
		route.LinkIndex = 0
		route.MultiPath = []*netlink.NexthopInfo{{LinkIndex: index}, {LinkIndex: index}}
	}
	return r.h.RouteAdd(route)
}

func TestDefaultRouteInterface(t *testing.T) {
	type route struct {
		device, to string
		metric     int
		multipath  bool
	}
	tests := []struct {
		name   string
		routes []route
		want   string
	}{
		{"none", nil, ""},
		{"no default route among routes", []route{{"v0", "10.0.0.0/8", 0, false}, {"v0", "0.0.0.0/1", 0, false}}, ""},
		{"one", []route{{"v1", "0.0.0.0/0", 0, false}}, "v1"},
		{"lowest metric", []route{{"v0", "0.0.0.0/0", 20, false}, {"v1", "0.0.0.0/0", 10, false}}, "v1"},
		{"several hops", []route{{"v1", "0.0.0.0/0", 0, true}}, "v1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			onTestHost(t, func(r *rtnl) error {
				if err := r.addVeth("v0", "v1"); err != nil {
					return err
				}
				index := map[string]int{}
				for _, name := range []string{"v0", "v1"} {
					d, err := r.byName(name)
					if err := errors.Join(err, r.settle(d, settings{})); err != nil {
						return err
					}
					index[name] = d.Index
				}
				for _, route := range tt.routes {
					if err := addRoute(r, index[route.device], route.to, route.metric, route.multipath); err != nil {
						return err
					}
				}
				got, err := DefaultRouteInterface(t.Context())
				if got != tt.want || (tt.want == "") != errors.Is(err, ErrNoInterface) {
					t.Errorf("got %q, %v, want %q", got, err, tt.want)
				}
				return nil
			})
		})
	}
}

func TestHostInterfaceTellsWhatItIsUsedFor(t *testing.T) {
	onTestHost(t, func(r *rtnl) error {
		if err := r.addVeth("v0", "v1"); err != nil {
			return err
		}
		d, err := r.byName("v0")
		if err := errors.Join(err, r.settle(d, settings{altName: "the_host_s_own_interface"})); err != nil {
			return err
		}
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 1, 2, 3), Mask: net.CIDRMask(24, 32)}}
		err = errors.Join(r.h.AddrAdd(ref(d.Index), addr), addRoute(r, d.Index, "0.0.0.0/0", 0, false))
		if err != nil {
			return err
		}
		for _, name := range []string{"v0", "the_host_s_own_interface"} {
			i, err := HostInterface(t.Context(), name)
			if err != nil {
				return err
			}
			if i.Name != "v0" || !i.Up || !i.DefaultRoute || !slices.Equal(i.Addresses, []string{"10.1.2.3/24"}) {
				t.Errorf("%s: %+v", name, i)
			}
		}
		i, err := HostInterface(t.Context(), "v1")
		if i.Up || i.DefaultRoute || len(i.Addresses) > 0 || i.Master != "" {
			t.Errorf("unused: %+v", i)
		}
		return err
	})
}

func TestHostInterfaceInABridge(t *testing.T) {
	onTestHost(t, func(r *rtnl) error {
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br"}}
		if err := errors.Join(r.h.LinkAdd(bridge), r.addVeth("v0", "v1")); err != nil {
			return err
		}
		d, err := r.byName("v0")
		if err := errors.Join(err, r.settle(d, settings{}), r.h.LinkSetMaster(ref(d.Index), bridge)); err != nil {
			return err
		}
		i, err := r.hostInterface("v0")
		if i.Master != "br" {
			t.Errorf("%+v", i)
		}
		if err := available(External{Host: "v0"}, i); !errors.Is(err, ErrInUse) {
			t.Errorf("available: %v", err)
		}
		return err
	})
}

func TestHostInterfaceWithoutIt(t *testing.T) {
	needRoot(t)
	if _, err := HostInterface(t.Context(), testPrefix+"none"); !errors.Is(err, ErrNoInterface) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := HostInterface(ctx, "lo"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
