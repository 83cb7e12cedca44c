package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/falcon-vm/falcon-go/falcon"
)

func (a *app) launchCommand() *cobra.Command {
	var o launchOptions
	var dry, asJSON bool
	var propolis string
	cmd := &cobra.Command{
		Use:   "launch",
		Short: "Make the topology run",
		Long: `Make the topology run: build images that are missing, clone disks, make links,
start the nodes and set them up. What runs already is left alone, so launch can
be repeated to complete a lab. A new node is a clone of a guest like it that has
booted before, where that can be had: the first launch keeps one as a template.
"info" tells which nodes booted, and why. When a launch fails or is interrupted,
what it has made is removed again, unless --keep is given.

With --dry-run nothing is made: what would be done to the host is printed, as
commands. FALCON_HOST=illumos shows on any machine what an illumos host would
be given.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.useServer(cmd, propolis); err != nil {
				return err
			}
			if dry {
				return a.dryRun(cmd, asJSON)
			}
			return a.launch(cmd, o, asJSON)
		},
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "print what would be done to the host, and do nothing")
	propolisFlag(cmd, &propolis)
	cmd.Flags().BoolVar(&o.keep, "keep", false, "leave what a failed launch has made, to look at it or to go on")
	cmd.Flags().BoolVar(&o.cold, "cold", false, "have all nodes boot; none is made a clone")
	cmd.Flags().DurationVar(&o.loginTimeout, "timeout", falcon.DefaultLoginTimeout, "how long to wait for each node's login")
	jsonFlag(cmd, &asJSON, "print each step as a line of JSON")
	return cmd
}

func (a *app) launch(cmd *cobra.Command, o launchOptions, asJSON bool) error {
	if o.loginTimeout <= 0 {
		return UsageError(cmd, "--timeout %s is not a time to wait", o.loginTimeout)
	}
	begun := time.Now()
	p := a.newProgress(cmd, a.nodeNames(), asJSON)
	a.lab.OnProgress(a.withCommandLines(p.report))
	p.start()
	err := a.lab.Launch(cmd.Context(), o)
	p.finish(err)
	if err != nil && o.keep {
		return fmt.Errorf("%w\nwhat was made is kept: launch again to go on, or remove it (%s destroy)", err, a.command())
	}
	if err != nil || asJSON {
		return err
	}
	name := a.topology.Name()
	fmt.Fprintf(cmd.OutOrStdout(), "%s is up after %s, its state is in %s\n", name, seconds(time.Since(begun)), a.dir)
	if nodes := a.nodeNames(); len(nodes) > 0 {
		program := a.command()
		fmt.Fprintf(cmd.OutOrStdout(), "next: %s info, %[1]s serial %s, %[1]s exec %[2]s COMMAND, %[1]s destroy\n", program, nodes[0])
	}
	return nil
}

// dryRunDocument is what launch --dry-run prints as JSON.
type dryRunDocument struct {
	Version  int              `json:"version"`
	Topology string           `json:"topology"`
	Steps    []falcon.DryStep `json:"steps"`
}

// dryRunVersion changes when readers of a dryRunDocument must.
const dryRunVersion = 1

func (a *app) dryRun(cmd *cobra.Command, asJSON bool) error {
	steps, err := a.lab.DryRun(cmd.Context())
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(cmd, dryRunDocument{dryRunVersion, a.topology.Name(), steps})
	}
	for _, s := range steps {
		if _, err := fmt.Fprintln(cmd.OutOrStdout(), s); err != nil {
			return err
		}
	}
	return nil
}

// propolisFlag adds the flag of commands that start servers.
func propolisFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVar(path, "propolis", "", "`path` of a propolis-server to run instead of the usual one")
	_ = cmd.MarkFlagFilename("propolis")
}

// useServer has the nodes started with the user's own propolis-server. They
// work in folders of their own, so its path must not depend on that.
func (a *app) useServer(cmd *cobra.Command, path string) error {
	if path == "" {
		return nil
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if info, err := os.Stat(path); err != nil {
		return UsageError(cmd, "--propolis: %w", err)
	} else if info.IsDir() || info.Mode()&0o111 == 0 {
		return UsageError(cmd, "--propolis %s is not a program", path)
	}
	a.topology.Propolis = path
	return nil
}
