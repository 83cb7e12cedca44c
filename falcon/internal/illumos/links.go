package illumos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// MaxMTU is the largest MTU of a simnet link, which it has by itself.
const MaxMTU = 9000

// End is one end of a [Pair].
type End struct {
	// VNIC is what the guest is attached to, MAC its address and that of the
	// guest. The simnet link under it is [SimnetName] of it.
	VNIC, MAC string
}

// Simnet is the name of the link under the VNIC.
func (e End) Simnet() string { return SimnetName(e.VNIC) }

// Pair is a cable between two guests: two simnet links that are each other's
// peer, with a VNIC on each.
type Pair struct {
	A, B End
	// MTU in bytes; 0 leaves that of simnet links, [MaxMTU].
	MTU int
}

// Names are the names of all links of the pair.
func (p Pair) Names() []string { return []string{p.A.Simnet(), p.B.Simnet(), p.A.VNIC, p.B.VNIC} }

// Link is a link that exists.
type Link struct {
	Name, Class string
	MTU         int
	State       string
	// Over is what it stands on, Peer the other end of a simnet link.
	Over, Peer string
}

// Links are links that exist, by name.
type Links map[string]Link

// The classes of links that are made here.
const (
	classSimnet = "simnet"
	classVNIC   = "vnic"
)

// Commands returns what makes the pair, but for those parts that stand. All of
// it is temporary: it is gone after a restart of the host, as are the guests.
func (p Pair) Commands(have Links) []Command {
	var cmds []Command
	for _, e := range []End{p.A, p.B} {
		sim, stands := have[e.Simnet()]
		if !stands {
			cmds = append(cmds, Command{"dladm", "create-simnet", "-t", e.Simnet()})
		}
		// Before there is a VNIC on it: a link that is in use keeps its MTU.
		if p.MTU != 0 && sim.MTU != p.MTU {
			cmds = append(cmds, Command{"dladm", "set-linkprop", "-t", "-p", "mtu=" + strconv.Itoa(p.MTU), e.Simnet()})
		}
	}
	if have[p.A.Simnet()].Peer != p.B.Simnet() {
		cmds = append(cmds, Command{"dladm", "modify-simnet", "-t", "-p", p.B.Simnet(), p.A.Simnet()})
	}
	for _, e := range []End{p.A, p.B} {
		cmds = append(cmds, VNIC{Name: e.VNIC, Over: e.Simnet(), MAC: e.MAC}.Commands(have)...)
		// Without it the guest gets no frames for other addresses than its own.
		// Also where the VNIC stands: whoever made it may have been killed then.
		cmds = append(cmds, Command{"dladm", "set-linkprop", "-t", "-p", "promisc-filtered=off", e.VNIC})
	}
	return cmds
}

// Check refuses a link of the pair's names that is not what the pair has there.
func (p Pair) Check(have Links) error {
	var errs []error
	for _, e := range []End{p.A, p.B} {
		errs = append(errs, sameKind(have, e.Simnet(), classSimnet, ""), sameKind(have, e.VNIC, classVNIC, e.Simnet()))
	}
	return errors.Join(errs...)
}

// VNIC is a guest's interface on another link.
type VNIC struct{ Name, Over, MAC string }

// Commands returns what makes the VNIC, if it does not stand.
func (v VNIC) Commands(have Links) []Command {
	if _, stands := have[v.Name]; stands {
		return nil
	}
	return []Command{{"dladm", "create-vnic", "-t", "-l", v.Over, "-m", v.MAC, v.Name}}
}

// Check refuses a link of the VNIC's name that is another one.
func (v VNIC) Check(have Links) error { return sameKind(have, v.Name, classVNIC, v.Over) }

func sameKind(have Links, name, class, over string) error {
	l, stands := have[name]
	if !stands || l.Class == class && (over == "" || l.Over == over) {
		return nil
	}
	what := l.Class
	if l.Over != "" {
		what += " over " + l.Over
	}
	return &NameError{Name: name, What: what}
}

// NameError says that a link's name is taken: on illumos names are the whole
// host's.
type NameError struct {
	Name string
	// What is the link that has it, Owner whose that is.
	What, Owner string
}

// Error says who has the name and how to go on.
func (e *NameError) Error() string {
	if e.Owner != "" {
		return fmt.Sprintf("link %s belongs to %s: destroy that first, or give the topology another name", e.Name, e.Owner)
	}
	return fmt.Sprintf("link %s exists (%s), and no topology of this falcon made it: remove it (%s), or give the topology another name",
		e.Name, e.What, Command{"dladm", "delete-" + deletable(e.What), e.Name})
}

// deletable is the class of a link as dladm's delete commands name it.
func deletable(what string) string {
	class, _, _ := strings.Cut(what, " ")
	return class
}

// RemoveCommands returns what removes those of the named links that exist: the
// VNICs, and then what they stand on. The commands of each of the two lists may
// be run at once.
func RemoveCommands(names []string, have Links) [2][]Command {
	var cmds [2][]Command
	for _, name := range names {
		switch l, stands := have[name]; {
		case !stands:
		case l.Class == classVNIC:
			cmds[0] = append(cmds[0], Command{"dladm", "delete-vnic", "-t", name})
		case l.Class == classSimnet:
			cmds[1] = append(cmds[1], Command{"dladm", "delete-simnet", "-t", name})
		}
	}
	return cmds
}

// Dladm looks at links and changes them.
type Dladm struct {
	Runner Runner
	// Busy is how long a link may stay busy; 30 s if it is 0.
	Busy time.Duration
}

var (
	showLink   = Command{"dladm", "show-link", "-p", "-o", "link,class,mtu,state,over"}
	showSimnet = Command{"dladm", "show-simnet", "-p", "-o", "link,otherlink"}
)

// Links returns all links of the host.
func (d Dladm) Links(ctx context.Context) (Links, error) {
	out, err := d.Runner.Run(ctx, showLink)
	if err != nil {
		return nil, err
	}
	rows, err := table(showLink, out, 5)
	if err != nil {
		return nil, err
	}
	links := make(Links)
	for _, r := range rows {
		mtu, err := strconv.Atoi(r[2])
		if err != nil {
			return nil, fmt.Errorf("%s: link %s has the MTU %q", showLink, r[0], r[2])
		}
		links[r[0]] = Link{Name: r[0], Class: r[1], MTU: mtu, State: r[3], Over: absent(r[4])}
	}
	if out, err = d.Runner.Run(ctx, showSimnet); err != nil {
		return nil, err
	}
	if rows, err = table(showSimnet, out, 2); err != nil {
		return nil, err
	}
	for _, r := range rows {
		if l, ok := links[r[0]]; ok {
			l.Peer = absent(r[1])
			links[r[0]] = l
		}
	}
	return links, nil
}

// absent is a value of dladm's, which writes "--" where there is none.
func absent(s string) string { return strings.TrimPrefix(s, "--") }

// Refused returns the names of the links that were not made because something
// of that name had come to be there.
func Refused(err error) []string {
	if list, ok := err.(interface{ Unwrap() []error }); ok {
		var names []string
		for _, e := range list.Unwrap() {
			names = append(names, Refused(e)...)
		}
		return names
	}
	var e *CommandError
	if says(err, "object already exists") && errors.As(err, &e) {
		return e.Command[len(e.Command)-1:]
	}
	return nil
}

// isGone reports whether a command failed because the link is not there.
func isGone(err error) bool { return says(err, "object not found", "invalid link name") }

// isBusy reports whether a command failed because the link is in use, which it
// is for a moment after the end of who used it.
func isBusy(err error) bool { return says(err, "link busy", "device busy") }

const (
	defaultBusy = 30 * time.Second
	firstPause  = 50 * time.Millisecond
	lastPause   = time.Second
)

// Change runs one command. While dladm says that the link is busy it is tried
// again: there is no event for the moment at which a link is let go.
func (d Dladm) Change(ctx context.Context, c Command) error {
	busy := d.Busy
	if busy == 0 {
		busy = defaultBusy
	}
	begun := time.Now()
	pause := firstPause
	for tries := 1; ; tries++ {
		err := d.once(ctx, c)
		if !isBusy(err) {
			return err
		}
		left := busy - time.Since(begun)
		if left <= 0 {
			return fmt.Errorf("waited %v for the link to be let go, in %d tries: %w", time.Since(begun).Round(time.Millisecond), tries, err)
		}
		select {
		case <-time.After(min(pause, left)):
		case <-ctx.Done():
			return fmt.Errorf("%w, while waiting for a busy link (%w)", context.Cause(ctx), err)
		}
		pause = min(2*pause, lastPause)
	}
}

// commandWait bounds a command that changes something.
const commandWait = time.Minute

// once runs a command to its end, also when ctx ends meanwhile: what a command
// that is cut off has done would not be known.
func (d Dladm) once(ctx context.Context, c Command) error {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), commandWait, fmt.Errorf("it has not ended within %v", commandWait))
	defer cancel()
	_, err := d.Runner.Run(ctx, c)
	return err
}

// atOnce is how many commands run at the same time. The kernel makes links one
// by one; what is gained is the starting of programs.
const atOnce = 8

// Apply runs lists of commands: the commands of a list in order, the lists at
// the same time. When one fails, the others end their present command.
func (d Dladm) Apply(ctx context.Context, lists [][]Command) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return parallel(len(lists), func(i int) error {
		for _, c := range lists[i] {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			if err := d.Change(ctx, c); err != nil {
				cancel()
				return err
			}
		}
		return nil
	})
}

// Remove removes those of the named links that exist. That one is gone already
// is no error, and one that cannot be removed keeps no other from it.
func (d Dladm) Remove(ctx context.Context, names []string) error {
	have, err := d.Links(ctx)
	if err != nil {
		return err
	}
	for _, cmds := range RemoveCommands(names, have) {
		err := parallel(len(cmds), func(i int) error {
			err := d.Change(ctx, cmds[i])
			if isGone(err) {
				return nil
			}
			return err
		})
		if err != nil {
			return err // what is below a VNIC that stays cannot go
		}
	}
	return nil
}

// parallel calls f for 0 to n-1, several at once, and returns all errors but
// those that are only the cancelling after another one.
func parallel(n int, f func(int) error) error {
	errs := make([]error, n)
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = f(i)
		})
	}
	wg.Wait()
	real := slices.DeleteFunc(slices.Clone(errs), func(err error) bool { return err == nil || errors.Is(err, context.Canceled) })
	if len(real) > 0 {
		return errors.Join(real...)
	}
	return errors.Join(errs...)
}
