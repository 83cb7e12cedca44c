package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

// settings are the flags of all commands.
type settings struct {
	device  string
	silence time.Duration
	json    bool
}

// verb is a command that asks an ASIC.
type verb struct {
	use, short string
	args       cobra.PositionalArgs
	run        func(ctx context.Context, s *session, args []string) error
}

// session is what a verb works with.
type session struct {
	*channel
	out  io.Writer
	json bool
}

// print writes a value as JSON.
func (s *session) print(v any) error {
	e := json.NewEncoder(s.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// command returns the whole command line.
func command() *cobra.Command {
	var set settings
	root := &cobra.Command{
		Use:   "npuadm",
		Short: "Set and show the tables of this node's switch ASIC",
		Long: `Set and show the tables of this node's switch ASIC, over the serial port that
is its management channel.

Addresses, routes, ARP, NDP, NAT and the like need a program with the tables of
sidecar-lite, as the ASIC's own is. tables, add, remove and counters work with
any program.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	flags := root.PersistentFlags()
	flags.StringVarP(&set.device, "device", "d", "/dev/ttyS3", "management channel: a serial port or a Unix socket")
	flags.DurationVar(&set.silence, "timeout", 30*time.Second, "how long to wait for an ASIC that says nothing")
	flags.BoolVar(&set.json, "json", false, "print JSON")
	for _, v := range verbs() {
		root.AddCommand(v.command(&set))
	}
	root.AddCommand(addRouteCommand(&set, 4), addRouteCommand(&set, 6), saveCommand(&set), restoreCommand(&set))
	return root
}

func (v verb) command(set *settings) *cobra.Command {
	return &cobra.Command{Use: v.use, Short: v.short, Args: v.args, DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error { return set.session(cmd, args, v.run) }}
}

// session runs a verb on the channel that the flags name.
func (set *settings) session(cmd *cobra.Command, args []string, run func(context.Context, *session, []string) error) error {
	c, err := openChannel(cmd.Context(), set.device, set.silence)
	if err != nil {
		return err
	}
	err = run(cmd.Context(), &session{c, cmd.OutOrStdout(), set.json}, args)
	if closed := c.close(); err == nil && closed != nil {
		err = fmt.Errorf("management channel %s: %w", c.path, closed)
	}
	return err
}
