package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/falcon-vm/falcon-go/falcon"
)

func (a *app) launchCommand() *cobra.Command {
	var o launchOptions
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "launch",
		Short: "Make the topology run",
		Long: `Make the topology run: build images that are missing, clone disks, make links,
start the nodes and set them up. What runs already is left alone, so launch can
be repeated to complete a lab. When it fails or is interrupted, what it has made
is removed again, unless --keep is given.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.launch(cmd, o, asJSON) },
	}
	cmd.Flags().BoolVar(&o.keep, "keep", false, "leave what a failed launch has made, to look at it or to go on")
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
		return fmt.Errorf("%w\nwhat was made is kept: launch again to go on, or remove it (%s destroy)", err, a.root.Name())
	}
	if err != nil || asJSON {
		return err
	}
	name := a.topology.Name()
	fmt.Fprintf(cmd.OutOrStdout(), "%s is up after %s, its state is in %s\n", name, seconds(time.Since(begun)), a.dir)
	if nodes := a.nodeNames(); len(nodes) > 0 {
		program := a.root.Name()
		fmt.Fprintf(cmd.OutOrStdout(), "next: %s info, %[1]s serial %s, %[1]s exec %[2]s COMMAND, %[1]s destroy\n", program, nodes[0])
	}
	return nil
}
