package link

import (
	"context"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// HostInterface describes an interface of the host, by kernel or alternative
// name; the error is ErrNoInterface when there is none.
func HostInterface(ctx context.Context, name string) (Interface, error) {
	if err := ctx.Err(); err != nil {
		return Interface{}, err
	}
	r, err := openRTNL()
	if err != nil {
		return Interface{}, err
	}
	defer r.close()
	found, err := r.hostInterface(name)
	return found, opError("look at interface", name, err, "")
}

func (r *rtnl) hostInterface(name string) (Interface, error) {
	d, err := r.byName(name)
	if err != nil {
		return Interface{}, err
	}
	all, err := r.devices()
	if err != nil {
		return Interface{}, err
	}
	found := Interface{Device: d.Device}
	for _, other := range all {
		if other.Index == d.master {
			found.Master = other.Name
		}
		if other.parent == d.Index && (other.kind == kindMacvtap || other.kind == "macvlan") {
			found.Macvtaps = append(found.Macvtaps, other.Name)
			found.Passthru = found.Passthru || other.passthru
		}
	}
	slices.Sort(found.Macvtaps)
	if found.Addresses, err = r.addresses(d.Index); err != nil {
		return Interface{}, err
	}
	defaults, err := r.defaultRoutes()
	found.DefaultRoute = slices.Contains(defaults, d.Index)
	return found, err
}

// DefaultRouteInterface returns the name of the interface that the host's
// default route leads over: IPv4's where there is one, else IPv6's. The error
// is ErrNoInterface when there is no default route.
func DefaultRouteInterface(ctx context.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	r, err := openRTNL()
	if err != nil {
		return "", err
	}
	defer r.close()
	defaults, err := r.defaultRoutes()
	if err != nil {
		return "", err
	}
	if len(defaults) == 0 {
		return "", opError("find the default route", "", ErrNoInterface, "name an interface of the host")
	}
	l, err := r.h.LinkByIndex(defaults[0])
	if err != nil {
		return "", opError("find the default route's interface", "", err, "")
	}
	return l.Attrs().Name, nil
}

// addresses returns the IP addresses of a device, with prefix length.
func (r *rtnl) addresses(index int) ([]string, error) {
	addrs, err := dump(func() ([]netlink.Addr, error) { return r.h.AddrList(ref(index), netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var found []string
	for _, a := range addrs {
		found = append(found, a.IPNet.String())
	}
	return found, nil
}

// defaultRoutes returns the devices that default routes of the main table
// lead over: IPv4 before IPv6, then the lower metric first.
func (r *rtnl) defaultRoutes() ([]int, error) {
	var found []int
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := dump(func() ([]netlink.Route, error) {
			return r.h.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		slices.SortStableFunc(routes, func(a, b netlink.Route) int { return a.Priority - b.Priority })
		for _, route := range routes {
			if route.Type == unix.RTN_UNICAST && isDefault(route) {
				found = append(found, hops(route)...)
			}
		}
	}
	return found, nil
}

func isDefault(r netlink.Route) bool {
	if r.Dst == nil {
		return true
	}
	ones, _ := r.Dst.Mask.Size()
	return ones == 0 && r.Dst.IP.IsUnspecified()
}

func hops(r netlink.Route) []int {
	if len(r.MultiPath) == 0 {
		return []int{r.LinkIndex}
	}
	var all []int
	for _, hop := range r.MultiPath {
		all = append(all, hop.LinkIndex)
	}
	return all
}
