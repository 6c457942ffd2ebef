package fib

import (
	"testing"

	"rangefinder/rib"
)

// Who waits for a change hears of flips and of new tables, everybody, and once for each time that he asks.
func TestHandleTellsOfChanges(t *testing.T) {
	s := newSource(4)
	_, h, _ := maintain(t, s, nil)
	settled(t, s, h)
	for _, change := range []func(){
		func() { s.observe("shard_1_b", rib.Down, rib.Replica) },
		func() { s.own(2) },
	} {
		one, two := h.Changed(), h.Changed()
		select {
		case <-one:
			t.Fatal("nothing has changed")
		default:
		}
		change()
		<-one
		<-two
		settled(t, s, h)
	}
	var fresh Handle
	c := fresh.Changed()
	fresh.Store(h.Load())
	<-c
	if fresh.Load() != h.Load() {
		t.Error("it tells of the change before it is there")
	}
}
