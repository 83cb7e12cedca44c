package qmp

import "sync"

// queue hands events from a writer that must not wait to a reader that may.
type queue struct {
	out     chan Event
	wake    chan struct{} // holds a token while pump has something to look at
	dropped chan struct{}

	mu     sync.Mutex
	events []Event
	count  map[string]int // of events by name
	closed bool
	once   sync.Once
}

func newQueue() *queue {
	q := &queue{out: make(chan Event), wake: make(chan struct{}, 1), dropped: make(chan struct{}), count: make(map[string]int)}
	go q.pump()
	return q
}

// maxWaiting bounds how many events of one name wait: a guest can cause some as
// often as it likes, and what it says once more is no news.
const maxWaiting = 1024

// push adds an event. It never waits.
func (q *queue) push(e Event) {
	q.mu.Lock()
	if q.count[e.Name] < maxWaiting {
		q.count[e.Name]++
		q.events = append(q.events, e)
	}
	q.mu.Unlock()
	q.signal()
}

// close says that no event will follow; those pushed can still be read.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.signal()
}

// drop gives up the events that were not read and closes out.
func (q *queue) drop() { q.once.Do(func() { close(q.dropped) }) }

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) pump() {
	defer close(q.out)
	for {
		batch, closed := q.take()
		for _, e := range batch {
			select {
			case q.out <- e:
			case <-q.dropped:
				return
			}
		}
		if closed {
			return
		}
		select {
		case <-q.wake:
		case <-q.dropped:
			return
		}
	}
}

func (q *queue) take() ([]Event, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	batch := q.events
	q.events = nil
	clear(q.count)
	return batch, q.closed
}
