package p4

import (
	"sync"
	"time"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/internal/syntax"
)

// meterCell is one two-rate three-colour marker (RFC 2698, colour-blind).
type meterCell struct {
	mu     sync.Mutex
	config MeterConfig
	// committed and peak are the tokens, in thousandths of a byte or packet.
	committed, peak float64
	last            time.Time
}

// MeterConfig is how a cell of a meter is set: rates a second and bursts, of bytes or packets as the program says. A cell
// that is not set marks everything green.
type MeterConfig struct {
	CommittedRate, CommittedBurst uint64
	PeakRate, PeakBurst           uint64
}

// Colors of a meter.
const (
	meterGreen  = "GREEN"
	meterYellow = "YELLOW"
	meterRed    = "RED"
)

func (x *meterCell) mark(now time.Time, cost float64) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	cfg := x.config
	if cfg == (MeterConfig{}) {
		return meterGreen
	}
	if !x.last.IsZero() {
		dt := now.Sub(x.last).Seconds()
		x.committed = min(float64(cfg.CommittedBurst), x.committed+dt*float64(cfg.CommittedRate))
		x.peak = min(float64(cfg.PeakBurst), x.peak+dt*float64(cfg.PeakRate))
	}
	x.last = now
	switch {
	case x.peak < cost:
		return meterRed
	case x.committed < cost:
		x.peak -= cost
		return meterYellow
	}
	x.peak -= cost
	x.committed -= cost
	return meterGreen
}

// meterMethod compiles execute(index), which gives the color as an enum, and execute_meter(index, out color), which puts
// it in a number: 0 is green, 1 yellow, 2 red.
func (c *compiler) meterMethod(sc *scope, x *externInst, e *syntax.CallExpr, name string, vals []value, count func(int) bool) value {
	bad := c.badValue(e.Pos)
	index := x.index
	packets := x.algorithm == "packets" || x.algorithm == "PACKETS"
	mark := func(at func(*machine) uint64) func(*machine) string {
		return func(m *machine) string {
			k := at(m)
			if k >= uint64(len(m.externs[index].meters)) {
				return meterGreen
			}
			cost := float64(len(m.pkt))
			if packets {
				cost = 1
			}
			return m.externs[index].meters[k].mark(time.Now(), cost)
		}
	}
	switch name {
	case "execute":
		if !count(1) {
			return bad
		}
		at := c.cell(x, vals[0])
		d, _ := c.global.lookup(catType, "PSA_MeterColor_t").(*typeDecl)
		if at == nil || d == nil {
			return bad
		}
		t, f := c.declaredType(d), mark(at)
		number := map[string]uint64{}
		for i, m := range t.members {
			number[m] = uint64(i)
		}
		return value{t: t, pos: e.Pos, calls: true, n: func(m *machine) uint64 { return number[f(m)] }}
	case "execute_meter":
		if !count(2) || !c.assignable(vals[1]) {
			return bad
		}
		at := c.cell(x, vals[0])
		if at == nil {
			return bad
		}
		t, f := vals[1].t, mark(at)
		if t.kind != kindBit || !t.narrow() || t.width < 2 {
			c.errorf(vals[1].pos, "a color goes into bit<W> of 2 to 64 bits, and this is %s", t)
			return bad
		}
		v := value{t: t, pos: e.Pos, n: func(m *machine) uint64 {
			switch f(m) {
			case meterYellow:
				return 1
			case meterRed:
				return 2
			}
			return 0
		}}
		return void(e.Pos, c.store(vals[1].lv, v, t))
	}
	c.errorf(e.Pos, "a meter has execute and execute_meter, and no %q", name)
	return bad
}
