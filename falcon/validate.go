package falcon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path"
	"reflect"
	"regexp"
	"slices"

	"github.com/hashicorp/go-multierror"
)

// Limits of what can be declared.
const (
	// MaxName is the longest name of a topology or a node in bytes. Two
	// names and a suffix make a link's full name, which Linux limits to
	// 127 bytes (ALTIFNAMSIZ); a node's name is also its host name.
	MaxName = 32
	// MaxCores is the largest number of processors of a node: Propolis'
	// API carries it in eight bits.
	MaxCores = 255
	// MinMemory is the least memory with which a Linux kernel starts.
	MinMemory = Bytes(32 << 20)
	// MaxMemory is more than any host of today has; beyond it the number
	// is a mistake of units.
	MaxMemory = Bytes(16 << 40)
	// MaxMTU is the largest MTU of a link, that of jumbo frames on switch
	// ASICs (and of SoftNPU's ports).
	MaxMTU = 9216
	// maxDisk is the largest disk that qcow2 with 64 KiB clusters and ZFS
	// both serve without special settings.
	maxDisk = Bytes(64 << 40)
)

// ErrInvalid is wrapped by every error about a topology that cannot exist as
// it is declared.
var ErrInvalid = errors.New("invalid topology")

// NodeError is a failure that belongs to one node.
type NodeError struct {
	// Node is the node's name.
	Node string
	// Err says what failed.
	Err error
}

// Error returns the failure with the node's name in front.
func (e *NodeError) Error() string { return fmt.Sprintf("node %s: %v", e.Node, e.Err) }

// Unwrap returns the failure itself.
func (e *NodeError) Unwrap() error { return e.Err }

// invalidError lists the mistakes of a declaration.
type invalidError struct{ errs *multierror.Error }

func (e *invalidError) Error() string { return e.errs.Error() }
func (e *invalidError) Unwrap() []error {
	return append([]error{ErrInvalid}, e.errs.WrappedErrors()...)
}

// Validate returns every mistake of the declaration, nil when there is none.
// The error wraps [ErrInvalid]. It reads nothing of the host.
func (t *Topology) Validate(context.Context) error {
	var errs *multierror.Error
	if t.errs != nil {
		errs = multierror.Append(errs, t.errs.Errors...)
	}
	macs := make(map[string]string)
	for _, n := range t.nodes {
		for _, err := range n.mistakes() {
			errs = multierror.Append(errs, &NodeError{Node: n.name, Err: err})
		}
		for _, e := range n.ends {
			mac, err := net.ParseMAC(e.mac)
			if err != nil {
				continue // none, or reported when it was declared
			}
			if by, taken := macs[mac.String()]; taken {
				errs = multierror.Append(errs, &NodeError{Node: n.name,
					Err: fmt.Errorf("MAC address %s of interface %d is also that of %s", mac, e.index, by)})
			}
			macs[mac.String()] = fmt.Sprintf("node %s, interface %d", n.name, e.index)
		}
	}
	for _, err := range append(t.sharedExclusively(), t.sharedScreens()...) {
		errs = multierror.Append(errs, err)
	}
	if errs == nil {
		return nil
	}
	errs.ErrorFormat = listErrors
	return &invalidError{errs}
}

// listErrors formats one error as itself and several as a list.
func listErrors(errs []error) string {
	if len(errs) == 1 {
		return errs[0].Error()
	}
	s := fmt.Sprintf("%d problems:", len(errs))
	for _, err := range errs {
		s += "\n  - " + err.Error()
	}
	return s
}

// mistakes returns what can only be judged when the whole node is known.
func (n *Node) mistakes() []error {
	var errs []error
	if n.diskSize > maxDisk {
		errs = append(errs, fmt.Errorf("disk of %s is more than %s", n.diskSize, maxDisk))
	}
	if !slices.Contains([]Backing{BackingDefault, BackingZvol, BackingFile}, n.backing) {
		errs = append(errs, fmt.Errorf("unknown disk backing %q, want %q or %q", n.backing, BackingZvol, BackingFile))
	}
	if n.program != "" && !slices.ContainsFunc(n.ends, func(e *End) bool { return e.kind == EndSoftNPU }) {
		errs = append(errs, errors.New("it has a SoftNPU program, and no SoftNPU link"))
	}
	seen := make(map[string]bool)
	for _, c := range n.components {
		switch {
		case c.name == "":
			errs = append(errs, errors.New("a component has no name"))
		case c.component == nil:
			errs = append(errs, fmt.Errorf("component %q is nil", c.name))
		case reflect.TypeOf(c.component).Kind() == reflect.Pointer:
			errs = append(errs, fmt.Errorf("component %q is a pointer, want the value", c.name))
		case seen[c.name]:
			errs = append(errs, fmt.Errorf("component %q is declared twice", c.name))
		}
		seen[c.name] = true
	}
	return errs
}

// sharedExclusively finds pairs of links on one host interface of which one
// wants it exclusively.
func (t *Topology) sharedExclusively() []error {
	var errs []error
	for i, l := range t.links {
		for _, other := range t.links[:i] {
			x, y := l.external, other.external
			if x == nil || y == nil || x.host == "" || x.host != y.host || !x.exclusive && !y.exclusive {
				continue
			}
			mine, theirs := l.A, other.A
			if !x.exclusive {
				mine, theirs = theirs, mine
			}
			errs = append(errs, &NodeError{Node: mine.node.name, Err: fmt.Errorf(
				"interface %d wants host interface %s exclusively, and interface %d of node %s uses it too",
				mine.index, x.host, theirs.index, theirs.node.name)})
		}
	}
	return errs
}

// sharedScreens finds nodes that show their screens on one port.
func (t *Topology) sharedScreens() []error {
	var errs []error
	ports := make(map[int]string)
	for _, n := range t.nodes {
		by, taken := ports[n.vncPort]
		switch {
		case n.vncPort == 0:
		case taken:
			errs = append(errs, &NodeError{Node: n.name, Err: fmt.Errorf("VNC port %d is also that of node %s", n.vncPort, by)})
		default:
			ports[n.vncPort] = n.name
		}
	}
	return errs
}

var namePattern = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*$`)

func validName(what, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("a %s has an empty name", what)
	case len(name) > MaxName:
		return fmt.Errorf("%s name %q has %d bytes, at most %d are allowed", what, name, len(name), MaxName)
	case !namePattern.MatchString(name):
		return fmt.Errorf("%s name %q is not a letter followed by letters, digits and underscores", what, name)
	}
	return nil
}

func validNode(t *Topology, n *Node) error {
	var errs *multierror.Error
	if err := validName("node", n.name); err != nil {
		errs = multierror.Append(errs, err)
	}
	refuse := func(format string, args ...any) {
		errs = multierror.Append(errs, &NodeError{Node: n.name, Err: fmt.Errorf(format, args...)})
	}
	if t.Lookup(n.name) != nil {
		refuse("declared twice")
	}
	if n.image == "" {
		refuse("no image is named")
	}
	if n.cores < 1 || n.cores > MaxCores {
		refuse("%d cores are not within 1 to %d", n.cores, MaxCores)
	}
	switch {
	case n.memory < MinMemory || n.memory > MaxMemory:
		refuse("memory of %s is not within %s to %s", n.memory, MinMemory, MaxMemory)
	case n.memory%(1<<20) != 0:
		refuse("memory of %d bytes is not whole MiB", uint64(n.memory))
	}
	return errs.ErrorOrNil()
}

func validMount(n *Node, m Mount) error {
	refuse := func(format string, args ...any) error {
		return &NodeError{Node: n.name, Err: fmt.Errorf(format, args...)}
	}
	if m.Source == "" {
		return refuse("a mount has no source folder")
	}
	if !path.IsAbs(m.Target) || path.Clean(m.Target) != m.Target || m.Target == "/" {
		return refuse("mount target %q is not a clean absolute path below /", m.Target)
	}
	for _, other := range n.mounts {
		if other.Target == m.Target {
			return refuse("two mounts have the target %s", m.Target)
		}
	}
	return nil
}

func validLink(t *Topology, a, b *Node) error {
	for _, n := range []*Node{a, b} {
		if n == nil {
			return errors.New("a link has a nil node at one end")
		}
		if n.topology != t {
			return fmt.Errorf("a link from %s to %s: node %s belongs to topology %s, not to %s",
				a.name, nodeName(b), n.name, n.topology.name, t.name)
		}
	}
	return nil
}

func nodeName(n *Node) string {
	if n == nil {
		return "nothing"
	}
	return n.name
}

// hostInterfacePattern admits what Linux and illumos allow in a name, except
// characters that mean something in a path or a vnic name.
var hostInterfacePattern = regexp.MustCompile(`^[A-Za-z0-9_.@-]{1,31}$`)

func validHostInterface(n *Node, name string) error {
	if !hostInterfacePattern.MatchString(name) || name == "." || name == ".." {
		return &NodeError{Node: n.name, Err: fmt.Errorf("%q is not the name of a host interface", name)}
	}
	return nil
}
