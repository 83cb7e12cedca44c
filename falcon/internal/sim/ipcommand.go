package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/falcon-vm/falcon-go/propolis/server"
)

// guestOff is the event of a guest that turns itself off.
var guestOff = server.Event{Kind: server.Shutdown, ByGuest: true}

// flags and state are those of ip. An interface that is up has its carrier from
// the hypervisor, whoever is at the other end. The caller holds mu.
func (n *nic) flags() []string {
	flags := []string{"BROADCAST", "MULTICAST"}
	if n.up {
		flags = append(flags, "UP", "LOWER_UP")
	}
	return flags
}

func (n *nic) state() string {
	if n.up {
		return "UP"
	}
	return "DOWN"
}

// ipOptions are the options before the object of ip.
type ipOptions struct{ oneLine, brief, json, v6 bool }

// ip is the part of ip(8) that concerns links and addresses of IPv4.
func (c *command) ip() int {
	var o ipOptions
	args := c.args[1:]
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		switch args[0] {
		case "-o", "-oneline":
			o.oneLine = true
		case "-br", "-brief":
			o.brief = true
		case "-j", "-json":
			o.json = true
		case "-6":
			o.v6 = true
		}
		args = args[1:]
	}
	if len(args) == 0 {
		return c.fail("want an object: link, address, route or neighbour")
	}
	object, args := args[0], args[1:]
	verb := "show"
	if len(args) > 0 {
		verb, args = args[0], args[1:]
	}
	is := func(word, full string) bool { return word != "" && strings.HasPrefix(full, word) }
	show := is(verb, "show") || is(verb, "list") || verb == "ls" || verb == "lst"
	switch {
	case is(object, "link") && show:
		return c.showLinks(o, args, false)
	case is(object, "link") && verb == "set":
		return c.setLink(args)
	case (is(object, "address") || object == "addr") && show:
		return c.showLinks(o, args, true)
	case (is(object, "address") || object == "addr") && slices.Contains([]string{"add", "a", "replace", "del", "delete", "flush"}, verb):
		return c.setAddress(verb, args)
	case is(object, "route") && show:
		return c.showRoutes()
	case is(object, "neighbour") || is(object, "neighbor"):
		return c.showNeighbours()
	}
	return c.fail("%s %s is not part of the simulated guest", object, verb)
}

// chosen returns the interfaces that arguments such as "dev eth0" name.
func (c *command) chosen(args []string) ([]*nic, int) {
	name := ""
	upOnly := false
	for _, a := range args {
		switch a {
		case "dev":
		case "up":
			upOnly = true
		default:
			name = a
		}
	}
	var nics []*nic
	for _, n := range c.life.nics {
		n.mu.Lock()
		if (name == "" || n.name == name) && (!upOnly || n.up) {
			nics = append(nics, n)
		}
		n.mu.Unlock()
	}
	if name != "" && name != "lo" && len(nics) == 0 {
		fmt.Fprintf(c.err, "Device %q does not exist.\n", name)
		return nil, 1
	}
	return nics, 0
}

func (c *command) showLinks(o ipOptions, args []string, addresses bool) int {
	nics, status := c.chosen(args)
	if status != 0 {
		return status
	}
	name := ""
	if len(args) > 0 {
		name = args[len(args)-1]
	}
	var docs []map[string]any
	if name == "" || name == "lo" {
		docs = append(docs, c.loopback(o, addresses))
	}
	for _, n := range nics {
		docs = append(docs, c.showLink(o, n, addresses))
	}
	if o.json {
		_ = json.NewEncoder(c.out).Encode(docs)
	}
	return 0
}

func (c *command) loopback(o ipOptions, addresses bool) map[string]any {
	doc := map[string]any{"ifindex": 1, "ifname": "lo", "flags": []string{"LOOPBACK", "UP", "LOWER_UP"}, "mtu": 65536, "operstate": "UNKNOWN",
		"link_type": "loopback", "address": "00:00:00:00:00:00", "broadcast": "00:00:00:00:00:00"}
	addr := netip.MustParsePrefix("127.0.0.1/8")
	doc["addr_info"] = addrInfo([]netip.Prefix{addr}, "lo", "host")
	if !o.json {
		c.printLink(o, 1, "lo", "LOOPBACK,UP,LOWER_UP", 65536, "UNKNOWN", "loopback", make(net.HardwareAddr, 6), make(net.HardwareAddr, 6), []netip.Prefix{addr}, addresses)
	}
	return doc
}

func addrInfo(addrs []netip.Prefix, name, scope string) []map[string]any {
	infos := []map[string]any{}
	for _, a := range addrs {
		infos = append(infos, map[string]any{"family": "inet", "local": a.Addr().String(), "prefixlen": a.Bits(), "scope": scope, "label": name})
	}
	return infos
}

func (c *command) showLink(o ipOptions, n *nic, addresses bool) map[string]any {
	n.mu.Lock()
	defer n.mu.Unlock()
	index := slices.Index(c.life.nics, n) + 2
	doc := map[string]any{"ifindex": index, "ifname": n.name, "flags": n.flags(), "mtu": n.mtu, "operstate": n.state(),
		"link_type": "ether", "address": n.mac.String(), "broadcast": broadcast.String()}
	if addresses {
		doc["addr_info"] = addrInfo(n.addrs, n.name, "global")
	}
	if !o.json {
		c.printLink(o, index, n.name, strings.Join(n.flags(), ","), n.mtu, n.state(), "ether", n.mac, broadcast, n.addrs, addresses)
	}
	return doc
}

func (c *command) printLink(o ipOptions, index int, name, flags string, mtu int, state, kind string, mac, all net.HardwareAddr, addrs []netip.Prefix, addresses bool) {
	if o.v6 {
		addrs = nil
	}
	switch {
	case o.brief && addresses:
		c.printf("%-16s %-14s ", name, state)
		for _, a := range addrs {
			c.printf("%s ", a)
		}
		c.printf("\n")
	case o.brief:
		c.printf("%-16s %-14s %s <%s> \n", name, state, mac, flags)
	case o.oneLine && addresses:
		for _, a := range addrs {
			c.printf("%d: %s    inet %s scope global %s\\       valid_lft forever preferred_lft forever\n", index, name, a, name)
		}
	default:
		end := "\n"
		if o.oneLine {
			end = "\\"
		}
		c.printf("%d: %s: <%s> mtu %d qdisc pfifo_fast state %s mode DEFAULT group default qlen 1000%s    link/%s %s brd %s\n", index, name, flags, mtu, state, end, kind, mac, all)
		if !addresses {
			return
		}
		for _, a := range addrs {
			c.printf("    inet %s scope global %s\n       valid_lft forever preferred_lft forever\n", a, name)
		}
	}
}

// device returns the interface of a name.
func (c *command) device(name string) *nic {
	for _, n := range c.life.nics {
		n.mu.Lock()
		found := n.name == name
		n.mu.Unlock()
		if found {
			return n
		}
	}
	return nil
}

func (c *command) setLink(args []string) int {
	if len(args) > 0 && args[0] == "dev" {
		args = args[1:]
	}
	if len(args) == 0 {
		return c.fail("not enough information: \"dev\" argument is required.")
	}
	if args[0] == "lo" {
		return 0
	}
	n := c.device(args[0])
	if n == nil {
		fmt.Fprintf(c.err, "Cannot find device %q\n", args[0])
		return 1
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for args = args[1:]; len(args) > 0; args = args[1:] {
		switch word := args[0]; word {
		case "up":
			n.up = true
			continue
		case "down":
			n.up = false
			clear(n.arp)
			continue
		case "arp", "dynamic", "multicast", "promisc":
		case "address", "mtu", "name", "txqueuelen", "qlen":
			if len(args) < 2 {
				return c.fail("Command line is not complete. Try option \"help\"")
			}
			if err := n.set(word, args[1]); err != nil {
				return c.fail("%v", err)
			}
		default:
			return c.fail("either \"dev\" is duplicate, or %q is a garbage.", word)
		}
		args = args[1:]
	}
	return 0
}

// set changes a property of the interface. The caller holds mu.
func (n *nic) set(what, value string) error {
	switch what {
	case "address":
		mac, err := net.ParseMAC(value)
		if err != nil || len(mac) != 6 {
			return fmt.Errorf("%q is invalid lladdr", value)
		}
		n.mac = mac
	case "mtu":
		mtu, err := strconv.Atoi(value)
		if err != nil || mtu < 68 || mtu > n.maxMTU {
			return errors.New("mtu greater than device maximum")
		}
		n.mtu = mtu
	case "name":
		if n.up {
			return errors.New("RTNETLINK answers: Device or resource busy")
		}
		n.name = value
	}
	return nil
}

func (c *command) setAddress(verb string, args []string) int {
	var name string
	var addr netip.Prefix
	for i := 0; i < len(args); i++ {
		switch args[i] {
		case "dev":
			if i++; i < len(args) {
				name = args[i]
			}
		case "brd", "broadcast", "scope", "label":
			i++
		default:
			text := args[i]
			if !strings.Contains(text, "/") {
				text += "/32"
			}
			p, err := netip.ParsePrefix(text)
			if err != nil && verb == "flush" {
				name = args[i]
				continue
			}
			if err != nil {
				fmt.Fprintf(c.err, "Error: any valid prefix is expected rather than %q.\n", args[i])
				return 1
			}
			addr = p
		}
	}
	if name == "lo" {
		return 0
	}
	n := c.device(name)
	if n == nil {
		fmt.Fprintf(c.err, "Cannot find device %q\n", name)
		return 1
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	there := slices.Contains(n.addrs, addr)
	switch {
	case verb == "flush":
		n.addrs = nil
	case strings.HasPrefix(verb, "d") && !there:
		fmt.Fprintln(c.err, "RTNETLINK answers: Cannot assign requested address")
		return 2
	case strings.HasPrefix(verb, "d"):
		n.addrs = slices.DeleteFunc(n.addrs, func(a netip.Prefix) bool { return a == addr })
	case there && verb != "replace":
		fmt.Fprintln(c.err, "RTNETLINK answers: File exists")
		return 2
	case !there:
		n.addrs = append(n.addrs, addr)
	}
	return 0
}

func (c *command) showRoutes() int {
	for _, n := range c.life.nics {
		n.mu.Lock()
		for _, a := range n.addrs {
			if n.up && a.Addr().Is4() && a.Bits() < 32 {
				c.printf("%s dev %s scope link src %s\n", a.Masked(), n.name, a.Addr())
			}
		}
		n.mu.Unlock()
	}
	return 0
}

func (c *command) showNeighbours() int {
	for _, n := range c.life.nics {
		n.mu.Lock()
		for ip, mac := range n.arp {
			c.printf("%s dev %s lladdr %s REACHABLE\n", ip, n.name, mac)
		}
		n.mu.Unlock()
	}
	return 0
}

// ping sends echo requests to an address in the network of an interface.
func (c *command) ping() int {
	given, args := c.options("ciWwsIt")
	if len(args) == 0 {
		return c.fail("missing host")
	}
	to, err := netip.ParseAddr(args[0])
	if err != nil && args[0] == "localhost" {
		to, err = netip.MustParseAddr("127.0.0.1"), nil
	}
	if err != nil {
		return c.fail("bad address '%s'", args[0])
	}
	number := func(option byte, value float64) float64 {
		if f, err := strconv.ParseFloat(given[option], 64); err == nil {
			return f
		}
		return value
	}
	count, size := int(number('c', 0)), int(number('s', 56))
	interval, wait := seconds(number('i', 1)), seconds(number('W', 10))
	var deadline <-chan time.Time
	if w := number('w', 0); w > 0 {
		deadline = time.After(seconds(w))
	}
	quiet := has(given, 'q')
	c.printf("PING %s (%s): %d data bytes\n", args[0], to, size)
	id := uint16(rand.Uint32())
	sent, got := 0, 0
loop:
	for sent < count || count == 0 {
		seq := uint16(sent)
		sent++
		took, err := c.pingOnce(to, echo{id, seq}, size, wait)
		switch {
		case c.ctx.Err() != nil:
			break loop
		case err == nil:
			got++
			if !quiet {
				c.printf("%d bytes from %s: seq=%d ttl=64 time=%.3f ms\n", size+8, to, seq, float64(took.Microseconds())/1000)
			}
		case errors.Is(err, errUnreachable) && c.route(to) == nil && !to.IsLoopback():
			return c.fail("sendto: Network is unreachable")
		}
		if sent == count {
			break
		}
		select {
		case <-time.After(interval):
		case <-deadline:
			break loop
		case <-c.ctx.Done():
			break loop
		}
	}
	c.printf("\n--- %s ping statistics ---\n%d packets transmitted, %d packets received, %d%% packet loss\n", args[0], sent, got, (sent-got)*100/max(sent, 1))
	if got == 0 {
		return 1
	}
	return 0
}

func seconds(f float64) time.Duration { return time.Duration(f * float64(time.Second)) }

// route returns the interface in whose network an address is.
func (c *command) route(to netip.Addr) *nic {
	for _, n := range c.life.nics {
		if _, ok := n.source(to); ok {
			return n
		}
	}
	return nil
}

func (c *command) pingOnce(to netip.Addr, e echo, size int, wait time.Duration) (time.Duration, error) {
	if to.IsLoopback() {
		return 0, nil
	}
	n := c.route(to)
	if n == nil {
		return 0, errUnreachable
	}
	ctx, cancel := context.WithTimeout(c.ctx, wait)
	defer cancel()
	return n.ping(ctx, to, e, size)
}
