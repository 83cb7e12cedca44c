// Package admin is the commands that set and show a switch ASIC over its
// management channel. Npuadm has them for the guest of a node, and the program
// of a topology for the host.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/falcon-vm/falcon-go/propolis/softnpu"
)

// Silence is how long an ASIC may say nothing before it is given up. Over the
// serial port of an emulated guest the tables of a large program take seconds.
const Silence = 30 * time.Second

// settings are what all commands have in common.
type settings struct {
	device  string
	silence time.Duration
	json    bool
	// node opens the channel of the node that the first argument names; it is
	// nil in the guest of a node.
	node func(ctx context.Context, name string) (*softnpu.Client, error)
}

// verb is a command that asks an ASIC.
type verb struct {
	use, short string
	args       cobra.PositionalArgs
	run        func(ctx context.Context, s *session, args []string) error
}

// session is what a verb works with.
type session struct {
	*softnpu.Client
	out  io.Writer
	json bool
}

// print writes a value as JSON.
func (s *session) print(v any) error {
	e := json.NewEncoder(s.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// Command returns the command line of npuadm.
func Command() *cobra.Command {
	set := &settings{}
	root := &cobra.Command{
		Use:   "npuadm",
		Short: "Set and show the tables of this node's switch ASIC",
		Long: `Set and show the tables of this node's switch ASIC, over the serial port that
is its management channel.

Addresses, routes, ARP, NDP, NAT and the like need a program with the tables of
sidecar-lite, as the ASIC's own is. tables, add, remove, entries, defaults,
arrays, read, write and counters work with any program.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	flags := root.PersistentFlags()
	flags.StringVarP(&set.device, "device", "d", "/dev/ttyS3", "management channel: a serial port or a Unix socket")
	flags.DurationVar(&set.silence, "timeout", Silence, "how long to wait for an ASIC that says nothing")
	flags.BoolVar(&set.json, "json", false, "print JSON")
	root.AddCommand(set.commands()...)
	return root
}

// NodeCommands returns the same commands for the ASICs of several nodes, the
// first argument of each being the name of a node, whose ASIC open reaches.
func NodeCommands(open func(ctx context.Context, node string) (*softnpu.Client, error)) []*cobra.Command {
	set := &settings{node: open}
	all := set.commands()
	for _, c := range all {
		c.Flags().BoolVar(&set.json, "json", false, "print JSON")
	}
	return all
}

func (set *settings) commands() []*cobra.Command {
	var all []*cobra.Command
	for _, v := range verbs() {
		all = append(all, set.command(v))
	}
	return append(all, addRouteCommand(set, 4), addRouteCommand(set, 6),
		priorityCommand(set, "add TABLE ACTION KEY... [ARGUMENT...]", "Add an entry to a table", 2, addEntry),
		priorityCommand(set, "remove TABLE KEY...", "Remove an entry from a table", 1, removeEntry),
		fileCommand(set, "save", "Write the entries of all tables to a file", save),
		fileCommand(set, "restore", "Set the entries that a file has from save", restore))
}

// shortNames are those of verbs that scadm has longer ones for.
var shortNames = map[string]string{"dump-state": "dump", "load-program": "load"}

// command makes a command of a verb.
func (set *settings) command(v verb) *cobra.Command {
	c := &cobra.Command{Use: v.use, Short: v.short, DisableFlagsInUseLine: true}
	named := 0 // arguments that name a node
	c.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) < named || v.args(cmd, args[named:]) != nil {
			return fmt.Errorf("want %s", cmd.UseLine())
		}
		return nil
	}
	if more := details[c.Name()]; more != "" {
		c.Long = v.short + ".\n\n" + more
	}
	c.RunE = func(cmd *cobra.Command, args []string) error { return set.session(cmd, args, v.run) }
	if short := shortNames[c.Name()]; short != "" {
		c.Aliases = []string{short}
	}
	if set.node == nil {
		return c
	}
	name, words, _ := strings.Cut(v.use, " ")
	if short := shortNames[name]; short != "" {
		c.Aliases, name = []string{name}, short
	}
	c.Use, named = strings.TrimSpace(name+" NODE "+words), 1
	return c
}

// open opens the channel that the flags, or the first argument, name.
func (set *settings) open(ctx context.Context, args []string) (*softnpu.Client, []string, error) {
	if set.node != nil {
		c, err := set.node(ctx, args[0])
		return c, args[1:], err
	}
	s, err := openStream(ctx, set.device)
	if err != nil {
		return nil, nil, fmt.Errorf("open the management channel %s: %w", set.device, err)
	}
	return softnpu.NewClient(ctx, set.device, s, set.silence), args, nil
}

// openStream opens a path, which is that of a serial port or of a Unix socket.
func openStream(ctx context.Context, path string) (softnpu.Stream, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errors.New("there is none of that name: has this node an ASIC? --device names another")
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return openSerial(path)
	}
	return new(net.Dialer).DialContext(ctx, "unix", path)
}

// session runs a verb on the channel that the flags name.
func (set *settings) session(cmd *cobra.Command, args []string, run func(context.Context, *session, []string) error) error {
	c, args, err := set.open(cmd.Context(), args)
	if err != nil {
		return err
	}
	err = run(cmd.Context(), &session{c, cmd.OutOrStdout(), set.json}, args)
	if closed := c.Close(); err == nil {
		err = closed
	}
	return err
}
