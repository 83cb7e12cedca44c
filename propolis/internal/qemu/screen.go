package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/falcon-vm/falcon-go/propolis/internal/qmp"
)

// ErrNoScreen says that a machine has no screen.
var ErrNoScreen = errors.New("the machine has no screen")

// Screen connects a viewer to the machine's screen, by VNC. A viewer of whom a
// password is asked must know [Config.ScreenPassword].
func (m *Machine) Screen(ctx context.Context, password bool) (net.Conn, error) {
	if !m.cfg.Screen {
		return nil, ErrNoScreen
	}
	if password && m.cfg.ScreenPassword == "" {
		return nil, errors.New("the machine's screen has no password")
	}
	ours, theirs, err := socketPair("screen")
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	// QEMU holds one descriptor under a name, until it is used.
	m.screenMu.Lock()
	defer m.screenMu.Unlock()
	err = m.qmp.Pass(ctx, "viewer", theirs)
	if err == nil {
		err = m.qmp.Execute(ctx, "add_client", map[string]any{"protocol": "vnc", "fdname": "viewer", "skipauth": !password}, nil)
	}
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("connecting to the screen: %w", m.proc.explain(err))
	}
	return ours, nil
}

// setScreenPassword tells QEMU the password, which no other process can see so.
func setScreenPassword(ctx context.Context, c *qmp.Client, password string) error {
	if password == "" {
		return nil
	}
	if err := c.Execute(ctx, "set_password", map[string]any{"protocol": "vnc", "password": password}, nil); err != nil {
		return fmt.Errorf("setting the screen's password: %w", err)
	}
	return nil
}
