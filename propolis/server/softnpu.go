package server

import (
	"context"
	"net"
	"sync"

	"github.com/falcon-vm/falcon-go/propolis/softnpu"
)

// asicMachine is a machine that may have a switch ASIC.
type asicMachine interface {
	// ASIC returns it, or nil.
	ASIC() *softnpu.ASIC
}

// asicDesk answers clients on the host as the ASIC of the machine answers its
// guest. A nil desk answers nobody.
type asicDesk struct {
	mu   sync.Mutex
	asic *softnpu.ASIC
}

func (d *asicDesk) attach(m Machine) {
	if am, ok := m.(asicMachine); d != nil && ok {
		d.set(am.ASIC())
	}
}

func (d *asicDesk) detach() {
	if d != nil {
		d.set(nil)
	}
}

func (d *asicDesk) set(a *softnpu.ASIC) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asic = a
}

func (d *asicDesk) current() *softnpu.ASIC {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asic
}

// serve answers the clients of a listener until ctx ends, and closes it. A
// client that comes when there is no ASIC is sent away.
func (d *asicDesk) serve(ctx context.Context, l net.Listener) {
	acceptAll(ctx, l, func(conn net.Conn) {
		defer conn.Close()
		asic := d.current()
		channel, ok := conn.(softnpu.Channel)
		if asic == nil || !ok {
			return
		}
		// What is wrong with one client is of no interest.
		_ = asic.ServeManagement(ctx, channel)
	})
}
