package gossip

import (
	"sync"

	"github.com/hashicorp/memberlist"
)

const (
	inboxMessages = 8192
	inboxBytes    = 16 << 20
)

// inbox takes what memberlist's callbacks bring, without blocking them, and hands it to the one goroutine that works on
// it. Messages beyond the bound are dropped and counted: sums and digests bring them back. Events are never dropped, but
// only the newest of a node is kept, so they are bounded by the number of nodes.
type inbox struct {
	// constant
	wake chan struct{} // capacity 1

	mu     sync.Mutex
	closed bool
	msgs   [][]byte
	bytes  int
	events map[string]event
	order  []string // names in events, as they came
}

// event is a node that came (or changed) or went. The node is a copy.
type event struct {
	node memberlist.Node
	gone bool
}

func newInbox() *inbox {
	return &inbox{wake: make(chan struct{}, 1), events: make(map[string]event)}
}

// put copies the message; false: it was dropped.
func (b *inbox) put(msg []byte) bool {
	b.mu.Lock()
	if b.closed || len(b.msgs) >= inboxMessages || b.bytes+len(msg) > inboxBytes {
		b.mu.Unlock()
		return false
	}
	b.msgs = append(b.msgs, append([]byte(nil), msg...))
	b.bytes += len(msg)
	b.mu.Unlock()
	b.ring()
	return true
}

func (b *inbox) putEvent(n *memberlist.Node, gone bool) {
	e := event{node: copyNode(n), gone: gone}
	b.mu.Lock()
	if !b.closed {
		if _, ok := b.events[n.Name]; !ok {
			b.order = append(b.order, n.Name)
		}
		b.events[n.Name] = e
	}
	b.mu.Unlock()
	b.ring()
}

// take empties the inbox. Events come before messages: a record of a node that just joined finds it known.
func (b *inbox) take() (events []event, msgs [][]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, name := range b.order {
		events = append(events, b.events[name])
	}
	clear(b.events)
	b.order = b.order[:0]
	msgs, b.msgs, b.bytes = b.msgs, nil, 0
	return events, msgs
}

// close lets everything that still comes fall on the floor: memberlist calls back even after its Shutdown.
func (b *inbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.msgs, b.events, b.order = nil, nil, nil
}

func (b *inbox) ring() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// copyNode copies deeply: memberlist goes on writing to its own.
func copyNode(n *memberlist.Node) memberlist.Node {
	c := *n
	c.Addr = append([]byte(nil), n.Addr...)
	c.Meta = append([]byte(nil), n.Meta...)
	return c
}
