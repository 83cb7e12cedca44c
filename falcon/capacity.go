package falcon

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"
)

// loadMeter is a host that tells how it bears what runs on it.
type loadMeter interface {
	load() (hostLoad, error)
}

// hostLoad is what a host tells of its load. The two times only grow: what
// matters is how much they do from one look to the next.
type hostLoad struct {
	at time.Time
	// cpu is for how long somebody has been ready to run and without a core,
	// memory for how long somebody has waited for memory. They are 0 where
	// the host does not count them: measured is false then.
	cpu, memory time.Duration
	measured    bool
	// free is what new programs may take.
	free Bytes
}

const (
	// startsPerCore is how many nodes start at once for each core to begin
	// with. Measured on two cores without hardware acceleration, it takes the
	// less the more start at once, clones and boots alike: 50 clones 8.3 s all
	// at once, 8.8 s with 16 and 9.7 s with 8 in flight, 10 boots 20.6 s, and
	// 22.5 s with 3. But what each of them waits for takes longer then, and
	// there are deadlines for it: of 50 boots at once some were missed.
	startsPerCore = 16
	// gateInterval is how often the load is looked at while nodes wait. What
	// the host's counters say of less time is chance.
	gateInterval = 250 * time.Millisecond
	// gatePatience is how long nodes wait for others of which none becomes
	// ready: those may wait for what a waiting one serves.
	gatePatience = 20 * time.Second
	// idleShare is how much of the time somebody may wait for a core, and the
	// cores yet have time to spare; scarceShare is how much of it somebody
	// waits for memory when it has run out. Three guests that boot on two
	// cores wait for half of the time and more.
	idleShare   = 0.25
	scarceShare = 0.10
)

// gate lets as many nodes start at once as the host can carry: a number for each
// core, more as long as cores are idle, and fewer while memory is scarce.
type gate struct {
	load  func() (hostLoad, error) // nil where the host does not tell
	begin int                      // the limit to begin with
	need  Bytes                    // what a node may take

	mu       sync.Mutex
	limit    int
	inFlight int
	queue    []chan struct{} // those who wait, each closed to let it in
	last     hostLoad
	moved    time.Time   // when a node was last let in, or has become ready
	timer    *time.Timer // looks at the load while nodes wait
}

// newGate returns the gate for the nodes of a launch.
func (l *lab) newGate(nodes []*NodePlan) *gate {
	var need Bytes
	for _, np := range nodes {
		need = max(need, np.Memory+overhead)
	}
	g := &gate{begin: startsPerCore * runtime.GOMAXPROCS(0), need: need}
	if m, ok := l.host.(loadMeter); ok {
		g.load = m.load
	}
	g.limit = g.begin
	return g
}

// acquire waits until one more node may start. Release says that it is ready,
// or never will be.
func (g *gate) acquire(ctx context.Context) (release func(), err error) {
	if g.load == nil {
		return func() {}, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	admitted := make(chan struct{})
	g.mu.Lock()
	g.queue = append(g.queue, admitted)
	g.advance()
	g.mu.Unlock()
	select {
	case <-admitted:
		return sync.OnceFunc(g.release), nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	i := slices.Index(g.queue, admitted)
	if i >= 0 {
		g.queue = slices.Delete(g.queue, i, i+1)
	}
	g.mu.Unlock()
	if i < 0 {
		g.release() // it was let in meanwhile
	}
	return nil, context.Cause(ctx)
}

func (g *gate) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inFlight--
	g.moved = time.Now()
	g.advance()
}

// advance lets in who may start, in the order in which they came. g.mu is held.
func (g *gate) advance() {
	g.adapt()
	for len(g.queue) > 0 && g.admits() {
		close(g.queue[0])
		g.queue = g.queue[1:]
		g.inFlight++
		g.moved = time.Now()
	}
	switch {
	case len(g.queue) == 0 && g.timer != nil:
		g.timer.Stop()
		g.timer = nil
	case len(g.queue) > 0 && g.timer == nil:
		g.timer = time.AfterFunc(gateInterval, g.look)
	}
}

// look is advance for when nothing has happened.
func (g *gate) look() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.timer = nil
	g.advance()
}

// admits reports whether one more node may start. The first always may: whether
// there is room for it was looked at before.
func (g *gate) admits() bool {
	switch {
	case g.inFlight == 0:
		return true
	case time.Since(g.moved) >= gatePatience:
		return true
	case g.inFlight >= g.limit:
		return false
	}
	// Those in flight may not have taken yet what they need.
	return g.last.free == 0 || g.last.free >= Bytes(g.inFlight+1)*g.need
}

// adapt changes the limit by what the host has told since the last look.
func (g *gate) adapt() {
	if !g.last.at.IsZero() && time.Since(g.last.at) < gateInterval {
		return
	}
	next, err := g.load()
	if err != nil {
		return // no reason to stop, or to hurry
	}
	last := g.last
	g.last = next
	past := next.at.Sub(last.at)
	if last.at.IsZero() || !last.measured || !next.measured || past <= 0 {
		return
	}
	share := func(from, to time.Duration) float64 { return float64(to-from) / float64(past) }
	switch {
	case share(last.memory, next.memory) > scarceShare:
		g.limit = max(1, min(g.limit, g.inFlight)-1)
	case g.limit < g.begin:
		g.limit++
	case g.inFlight >= g.limit && share(last.cpu, next.cpu) < idleShare:
		g.limit++
	}
}
