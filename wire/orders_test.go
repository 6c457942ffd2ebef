package wire

import "testing"

// Whoever listens to a channel that is listened to already waits for nothing: a channel that many come to and leave is not remembered with all of them.
func TestOrdersForgetWhoHeard(t *testing.T) {
	l := &listener{confirms: make(map[string]*order), kick: make(chan struct{}, 1), hub: new(hub)}
	first := l.listen("jobs", new(session))
	if again := l.listen("jobs", new(session)); again != first || len(first.waits) != 2 {
		t.Fatalf("%d wait for the answer", len(first.waits))
	}
	l.queue, l.sent = nil, l.queue
	if !l.answered() {
		t.Fatal("nothing was asked")
	}
	for range 1000 {
		l.listen("jobs", new(session))
	}
	if len(first.waits) != 0 {
		t.Errorf("%d wait for an answer that is there", len(first.waits))
	}
}
