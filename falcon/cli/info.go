package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/falcon-vm/falcon-go/falcon"
	"github.com/falcon-vm/falcon-go/internal/printable"
)

func (a *app) infoCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "info",
		Short: "Show the topology as it is declared and as it stands",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.lab.Status(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd, s)
			}
			return printStatus(printable.Writer(cmd.OutOrStdout()), s)
		},
	}
	jsonFlag(cmd, &asJSON, "print all there is as JSON")
	return cmd
}

func printStatus(out io.Writer, s *falcon.Status) error {
	fmt.Fprintf(out, "topology %s in %s\n", s.Topology, s.Folder)
	fmt.Fprintf(out, "links by %s", s.Fabric)
	if s.Namespace != "" {
		fmt.Fprintf(out, " in network namespace %s", s.Namespace)
	}
	if len(s.Flags) > 0 {
		fmt.Fprintf(out, "\nlaunched with %s", strings.Join(s.Flags, " "))
	}
	if s.Storage != nil {
		fmt.Fprintf(out, "\n%s", s.Storage)
		if warning := s.Storage.Warning(); warning != "" {
			fmt.Fprintf(out, "; beware: %s", warning)
		}
	}
	fmt.Fprint(out, "\n\n")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tIMAGE\tSTATE\tPID\tUPTIME\tSTARTED\tCORES\tMEMORY\tPSS\tSERVER PSS\tCONSOLE")
	for _, n := range s.Nodes {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", n.Name, n.Image, n.State, orDash(n.PID),
			uptime(n), started(n.Start), n.Cores, n.Memory, taken(n.PSS), taken(n.ServerPSS), cmp.Or(n.Console, "-"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	gap := "\n"
	for _, p := range s.Problems {
		fmt.Fprintf(out, "%sproblem: %s\n", gap, p)
		gap = ""
	}
	for _, n := range s.Nodes {
		if n.Reason != "" {
			fmt.Fprintf(out, "%s%s %s: %s\n", gap, n.Name, n.State, n.Reason)
			gap = ""
		}
	}
	printHappened(out, s, time.Now())
	printStarts(out, s)
	return printInterfaces(out, s)
}

// printHappened says what nodes have done by themselves.
func printHappened(out io.Writer, s *falcon.Status, now time.Time) {
	gap := "\n"
	for _, n := range s.Nodes {
		for _, what := range happened(n, now) {
			fmt.Fprintf(out, "%s%s: %s\n", gap, n.Name, what)
			gap = ""
		}
	}
}

// happened returns what a node has done by itself that its state does not say.
func happened(n falcon.NodeStatus, now time.Time) []string {
	var did []string
	if p := n.Panic; p != nil && p.Over {
		text := fmt.Sprintf("its kernel panicked %s, and it was reset", ago(p.At, now))
		if len(p.Console) > 0 {
			text += "; the console's last lines were:\n  " + strings.Join(p.Console, "\n  ")
		}
		did = append(did, text)
	}
	switch {
	case n.LastReset == nil:
	case n.Resets == 1:
		did = append(did, "rebooted itself, "+ago(*n.LastReset, now))
	default:
		did = append(did, fmt.Sprintf("rebooted itself %d times, last %s", n.Resets, ago(*n.LastReset, now)))
	}
	if n.Watchdog != nil {
		did = append(did, "its watchdog fired "+ago(*n.Watchdog, now))
	}
	if e := n.DiskError; e != nil {
		did = append(did, fmt.Sprintf("an error of its disk %s, %s: %s", cmp.Or(e.Path, e.Disk), ago(e.At, now), e.Error))
	}
	return did
}

// ago says how long ago something was, as people do.
func ago(at, now time.Time) string {
	switch d := now.Sub(at); {
	case d < time.Minute:
		return fmt.Sprintf("%d s ago", max(int(d.Seconds()), 0))
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	}
	return at.Local().Format("on 2006-01-02")
}

// started says in a word how a node was started, and how long it took.
func started(s *falcon.NodeStart) string {
	if s == nil || len(s.Stages) == 0 {
		return "-"
	}
	var total float64
	for _, t := range s.Stages {
		total += t.Seconds
	}
	kind := "warm"
	if s.Cold {
		kind = "cold"
	}
	return fmt.Sprintf("%s, %.2fs", kind, total)
}

// printStarts says how long each stage of the nodes' starts took, and why nodes
// booted that did not have to.
func printStarts(out io.Writer, s *falcon.Status) {
	gap := "\n"
	for _, n := range s.Nodes {
		if n.Start == nil || len(n.Start.Stages) == 0 {
			continue
		}
		var stages []string
		for _, t := range n.Start.Stages {
			stages = append(stages, fmt.Sprintf("%s %.2fs", t.Stage, t.Seconds))
		}
		kind := "is a clone"
		if n.Start.Cold {
			kind = "booted (" + n.Start.Why + ")"
		}
		fmt.Fprintf(out, "%s%s %s: %s\n", gap, n.Name, kind, strings.Join(stages, ", "))
		gap = ""
	}
}

func printInterfaces(out io.Writer, s *falcon.Status) error {
	if !slices.ContainsFunc(s.Nodes, func(n falcon.NodeStatus) bool { return len(n.Links) > 0 }) {
		return nil
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "INTERFACE\tMAC\tSLOT\tDEVICE\tPEER\tPEER DEVICE")
	for _, n := range s.Nodes {
		for _, l := range n.Links {
			peer := l.External
			if l.Peer != "" {
				peer = fmt.Sprintf("%s/%d", l.Peer, l.PeerIndex)
			}
			fmt.Fprintf(w, "%s/%d\t%s\t%s\t%s\t%s\t%s\n", n.Name, l.Index, cmp.Or(l.MAC, "-"),
				cmp.Or(l.Slot, "-"), cmp.Or(l.Device, "-"), cmp.Or(peer, "-"), cmp.Or(l.PeerDevice, "-"))
		}
	}
	return w.Flush()
}

func orDash(n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

func taken(size falcon.Bytes) string {
	if size == 0 {
		return "-"
	}
	return size.String()
}

func uptime(n falcon.NodeStatus) string {
	if n.UptimeSeconds <= 0 {
		return "-"
	}
	return (time.Duration(n.UptimeSeconds) * time.Second).String()
}

// jsonFlag declares --json.
func jsonFlag(cmd *cobra.Command, to *bool, usage string) {
	cmd.Flags().BoolVar(to, "json", false, usage)
}

// printJSON prints a document for programs.
func printJSON(cmd *cobra.Command, document any) error {
	enc := json.NewEncoder(printable.JSONWriter(cmd.OutOrStdout()))
	enc.SetIndent("", "  ")
	return enc.Encode(document)
}
