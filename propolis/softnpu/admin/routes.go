package admin

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/falcon-vm/falcon-go/propolis/softnpu"
)

// A route of sidecar-lite is an entry in two tables: one from a prefix to the
// number of a path, and one from that to a port and the next hop.

func tableIndex(version int) string { return fmt.Sprintf("ingress.router.v%d_idx.rtr", version) }
func tablePath(version int) string  { return fmt.Sprintf("ingress.router.v%d_route.rtr", version) }

const (
	actionIndex = "index"
	maxVLAN     = 4094
)

func addRouteCommand(set *settings, version int) *cobra.Command {
	vlan := 0
	c := set.command(verb{
		fmt.Sprintf("add-route%d DST MASK PORT NEXTHOP", version), fmt.Sprintf("Add an IPv%d route", version), cobra.ExactArgs(4),
		func(ctx context.Context, s *session, args []string) error {
			return addRoute(ctx, s, version, vlan, args)
		},
	})
	c.Flags().IntVar(&vlan, "vlan", 0, "VLAN of the next hop")
	return c
}

// prefixKey reads the prefix of a route.
func prefixKey(version int, dst, mask string) (softnpu.Octets, error) {
	a, err := parseAddress(version, dst)
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(mask)
	if err != nil || n < 0 || n > a.BitLen() {
		return nil, fmt.Errorf("%q is not a mask: want the length of the prefix, 0 to %d", mask, a.BitLen())
	}
	p, err := a.Prefix(n)
	if err != nil {
		return nil, err
	}
	if p.Addr() != a {
		return nil, fmt.Errorf("%s has bits outside of the prefix: the route would be to %s", dst, p)
	}
	return append(a.AsSlice(), byte(n)), nil
}

// path returns the action and the parameters of the second entry of a route.
func path(version, vlan int, port, nexthop string) (action string, params softnpu.Octets, err error) {
	hop := version
	if action = "forward"; vlan != 0 {
		action = "forward_vlan"
	}
	// IPv4 goes by way of IPv6 neighbours too.
	if _, err := parseAddress(4, nexthop); version == 4 && err != nil {
		hop = 6
		action += "_v6"
	}
	words, args := []word{number(16), address(hop)}, []string{port, nexthop}
	if vlan != 0 {
		if vlan < 1 || vlan > maxVLAN {
			return "", nil, fmt.Errorf("VLAN %d: want 1 to %d", vlan, maxVLAN)
		}
		words, args = append(words, number(16)), append(args, strconv.Itoa(vlan))
	}
	params, err = join(words, args)
	if err != nil && hop != version {
		err = fmt.Errorf("%q is not the address of a next hop", nexthop)
	}
	return action, params, err
}

func addRoute(ctx context.Context, s *session, version, vlan int, args []string) error {
	prefix, err := prefixKey(version, args[0], args[1])
	if err != nil {
		return err
	}
	action, params, err := path(version, vlan, args[2], args[3])
	if err != nil {
		return err
	}
	index, err := addPath(ctx, s, tablePath(version), prefix, action, params)
	if err != nil {
		return err
	}
	oneSlot := append(bytes.Clone(index), 1)
	err = s.Ask(ctx, softnpu.TableAdd{Table: tableIndex(version), Action: actionIndex, Keys: prefix, Arguments: oneSlot}, nil)
	if err != nil {
		// Half a route is of no use.
		undone := s.Ask(ctx, softnpu.TableRemove{Table: tablePath(version), Keys: index}, nil)
		return errors.Join(err, undone)
	}
	return nil
}

// addPath adds a path for a prefix under a number that none has. It begins
// with one that follows from the prefix, since to ask for those in use takes
// long over a serial port.
func addPath(ctx context.Context, s *session, table string, prefix []byte, action string, params softnpu.Octets) (index softnpu.Octets, err error) {
	// Others may mean nothing by path 0.
	const paths = 1<<16 - 1
	h := fnv.New32a()
	_, _ = h.Write(prefix) // it never fails
	first := h.Sum32() % paths
	for i := range uint32(paths) {
		index = binary.LittleEndian.AppendUint16(nil, uint16(1+(first+i)%paths))
		err = s.Ask(ctx, softnpu.TableAdd{Table: table, Action: action, Keys: index, Arguments: params}, nil)
		if !softnpu.Refused(err, softnpu.CodeExists) {
			return index, err
		}
	}
	return nil, fmt.Errorf("all %d paths are in use: %w", paths, err)
}

func removeRoute(version int) func(context.Context, *session, []string) error {
	return func(ctx context.Context, s *session, args []string) error {
		prefix, err := prefixKey(version, args[0], args[1])
		if err != nil {
			return err
		}
		var route softnpu.DumpEntry
		if err := s.Ask(ctx, softnpu.TableGet{Table: tableIndex(version), Keys: prefix}, &route); err != nil {
			return err
		}
		if err := s.Ask(ctx, softnpu.TableRemove{Table: tableIndex(version), Keys: prefix}, nil); err != nil {
			return err
		}
		if len(route.Arguments) != 3 || route.Arguments[2] != 1 {
			return nil // several paths, or none: somebody else has set them
		}
		err = s.Ask(ctx, softnpu.TableRemove{Table: tablePath(version), Keys: route.Arguments[:2]}, nil)
		if softnpu.Refused(err, softnpu.CodeNoEntry) {
			return nil // a route to nowhere
		}
		return err
	}
}
