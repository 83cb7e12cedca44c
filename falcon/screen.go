package falcon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
)

// planScreen says where the node's screen is shown.
func (np *NodePlan) planScreen(n *Node, f facts) {
	switch {
	case !n.screen:
		return
	case n.vncPort == 0:
		np.VNC = "unix:" + n.name + vncExt
	default:
		np.VNC = net.JoinHostPort("127.0.0.1", fmt.Sprint(n.vncPort))
	}
	if n.vncPassword != "" {
		np.VNCPassword = absolute(f.workDir, n.vncPassword)
	}
	switch {
	case f.bareVNC && n.vncPort == 0:
		np.refuse("its screen is to be on a socket, and the host's propolis-server shows screens on TCP ports only: VNC(5900)")
	case f.bareVNC && n.vncPassword != "":
		np.refuse("its screen is to have a password, and the host's propolis-server knows none")
	case !f.bareVNC && n.vncPort != 0 && n.vncPassword == "":
		np.refuse("any user of the host could see and use its screen on port %d: give it a VNCPassword(FILE), or have the screen on a socket of your own: VNC()", n.vncPort)
	}
}

// screenOf is where a node's screen is shown: a TCP port of the host, or the path
// of a socket; empty where it has none.
func (l *lab) screenOf(np *NodePlan) string {
	if name, ok := strings.CutPrefix(np.VNC, "unix:"); ok {
		return l.folder.File(name)
	}
	return np.VNC
}

// Screen connects to the node's screen, as a viewer that speaks VNC. The caller
// closes it. On a TCP port the viewer is asked for the password.
func (n *Node) Screen(ctx context.Context) (net.Conn, error) {
	conn, err := n.openScreen(ctx)
	if err != nil {
		return nil, &NodeError{Node: n.name, Err: err}
	}
	return conn, nil
}

func (n *Node) openScreen(ctx context.Context) (net.Conn, error) {
	l, err := n.topology.open()
	if err != nil {
		return nil, err
	}
	np, client, err := l.connect(ctx, n.name)
	if err != nil {
		return nil, err
	}
	client.Close()
	at := l.screenOf(np)
	switch {
	case at == "":
		return nil, errors.New("it has no screen: declare it with VNC()")
	case !strings.HasPrefix(np.VNC, "unix:"):
		return new(net.Dialer).DialContext(ctx, "tcp", at)
	case !fileExists(at):
		return nil, fmt.Errorf("its screen is not there: %s", at)
	}
	return dialSocket(ctx, at)
}
