package server

import (
	"context"
	"errors"
	"testing"

	"github.com/falcon-vm/falcon-go/propolis"
)

func TestStatesAnswerAtOnceWhenTheGenerationIsThere(t *testing.T) {
	p := newStates(func(propolis.StateRecord) {})
	p.publish(propolis.StateStarting)
	for gen := range uint64(3) {
		rec, err := p.wait(t.Context(), gen)
		if err != nil || rec.Gen != 2 || rec.State != propolis.StateStarting {
			t.Errorf("waiting for %d gave %v, %v", gen, rec, err)
		}
	}
}

func TestStatesWaitForTheGeneration(t *testing.T) {
	p := newStates(func(propolis.StateRecord) {})
	got := make(chan propolis.StateRecord)
	go func() {
		rec, _ := p.wait(context.Background(), 3)
		got <- rec
	}()
	p.publish(propolis.StateStarting)
	select {
	case rec := <-got:
		t.Fatalf("answered early with %v", rec)
	default:
	}
	p.publish(propolis.StateRunning)
	if rec := <-got; rec.Gen != 3 || rec.State != propolis.StateRunning {
		t.Errorf("got %v", rec)
	}
}

func TestStatesEndForThoseWhoWait(t *testing.T) {
	p := newStates(func(propolis.StateRecord) {})
	p.finish(propolis.StateFailed, "why")
	if rec, err := p.wait(t.Context(), 2); err != nil || rec.Failure != "why" {
		t.Errorf("the last record is %v, %v", rec, err)
	}
	if _, err := p.wait(t.Context(), 3); !errors.Is(err, errNoMoreStates) {
		t.Errorf("waiting beyond the end gave %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newStates(func(propolis.StateRecord) {}).wait(ctx, 9); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting with an ended context gave %v", err)
	}
}
