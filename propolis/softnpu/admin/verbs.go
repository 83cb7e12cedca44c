package admin

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/falcon-vm/falcon-go/propolis/softnpu"
)

// Tables of sidecar-lite that are the same for both versions of IP, and the
// actions that npuadm uses.
const (
	tableMAC      = "ingress.mac.mac_rewrite"
	tableProxyARP = "ingress.pxarp.proxy_arp"

	actionLocal    = "local"
	actionResolve  = "rewrite_dst"
	actionMAC      = "rewrite"
	actionNAT      = "forward_to_sled"
	actionProxyARP = "proxy_arp_reply"
)

func tableLocal(version int) string {
	return fmt.Sprintf("ingress.local.local_v%d", version)
}

func tableResolver(version int) string {
	return fmt.Sprintf("ingress.resolver.resolver_v%d", version)
}

func tableNAT(version int) string {
	return fmt.Sprintf("ingress.nat.nat_v%d", version)
}

// details is what the help of some commands says besides.
var details = map[string]string{
	"add": entryDetails, "remove": entryDetails,
	"entries": `Direct is what a direct counter of the table has counted.`,
	"read": `Without FIRST all cells are printed, which are counted from 0, and without COUNT
one. A cell of a register has one value, or those of the fields of its struct.`,
	"write": `A register is set to its value, or to those of the fields of its struct; a counter
to PACKETS BYTES; a meter to its committed rate and burst and its peak rate and
burst, in bytes or packets a second as the program says.

  write ingress.seen 3 0
  write ingress.limit 0 1000 2000 5000 10000`,
	"trace": `It is as if the packet came in by the port, but that it leaves by none; what the
program itself counts counts it. Blanks and colons in it mean nothing.`,
	"counters": `Received is what came in by a port, and sent what left by it. Of what came in,
dropped is what the program sent nowhere, refused what it could not take,
misdirected what it sent to a port that there is not, and looped what it sent
round too often. Lost is what was to leave by the port when nobody read there.`,
	"load-program": `If it does not compile, its errors are printed and the running program stays.
Otherwise all tables are as the new one has them. An ASIC that is powered off
forgets it: a topology names its program by SoftNPUProgram.`,
	"restore": `Entries that are there already stay, those that do something else are replaced,
and others are left alone.`,
}

const entryDetails = `Tables and their keys and actions are those that "tables" prints. A key is VALUE
where the table wants it exact, VALUE/LENGTH for lpm, VALUE&&&MASK for ternary,
LOW..HIGH for range, and _ for any value. Values are numbers, in hexadecimal
after 0x, or addresses of IPv4, IPv6 or Ethernet.

  add ingress.router.v4_idx.rtr index 10.0.9.0/24 5 1
  remove ingress.router.v4_idx.rtr 10.0.9.0/24`

// verbs returns the commands that take no flags of their own.
func verbs() []verb {
	all := []verb{
		{"port-count", "Print the number of front ports", cobra.ExactArgs(0), portCount},
		{"counters", "Print what has passed each port", cobra.ExactArgs(0), counters},
		{"tables", "Print the tables of the program, with their keys and actions", cobra.ExactArgs(0), tables},
		{"dump-state", "Print the entries of all tables", cobra.ExactArgs(0), dumpState},
		{"trace PORT PACKET", "Run a packet, given in hexadecimal, and print its way through the program", cobra.MinimumNArgs(2), trace},
		{"entries TABLE", "Print the entries of a table, with their priorities and what they have counted", cobra.ExactArgs(1), entries},
		{"defaults", "Print the actions that tables run when no entry matches", cobra.ExactArgs(0), defaults},
		{"set-default TABLE ACTION [ARGUMENT...]", "Set the action that a table runs when no entry matches", cobra.MinimumNArgs(2), setDefault},
		{"arrays", "Print the registers, counters and meters of the program", cobra.ExactArgs(0), arrays},
		{"read ARRAY [FIRST [COUNT]]", "Print cells of a register, counter or meter", cobra.RangeArgs(1, 3), readCells},
		{"write ARRAY INDEX VALUE...", "Set a cell of a register, counter or meter", cobra.MinimumNArgs(3), writeCell},
		{"load-program FILE.p4", "Have the ASIC run another P4 program, which this reads with all that it includes", cobra.ExactArgs(1), loadProgram},

		{"set-mac PORT MAC", "Set the source address of what leaves a port", cobra.ExactArgs(2),
			adds(tableMAC, actionMAC, 1, number(16), mac)},
		{"clear-mac PORT", "Leave the source address of what leaves a port alone", cobra.ExactArgs(1),
			removes(tableMAC, number(16))},
		{"add-proxy-arp BEGIN END MAC", "Answer ARP for a range of addresses", cobra.ExactArgs(3),
			adds(tableProxyARP, actionProxyARP, 2, address(4), address(4), mac)},
		{"remove-proxy-arp BEGIN END", "Answer ARP for a range no more", cobra.ExactArgs(2),
			removes(tableProxyARP, address(4), address(4))},

		{"add-arp-entry ADDRESS MAC", "Set the MAC address of an IPv4 neighbour", cobra.ExactArgs(2),
			adds(tableResolver(4), actionResolve, 1, address(4), mac)},
		{"remove-arp-entry ADDRESS", "Forget the MAC address of an IPv4 neighbour", cobra.ExactArgs(1),
			removes(tableResolver(4), address(4))},
		{"add-ndp-entry ADDRESS MAC", "Set the MAC address of an IPv6 neighbour", cobra.ExactArgs(2),
			adds(tableResolver(6), actionResolve, 1, address(6), mac)},
		{"remove-ndp-entry ADDRESS", "Forget the MAC address of an IPv6 neighbour", cobra.ExactArgs(1),
			removes(tableResolver(6), address(6))},
	}
	for _, v := range []int{4, 6} {
		n := strconv.Itoa(v)
		all = append(all,
			verb{"remove-route" + n + " DST MASK", "Remove an IPv" + n + " route", cobra.ExactArgs(2), removeRoute(v)},
			verb{"add-address" + n + " ADDRESS", "Hand packets to an IPv" + n + " address to the CPU", cobra.ExactArgs(1),
				adds(tableLocal(v), actionLocal, 1, address(v))},
			verb{"remove-address" + n + " ADDRESS", "Hand packets to an IPv" + n + " address to the CPU no more", cobra.ExactArgs(1),
				removes(tableLocal(v), address(v))},
			verb{"add-nat" + n + " DST BEGIN END TARGET VNI MAC", "Send a range of an address' ports to a sled", cobra.ExactArgs(6),
				adds(tableNAT(v), actionNAT, 3, address(v), number(16), number(16), address(6), number(24), mac)},
			verb{"remove-nat" + n + " DST BEGIN END", "Send a range of an address' ports to a sled no more", cobra.ExactArgs(3),
				removes(tableNAT(v), address(v), number(16), number(16))})
	}
	return all
}

// word reads an argument of the command line as a value of a table: its bytes
// as they go over the channel, little-endian.
type word func(s string) ([]byte, error)

func number(bits int) word {
	return func(s string) ([]byte, error) {
		n, err := strconv.ParseUint(s, 0, 64)
		if err != nil || n>>bits != 0 {
			return nil, fmt.Errorf("%q is not a number from 0 to %d", s, uint64(1)<<bits-1)
		}
		b := make([]byte, (bits+7)/8)
		for i := range b {
			b[i] = byte(n >> (8 * i))
		}
		return b, nil
	}
}

func address(version int) word {
	return func(s string) ([]byte, error) {
		a, err := parseAddress(version, s)
		if err != nil {
			return nil, err
		}
		b := a.AsSlice()
		slices.Reverse(b)
		return b, nil
	}
}

func parseAddress(version int, s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || a.Is4() != (version == 4) {
		return netip.Addr{}, fmt.Errorf("%q is not an IPv%d address", s, version)
	}
	return a, nil
}

func mac(s string) ([]byte, error) {
	b, err := net.ParseMAC(s)
	if err != nil || len(b) != 6 {
		return nil, fmt.Errorf("%q is not a MAC address", s)
	}
	slices.Reverse(b)
	return b, nil
}

// join reads arguments into the bytes of keys or parameters.
func join(words []word, args []string) (softnpu.Octets, error) {
	all := softnpu.Octets{}
	for i, w := range words {
		b, err := w(args[i])
		if err != nil {
			return nil, err
		}
		all = append(all, b...)
	}
	return all, nil
}

// adds returns the run of a verb that adds an entry, whose first arguments are
// the keys and the others the parameters.
func adds(table, action string, keys int, words ...word) func(context.Context, *session, []string) error {
	return func(ctx context.Context, s *session, args []string) error {
		k, err := join(words[:keys], args)
		if err != nil {
			return err
		}
		p, err := join(words[keys:], args[keys:])
		if err != nil {
			return err
		}
		return s.Ask(ctx, softnpu.TableAdd{Table: table, Action: action, Keys: k, Arguments: p}, nil)
	}
}

// removes returns the run of a verb that removes an entry.
func removes(table string, words ...word) func(context.Context, *session, []string) error {
	return func(ctx context.Context, s *session, args []string) error {
		k, err := join(words, args)
		if err != nil {
			return err
		}
		return s.Ask(ctx, softnpu.TableRemove{Table: table, Keys: k}, nil)
	}
}

func portCount(ctx context.Context, s *session, _ []string) error {
	var n int
	if err := s.Ask(ctx, softnpu.RadixRequest{}, &n); err != nil {
		return err
	}
	_, err := fmt.Fprintln(s.out, n)
	return err
}
