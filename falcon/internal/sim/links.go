package sim

import (
	"sync"
	"sync/atomic"
)

// links are the cables of a world: each device knows the name of its peer, and
// what is sent at one comes out at the other when a guest is there.
type links struct {
	mu      sync.RWMutex
	devices map[string]*device
}

// device is one end of a cable, as the host sees it. It stays when its guest
// goes, and its counters with it.
type device struct {
	peer                  string
	nic                   *nic // nil when no guest runs there
	frames, bytes         atomic.Uint64
	sentFrames, sentBytes atomic.Uint64
}

func newLinks() *links { return &links{devices: make(map[string]*device)} }

// attach plugs a guest's interface in.
func (l *links) attach(n *nic) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.devices[n.device]
	if d == nil {
		d = &device{}
		l.devices[n.device] = d
	}
	d.peer, d.nic = n.peer, n
}

// detach unplugs a guest's interface, unless another is plugged in there by
// now.
func (l *links) detach(n *nic) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d := l.devices[n.device]; d != nil && d.nic == n {
		d.nic = nil
	}
}

// send passes a frame from a device to its peer, unchanged. Where nobody is at
// the other end it is lost, as on a cable.
func (l *links) send(name string, frame []byte) {
	l.mu.RLock()
	from := l.devices[name]
	var to *device
	var receiver *nic
	if from != nil {
		if to = l.devices[from.peer]; to != nil {
			receiver = to.nic
		}
	}
	l.mu.RUnlock()
	if from == nil {
		return
	}
	from.frames.Add(1)
	from.bytes.Add(uint64(len(frame)))
	if receiver == nil {
		return
	}
	to.sentFrames.Add(1)
	to.sentBytes.Add(uint64(len(frame)))
	receiver.receive(frame)
}

// counters returns the counters of all devices.
func (l *links) counters() map[string]Counters {
	l.mu.RLock()
	defer l.mu.RUnlock()
	all := make(map[string]Counters, len(l.devices))
	for name, d := range l.devices {
		all[name] = Counters{
			Up: d.nic != nil, ReceivedFrames: d.frames.Load(), ReceivedBytes: d.bytes.Load(),
			SentFrames: d.sentFrames.Load(), SentBytes: d.sentBytes.Load(),
		}
	}
	return all
}
