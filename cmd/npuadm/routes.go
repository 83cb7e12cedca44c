package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
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
	c := &cobra.Command{
		Use:   fmt.Sprintf("add-route%d DST MASK PORT NEXTHOP", version),
		Short: fmt.Sprintf("Add an IPv%d route", version), Args: cobra.ExactArgs(4), DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return set.session(cmd, args, func(ctx context.Context, s *session, args []string) error {
				return addRoute(ctx, s, version, vlan, args)
			})
		},
	}
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
	var dump softnpu.Dump
	if err := s.ask(ctx, softnpu.DumpRequest{}, &dump); err != nil {
		return err
	}
	index, there, err := choosePath(dump[tablePath(version)], action, params)
	if err != nil {
		return err
	}
	if !there {
		if err := s.ask(ctx, softnpu.TableAdd{Table: tablePath(version), Action: action, Keys: index, Arguments: params}, nil); err != nil {
			return err
		}
	}
	oneSlot := append(bytes.Clone(index), 1)
	err = s.ask(ctx, softnpu.TableAdd{Table: tableIndex(version), Action: actionIndex, Keys: prefix, Arguments: oneSlot}, nil)
	if err != nil && !there {
		// Half a route is of no use.
		undone := s.ask(ctx, softnpu.TableRemove{Table: tablePath(version), Keys: index}, nil)
		return errors.Join(err, undone)
	}
	return err
}

// choosePath returns the number of a path that does as is wanted, or of none.
func choosePath(paths []softnpu.DumpEntry, action string, params []byte) (index softnpu.Octets, there bool, err error) {
	used := make(map[uint16]bool, len(paths))
	for _, p := range paths {
		if len(p.Keys) != 2 {
			return nil, false, errors.New("the program has no routes as sidecar-lite has them")
		}
		if p.Action == action && bytes.Equal(p.Arguments, params) {
			return p.Keys, true, nil
		}
		used[binary.LittleEndian.Uint16(p.Keys)] = true
	}
	// Others may mean nothing by path 0.
	for n := uint16(1); n != 0; n++ {
		if !used[n] {
			return binary.LittleEndian.AppendUint16(nil, n), false, nil
		}
	}
	return nil, false, errors.New("all 65535 paths are in use")
}

func removeRoute(version int) func(context.Context, *session, []string) error {
	return func(ctx context.Context, s *session, args []string) error {
		prefix, err := prefixKey(version, args[0], args[1])
		if err != nil {
			return err
		}
		var dump softnpu.Dump
		if err := s.ask(ctx, softnpu.DumpRequest{}, &dump); err != nil {
			return err
		}
		if err := s.ask(ctx, softnpu.TableRemove{Table: tableIndex(version), Keys: prefix}, nil); err != nil {
			return err
		}
		index := lonePath(dump[tableIndex(version)], prefix)
		if index == nil {
			return nil
		}
		return s.ask(ctx, softnpu.TableRemove{Table: tablePath(version), Keys: index}, nil)
	}
}

// lonePath returns the number of the path that a prefix has for itself, nil if
// another has it too.
func lonePath(prefixes []softnpu.DumpEntry, prefix []byte) softnpu.Octets {
	first := func(e softnpu.DumpEntry) (index int, slots int, ok bool) {
		if e.Action != actionIndex || len(e.Arguments) != 3 {
			return 0, 0, false
		}
		return int(binary.LittleEndian.Uint16(e.Arguments)), int(e.Arguments[2]), true
	}
	own := -1
	for _, e := range prefixes {
		if index, slots, ok := first(e); ok && bytes.Equal(e.Keys, prefix) && slots == 1 {
			own = index
		}
	}
	if own < 0 {
		return nil // it had several, which somebody else has set
	}
	for _, e := range prefixes {
		index, slots, ok := first(e)
		if ok && !bytes.Equal(e.Keys, prefix) && own >= index && own < index+max(slots, 1) {
			return nil
		}
	}
	return binary.LittleEndian.AppendUint16(nil, uint16(own))
}
