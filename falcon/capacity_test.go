package falcon

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// fakeLoad is a host whose load is what a test says.
type fakeLoad struct {
	now hostLoad
	err error
	// cpu and memory are the shares of the time in which somebody waits.
	cpu, memory float64
}

func (f *fakeLoad) load() (hostLoad, error) {
	if f.now.at.IsZero() {
		f.now.at = time.Now()
	}
	past := time.Since(f.now.at)
	f.now.at = time.Now()
	f.now.cpu += time.Duration(f.cpu * float64(past))
	f.now.memory += time.Duration(f.memory * float64(past))
	return f.now, f.err
}

// gated has count nodes start through a gate, each of which takes a time to be
// ready, and returns when each was let in and how many were in flight then.
func gated(t *testing.T, g *gate, count int, takes time.Duration) (at []time.Duration, most []int) {
	t.Helper()
	begun := time.Now()
	type entry struct {
		at       time.Duration
		inFlight int
	}
	entries := make(chan entry, count)
	for range count {
		go func() {
			release, err := g.acquire(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			g.mu.Lock()
			entries <- entry{time.Since(begun), g.inFlight}
			g.mu.Unlock()
			time.Sleep(takes)
			release()
			release() // once is enough, twice does no harm
		}()
	}
	for range count {
		e := <-entries
		at, most = append(at, e.at), append(most, e.inFlight)
	}
	time.Sleep(takes)
	synctest.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inFlight != 0 || len(g.queue) != 0 || g.timer != nil {
		t.Errorf("at the end there are %d in flight, %d wait, the timer is %v", g.inFlight, len(g.queue), g.timer)
	}
	return at, most
}

func TestGateLetsInWhatTheHostCanCarry(t *testing.T) {
	const need = Bytes(100 << 20)
	for name, c := range map[string]struct {
		load fakeLoad
		// most is the most in flight ever, last when the last of 12 nodes that
		// take 1.1 seconds each is let in.
		most int
		last time.Duration
	}{
		"cores are busy: four at a time":          {fakeLoad{cpu: 0.9, now: hostLoad{measured: true, free: 100 * need}}, 4, 2200 * time.Millisecond},
		"cores are idle: one more at each look":   {fakeLoad{cpu: 0.1, now: hostLoad{measured: true, free: 100 * need}}, 8, 1100 * time.Millisecond},
		"nothing is counted: four at a time":      {fakeLoad{now: hostLoad{free: 100 * need}}, 4, 2200 * time.Millisecond},
		"the load cannot be read: four at a time": {fakeLoad{err: errors.New("no"), cpu: 0.1, memory: 1}, 4, 2200 * time.Millisecond},
		"room for two: two at a time":             {fakeLoad{cpu: 0.9, now: hostLoad{measured: true, free: 2*need + need/2}}, 2, 5500 * time.Millisecond},
		"room for none: one at a time":            {fakeLoad{cpu: 0.9, now: hostLoad{measured: true, free: need / 2}}, 1, 12100 * time.Millisecond},
		"memory is scarce: fewer, down to one":    {fakeLoad{memory: 0.5, now: hostLoad{measured: true, free: 100 * need}}, 4, 8800 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &gate{load: c.load.load, begin: 4, limit: 4, need: need}
				at, inFlight := gated(t, g, 12, 1100*time.Millisecond)
				if most, last := slices.Max(inFlight), slices.Max(at); most != c.most || last != c.last {
					t.Errorf("at most %d in flight, the last after %v; want %d and %v", most, last, c.most, c.last)
				}
			})
		})
	}
}

func TestGateIsOpenWhereTheHostDoesNotTell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at, _ := gated(t, &gate{limit: 1}, 100, time.Second)
		if last := slices.Max(at); last != 0 {
			t.Errorf("a node waited for %v", last)
		}
	})
}

// A node whose boot waits for what another serves would wait forever if that
// one were not let in.
func TestGateOpensWhenNothingMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		load := fakeLoad{cpu: 1, now: hostLoad{measured: true}}
		g := &gate{load: load.load, begin: 1, limit: 1}
		release, err := g.acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		begun := time.Now()
		second, err := g.acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer second()
		if waited := time.Since(begun); waited < gatePatience || waited > gatePatience+gateInterval {
			t.Errorf("it waited for %v, want %v", waited, gatePatience)
		}
	})
}

func TestGateForgetsWhoGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		load := fakeLoad{cpu: 1, now: hostLoad{measured: true}}
		g := &gate{load: load.load, begin: 1, limit: 1}
		first, err := g.acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := make(chan error)
		go func() {
			_, err := g.acquire(ctx)
			gone <- err
		}()
		synctest.Wait()
		let := make(chan func())
		go func() {
			release, err := g.acquire(t.Context())
			if err != nil {
				t.Error(err)
			}
			let <- release
		}()
		synctest.Wait()
		cancel(cause)
		if err := <-gone; !errors.Is(err, cause) {
			t.Errorf("error %v", err)
		}
		first()
		(<-let)()
		if _, err := g.acquire(ctx); !errors.Is(err, cause) {
			t.Errorf("through an open gate: error %v", err)
		}
		if g.inFlight != 0 || len(g.queue) != 0 {
			t.Errorf("%d in flight and %d in the queue", g.inFlight, len(g.queue))
		}
	})
}
