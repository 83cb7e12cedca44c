package link

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/go-multierror"
)

// createExternals makes the macvtaps of external links. They live in the
// host's namespace, because the interfaces under them do.
func createExternals(ctx context.Context, externals []External, undo *undoList) error {
	if len(externals) == 0 {
		return nil
	}
	r, err := openRTNL()
	if err != nil {
		return err
	}
	defer r.close()
	for _, x := range externals {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("external link %s: not made: %w", x.Name, err)
		}
		if err := r.ensureExternal(ctx, x, undo); err != nil {
			return fmt.Errorf("external link %s: %w", x.Name, err)
		}
	}
	return nil
}

func (r *rtnl) ensureExternal(ctx context.Context, x External, undo *undoList) error {
	host, err := r.hostInterface(x.Host)
	if err != nil {
		return opError("look at interface", x.Host, err, "`ip link` lists the host's interfaces")
	}
	d, err := r.byName(x.Device)
	switch {
	case errors.Is(err, ErrNoInterface):
		if d, err = r.addExternal(x, host, undo); err != nil {
			return err
		}
	case err != nil:
		return opError("look at", x.Device, err, "")
	case !isExternal(d, x, host.Index):
		return opError("create macvtap", x.Device,
			fmt.Errorf("%w: another device of the host has that name", ErrInUse), "")
	}
	if err := disableIPv6(d.Name); err != nil {
		return err
	}
	// Without this a macvtap passes only the multicast groups that the host
	// has joined on it: none.
	err = r.settle(d, settings{mac: x.MAC, altName: x.Name, noARP: true, allMulti: true})
	if err != nil {
		return opError("set up macvtap", x.Device, err, "")
	}
	return opError("provide the character device of", x.Device, ensureTapNode(ctx, d.Name, d.Index), "")
}

// isExternal tells whether d is the macvtap of x, made by an earlier Create,
// which may have been killed before it could give the full name.
func isExternal(d device, x External, host int) bool {
	return d.kind == kindMacvtap && d.parent == host && d.passthru == x.Exclusive &&
		(len(d.altNames) == 0 || slices.Contains(d.altNames, x.Name))
}

func (r *rtnl) addExternal(x External, host Interface, undo *undoList) (device, error) {
	if err := available(x, host); err != nil {
		return device{}, err
	}
	if err := r.addMacvtap(x.Device, host.Index, x.Exclusive); err != nil {
		return device{}, opError("create macvtap", x.Device+" on "+x.Host, err, "")
	}
	undo.externals = append(undo.externals, x)
	d, err := r.byName(x.Device)
	return d, opError("find the new device", x.Device, err, "")
}

// available reports why an interface of the host cannot be used.
func available(x External, host Interface) error {
	var why, fix string
	switch {
	case host.Passthru:
		why, fix = fmt.Sprintf("%s has it exclusively", host.Macvtaps[0]), "destroy the topology that uses it"
	case x.Exclusive && len(host.Macvtaps) > 0:
		why, fix = fmt.Sprintf("%s shares it", host.Macvtaps[0]), "destroy the topology that uses it"
	case host.Master != "":
		why, fix = "it belongs to "+host.Master, "use "+host.Master+" instead, or another interface"
	}
	if why != "" {
		return opError("use interface", x.Host, fmt.Errorf("%w: %s", ErrInUse, why), fix)
	}
	if !host.Up {
		return opError("use interface", x.Host, errors.New("it is down"), "ip link set "+x.Host+" up")
	}
	return nil
}

// DestroyExternals removes external links; their MACs may be missing. What is
// gone already is no error. A device of that name which is not a macvtap on
// the named interface, or has another full name, is somebody else's and stays.
func DestroyExternals(externals []External) error {
	if len(externals) == 0 {
		return nil
	}
	r, err := openRTNL()
	if err != nil {
		return err
	}
	defer r.close()
	var result *multierror.Error
	for _, x := range externals {
		if err := r.destroyExternal(x); err != nil {
			result = multierror.Append(result, fmt.Errorf("external link %s: %w", x.Name, err))
		}
	}
	return result.ErrorOrNil()
}

func (r *rtnl) destroyExternal(x External) error {
	host, err := r.byName(x.Host)
	if errors.Is(err, ErrNoInterface) {
		return nil // and the macvtap went with it
	}
	if err != nil {
		return err
	}
	d, err := r.byName(x.Device)
	if errors.Is(err, ErrNoInterface) {
		return nil
	}
	if err != nil {
		return err
	}
	if d.kind != kindMacvtap || d.parent != host.Index || len(d.altNames) > 0 && !slices.Contains(d.altNames, x.Name) {
		return nil
	}
	node, err := tapNodeOf(d.Name, d.Index)
	if err != nil {
		return err
	}
	if err := r.remove(d.Index); err != nil {
		return opError("remove macvtap", x.Device, err, "")
	}
	return node.remove()
}

// ExternalsOf returns the external links that stand whose full names end with a
// suffix.
func ExternalsOf(suffix string) ([]External, error) {
	all, err := listDevices()
	if err != nil {
		return nil, err
	}
	names := make(map[int]string, len(all))
	for _, d := range all {
		names[d.Index] = d.Name
	}
	var found []External
	for _, d := range all {
		for _, name := range d.altNames {
			if d.kind == kindMacvtap && strings.HasSuffix(name, suffix) {
				found = append(found, External{Name: name, Device: d.Name, Host: names[d.parent], Exclusive: d.passthru})
			}
		}
	}
	return found, nil
}

func inspectExternals(externals []External, found map[string]Device) error {
	if len(externals) == 0 {
		return nil
	}
	all, err := listDevices()
	for _, x := range externals {
		if d, ok := all[x.Device]; ok && slices.Contains(d.altNames, x.Name) {
			found[x.Name] = d.Device
		}
	}
	return err
}
