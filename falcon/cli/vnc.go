package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) vncCommand() *cobra.Command {
	var stdio, asJSON bool
	cmd := &cobra.Command{
		Use:   "vnc NODE",
		Short: "Show a node's screen",
		Long: `Show the screen of a node that was declared with VNC(), in a viewer that is
installed here: vncviewer (TigerVNC) or remote-viewer. The screen is on a socket
in the state folder, which only you can connect to, or on the TCP port that the
node was declared with, which asks for its password.

A viewer on another machine reaches the socket by ssh: first
  ssh -L 5900:FOLDER/NODE.vnc.sock HOST
with the socket's path as --json prints it, then the viewer on localhost:5900.
With --stdio standard input and output are the screen's connection.`,
		Args:              exactly(1),
		ValidArgsFunction: a.completeNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := a.node(cmd, args[0])
			if err != nil {
				return err
			}
			return a.vnc(cmd, n, stdio, asJSON)
		},
	}
	cmd.Flags().BoolVar(&stdio, "stdio", false, "speak VNC on standard input and output")
	jsonFlag(cmd, &asJSON, "print where the screen is as JSON")
	return cmd
}

func (a *app) vnc(cmd *cobra.Command, n node, stdio, asJSON bool) error {
	// Also where a viewer connects by itself: it could not say why it fails.
	screen, err := n.Screen(cmd.Context())
	if err != nil {
		return err
	}
	defer screen.Close()
	if stdio {
		return bridge(cmd.Context(), screen, cmd.InOrStdin(), cmd.OutOrStdout())
	}
	at := screen.RemoteAddr()
	s, err := a.lab.Status(cmd.Context())
	if err != nil {
		return err
	}
	address := at.String()
	for _, ns := range s.Nodes {
		if ns.Name == n.Name() {
			address = ns.VNC
		}
	}
	if asJSON {
		return printJSON(cmd, map[string]string{"network": at.Network(), "address": address})
	}
	return view(cmd, at.Network(), address)
}

// bridge copies between a screen and a viewer until one of them has gone.
func bridge(ctx context.Context, screen net.Conn, in io.Reader, out io.Writer) error {
	defer context.AfterFunc(ctx, func() { screen.Close() })()
	go func() { // a read of the input cannot be ended, and ends with the program
		_, _ = io.Copy(screen, in)
		if half, ok := screen.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite() // what the screen has said is still to be read
		}
	}()
	_, err := io.Copy(out, screen)
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// viewer is a program that shows a screen.
type viewer struct {
	name string
	// socket and port are its arguments for a socket's path and a TCP address.
	socket, port func(address string) string
}

var viewers = []viewer{
	// By its name in the working directory: a path may be too long for it.
	{"vncviewer", func(path string) string { return "./" + filepath.Base(path) }, func(addr string) string { return strings.Replace(addr, ":", "::", 1) }},
	{"remote-viewer", func(path string) string { return "vnc+unix://" + path }, func(addr string) string { return "vnc://" + addr }},
}

// view runs the first viewer that there is.
func view(cmd *cobra.Command, network, address string) error {
	for _, v := range viewers {
		path, err := exec.LookPath(v.name)
		if err != nil {
			continue
		}
		run := exec.CommandContext(cmd.Context(), path, v.port(address))
		if network == "unix" {
			run = exec.CommandContext(cmd.Context(), path, v.socket(address))
			run.Dir = filepath.Dir(address)
		}
		run.Stdout, run.Stderr = forChildren(cmd.OutOrStdout()), cmd.ErrOrStderr()
		if err := run.Run(); err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		return nil
	}
	return fmt.Errorf("no viewer is installed here that falcon knows: apt-get install tigervnc-viewer; or from another machine: ssh -L 5900:%s HOST, and a viewer there on localhost:5900", address)
}
