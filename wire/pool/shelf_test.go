package pool_test

import (
	"testing"
	"time"

	"rangefinder/rib"
	"rangefinder/wire/pool"
)

// TestShelf: who keeps the shelf of a connection gets what Pools would have lent, and nothing any more once the pool is another one.
func TestShelf(t *testing.T) {
	be := newBackend(t)
	r := newRig(t, be, 4, time.Second)
	a, b, other := r.get(t, "u"), r.get(t, "u"), r.get(t, "v")
	s := a.Shelf()
	if b.Shelf() != s || other.Shelf() == s {
		t.Error("a shelf is of one identity, and all of its connections have it")
	}
	if s.Ready(false) != nil {
		t.Error("something is lent that was not given back")
	}
	other.Release()
	a.Release()
	b.Release()
	if c := s.Ready(true); c != b {
		t.Error("not the one that was used last")
	}
	if c := r.Ready(r.b, a.Identity, false); c != a {
		t.Error("Pools and the shelf do not lend the same")
	}
	a.Release()
	b.Release()

	r.Reconnect("d")
	if c := s.Ready(false); c != nil {
		t.Error("a connection that was to be renewed is lent")
	}
	again := r.get(t, "u")
	again.Release()
	if c := again.Shelf().Ready(false); c != again {
		t.Error("the new connection is not on its shelf")
	}
	again.Release()
	moved := &rib.Backend{Name: "b", Shard: "s", Addr: newBackend(t).ln.Addr().String()}
	now, err := r.Get(t.Context(), moved, again.Identity, false)
	if err != nil {
		t.Fatal(err)
	}
	now.Release()
	if c := s.Ready(false); c != nil {
		t.Error("a connection to where the backend was is lent")
	}
	var none *pool.Shelf
	if none.Ready(false) != nil {
		t.Error("no shelf, but a connection")
	}
}

func BenchmarkLend(b *testing.B) {
	be := newBackend(b)
	r := newRig(b, be, 1, time.Second)
	c, err := r.Get(b.Context(), r.b, pool.Identity{User: "u", Database: "d"}, false)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		c.Release()
		c = c.Shelf().Ready(false)
	}
	c.Release()
}
