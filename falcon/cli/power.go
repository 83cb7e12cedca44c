package cli

import (
	"context"
	"errors"
	"sync"

	"github.com/spf13/cobra"

	"github.com/falcon-vm/falcon-go/falcon"
)

func (a *app) rebootCommand() *cobra.Command {
	return a.powerCommand(powerAction{
		name: "reboot", short: "Reset nodes, as their reset button would",
		long: `Reset nodes, as their reset button would, and set them up again. Guests that
falcon can log in to are first asked to write out their file systems.`,
		becomes: falcon.StageReady, do: node.Reboot,
	})
}

func (a *app) hyperstopCommand() *cobra.Command {
	return a.powerCommand(powerAction{
		name: "hyperstop", short: "Stop nodes; their disks and links stay",
		long: `Stop nodes, as their power button would, and by force where a guest does not
end by itself. Their disks and links stay for hyperstart.`,
		becomes: falcon.StageStopped, do: node.Stop,
	})
}

func (a *app) hyperstartCommand() *cobra.Command {
	return a.powerCommand(powerAction{
		name: "hyperstart", short: "Start nodes that do not run, on the disks that they had",
		long: `Start nodes that do not run, on the disks that they had. Links that are missing,
after a restart of the host say, are made again. A node that stands still, because
the host's disk is full or somebody has stopped it, goes on; one whose kernel has
panicked is started anew.`,
		becomes: falcon.StageReady, do: node.Start, starts: true,
	})
}

// powerAction is a command that does something to some or all nodes.
type powerAction struct {
	name, short, long string
	becomes           falcon.Stage
	do                func(node, context.Context) error
	starts            bool // servers
}

func (a *app) powerCommand(p powerAction) *cobra.Command {
	var all, asJSON bool
	var propolis string
	cmd := &cobra.Command{
		Use:               p.name + " NODE… | --all",
		Short:             p.short,
		Long:              p.long,
		ValidArgsFunction: a.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			nodes, err := a.chosen(cmd, args, all)
			if err != nil {
				return err
			}
			if err := a.useServer(cmd, propolis); err != nil {
				return err
			}
			return a.power(cmd, p, nodes, asJSON)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all nodes of the topology")
	if p.starts {
		propolisFlag(cmd, &propolis)
	}
	jsonFlag(cmd, &asJSON, "print what became of each node as JSON")
	return cmd
}

// chosen returns the nodes that a command names.
func (a *app) chosen(cmd *cobra.Command, args []string, all bool) ([]node, error) {
	switch {
	case all && len(args) > 0:
		return nil, UsageError(cmd, "--all and names of nodes exclude each other")
	case all:
		args = a.nodeNames()
	case len(args) == 0:
		return nil, UsageError(cmd, "%s which node? Name some, or give --all", cmd.Name())
	}
	seen := make(map[string]bool)
	var nodes []node
	for _, name := range args {
		n, err := a.node(cmd, name)
		if err != nil {
			return nil, err
		}
		if !seen[name] {
			nodes = append(nodes, n)
		}
		seen[name] = true
	}
	return nodes, nil
}

// power acts on nodes, and shows how they get on or what became of them.
func (a *app) power(cmd *cobra.Command, p powerAction, nodes []node, asJSON bool) error {
	if asJSON {
		outcomes, err := doAll(cmd.Context(), p, nodes, func(falcon.Progress) {})
		return errors.Join(printJSON(cmd, powerDocument{outcomes}), err)
	}
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = n.Name()
	}
	shown := a.newProgress(cmd, names, false)
	a.lab.OnProgress(a.withCommandLines(shown.report))
	shown.start()
	_, err := doAll(cmd.Context(), p, nodes, shown.report)
	shown.finish(err)
	return err
}

// powerDocument is what a power command prints as JSON.
type powerDocument struct {
	Nodes []powerOutcome `json:"nodes"`
}

type powerOutcome struct {
	Name string `json:"name"`
	// Stage is "ready" or "stopped", or "failed" with an Error.
	Stage falcon.Stage `json:"stage"`
	Error string       `json:"error,omitempty"`
}

// doAll acts on all nodes at once, goes on past those that fail, and reports
// what each has become.
func doAll(ctx context.Context, p powerAction, nodes []node, report func(falcon.Progress)) ([]powerOutcome, error) {
	outcomes := make([]powerOutcome, len(nodes))
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			outcomes[i] = powerOutcome{Name: n.Name(), Stage: p.becomes}
			if errs[i] = p.do(n, ctx); errs[i] != nil {
				outcomes[i].Stage, outcomes[i].Error = falcon.StageFailed, errs[i].Error()
			}
			report(falcon.Progress{Node: n.Name(), Stage: outcomes[i].Stage, Err: errs[i]})
		})
	}
	wg.Wait()
	return outcomes, errors.Join(errs...)
}
