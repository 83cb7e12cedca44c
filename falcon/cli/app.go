package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/falcon-vm/falcon-go/falcon"
	"github.com/falcon-vm/falcon-go/internal/printable"
)

// app is the command line of one topology program.
type app struct {
	program Program
	root    *cobra.Command
	open    func(*falcon.Topology) lab

	flags    *pflag.FlagSet // the topology's own
	flagsErr error

	dir     string
	verbose bool
	log     redirectable

	topology *falcon.Topology // declared by load
	lab      lab
}

const rootHelp = `

Commands may be shortened as long as it is clear which one is meant. The lab and
what it was launched with are kept in a state folder, .falcon in the working
directory unless --falcon-dir names another.

FALCON_LOG=debug, info, warn or error sets what is logged to standard error.`

// newApp builds the command tree. dir is the default of --falcon-dir.
func newApp(p Program, dir string, open func(*falcon.Topology) lab) *app {
	if p.Name == "" {
		p.Name = programName()
	}
	if p.Short == "" {
		p.Short = fmt.Sprintf("Launch the topology %s and work in it", p.Name)
	}
	a := &app{program: p, open: open}
	a.root = &cobra.Command{
		Use: p.Name, Short: p.Short, Long: p.Short + "." + rootHelp,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.prepare(cmd) },
	}
	flags := a.root.PersistentFlags()
	flags.StringVarP(&a.dir, "falcon-dir", "f", dir, "state folder of the lab")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "log what is done, with the command lines of QEMU")
	a.root.AddCommand(
		a.preflightCommand(), a.launchCommand(), a.destroyCommand(), a.infoCommand(),
		a.serialCommand(), a.execCommand(), a.copyCommand(), a.logsCommand(), a.snapshotCommand(),
		a.rebootCommand(), a.hyperstopCommand(), a.hyperstartCommand(),
		a.netcreateCommand(), a.netdestroyCommand(), a.softNPUCommand(), a.vncCommand(),
	)
	a.addTopologyFlags()
	_ = a.root.MarkPersistentFlagDirname("falcon-dir")
	return a
}

// addTopologyFlags adds the flags of the topology for all commands, but not
// those that would hide falcon's own.
func (a *app) addTopologyFlags() {
	a.flags = pflag.NewFlagSet(a.program.Name, pflag.ContinueOnError)
	if a.program.Flags == nil {
		return
	}
	a.program.Flags(a.flags)
	names, shorthands := map[string]bool{"help": true}, map[string]bool{"h": true}
	for _, cmd := range append(a.root.Commands(), a.root) {
		for _, set := range []*pflag.FlagSet{cmd.Flags(), cmd.PersistentFlags()} {
			set.VisitAll(func(f *pflag.Flag) { names[f.Name], shorthands[f.Shorthand] = true, true })
		}
	}
	a.flags.VisitAll(func(f *pflag.Flag) {
		switch {
		case names[f.Name]:
			a.flagsErr = errors.Join(a.flagsErr, fmt.Errorf("the program's flag --%s is also one of falcon's: rename it", f.Name))
		case f.Shorthand != "" && shorthands[f.Shorthand]:
			a.flagsErr = errors.Join(a.flagsErr, fmt.Errorf("the program's flag -%s is also one of falcon's: rename it", f.Shorthand))
		default:
			a.root.PersistentFlags().AddFlag(f)
		}
	})
	if a.flags.Lookup("image") != nil && a.flagsErr == nil {
		_ = a.root.RegisterFlagCompletionFunc("image", completeImages)
	}
}

// prepare declares the topology for a command, and refuses one that cannot be.
// What stands can be taken down all the same: it may be of a better time.
func (a *app) prepare(cmd *cobra.Command) error {
	if !needsTopology(cmd) {
		return nil
	}
	if err := a.load(cmd); err != nil {
		return err
	}
	switch cmd.Name() {
	case "destroy", "netdestroy", "hyperstop":
		return nil
	}
	return a.lab.Validate(cmd.Context())
}

// load declares the topology with the flags of the command line and those that
// are remembered.
func (a *app) load(cmd *cobra.Command) error {
	if a.topology == nil {
		if err := a.declare(cmd); err != nil {
			return err
		}
	}
	withTopology(cmd, a.topology)
	return nil
}

func (a *app) declare(cmd *cobra.Command) error {
	if a.flagsErr != nil {
		return a.flagsErr
	}
	if err := a.restoreFlags(cmd); err != nil {
		return err
	}
	topo, err := a.program.Declare()
	if err != nil {
		return UsageError(cmd, "%w", err)
	}
	logger, err := a.logger(cmd)
	if err != nil {
		return err
	}
	topo.Dir, topo.Persistent, topo.Flags, topo.Log, topo.Command = a.dir, true, words(a.flags), logger, a.command()
	a.topology, a.lab = topo, a.open(topo)
	return nil
}

// command is what a command line for this lab begins with.
func (a *app) command() string {
	if a.root.PersistentFlags().Changed("falcon-dir") {
		return a.root.Name() + " -f " + printable.Word(a.dir)
	}
	return a.root.Name()
}

// restoreFlags recalls what the lab was launched with.
func (a *app) restoreFlags(cmd *cobra.Command) error {
	if !a.flags.HasFlags() {
		return nil
	}
	old, err := falcon.Flags(a.dir)
	if errors.Is(err, falcon.ErrNotLaunched) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("what the lab in %s was launched with: %w", a.dir, err)
	}
	differing, err := restore(a.flags, old)
	if err != nil {
		return err
	}
	if len(differing) > 0 && cmd.Name() != "launch" {
		return UsageError(cmd, "the lab in %s was launched with %s: leave out %s, or destroy the lab first (%s destroy), or choose another folder (-f)",
			a.dir, strings.Join(old, " "), strings.Join(differing, ", "), a.command())
	}
	return nil
}

// needsTopology says whether a command has to do with the topology: those that
// print completion scripts and help do not, and those that shells call to
// complete load it when they need it.
func needsTopology(cmd *cobra.Command) bool {
	for c := cmd; c != nil; c = c.Parent() {
		switch c.Name() {
		case "help", "completion", cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd:
			return false
		}
	}
	return true
}

// logger returns the log on standard error.
func (a *app) logger(cmd *cobra.Command) (*slog.Logger, error) {
	level := slog.LevelWarn
	if text := os.Getenv("FALCON_LOG"); text != "" {
		if err := level.UnmarshalText([]byte(text)); err != nil {
			return nil, fmt.Errorf("FALCON_LOG=%s: want debug, info, warn or error", text)
		}
	}
	if a.verbose {
		level = min(level, slog.LevelInfo)
	}
	a.log.redirect(cmd.ErrOrStderr())
	return slog.New(slog.NewTextHandler(&a.log, &slog.HandlerOptions{Level: level})), nil
}

// redirectable is a writer whose target may change, so that log lines do not
// land amid the lines that a launch paints.
type redirectable struct {
	mu sync.Mutex
	to io.Writer
}

func (r *redirectable) redirect(to io.Writer) (before io.Writer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before, r.to = r.to, to
	return before
}

// Write writes to the present target.
func (r *redirectable) Write(p []byte) (int, error) {
	r.mu.Lock()
	to := r.to
	r.mu.Unlock()
	if to == nil {
		return len(p), nil
	}
	return to.Write(p)
}

// node returns a node of the topology by its name.
func (a *app) node(cmd *cobra.Command, name string) (node, error) {
	if n := a.lab.Node(name); n != nil {
		return n, nil
	}
	known := a.nodeNames()
	hint := didYouMean(name, known)
	if hint == "" {
		hint = ": its nodes are " + strings.Join(known, ", ")
	}
	return nil, UsageError(cmd, "%s has no node %q%s", a.topology.Name(), name, hint)
}

func (a *app) nodeNames() []string {
	var names []string
	for _, n := range a.topology.Nodes() {
		names = append(names, n.Name())
	}
	return names
}
