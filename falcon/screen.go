package falcon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
)

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
