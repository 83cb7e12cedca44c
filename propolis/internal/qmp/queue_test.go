package qmp

import "testing"

func TestAFloodOfOneEventDoesNotPileUp(t *testing.T) {
	q := &queue{wake: make(chan struct{}, 1), count: make(map[string]int)}
	for range 10 * maxWaiting {
		q.push(Event{Name: "GUEST_PANICKED"})
	}
	q.push(Event{Name: "STOP"})
	batch, _ := q.take()
	if len(batch) != maxWaiting+1 || batch[maxWaiting].Name != "STOP" {
		t.Errorf("%d events wait, the last %v", len(batch), batch[len(batch)-1])
	}
	q.push(Event{Name: "GUEST_PANICKED"})
	if batch, _ := q.take(); len(batch) != 1 {
		t.Errorf("after they were read %d wait", len(batch))
	}
}
