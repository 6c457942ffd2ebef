package pool_test

import (
	"testing"
	"time"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
)

// A backend that rests has as few connections as can be: none that nobody uses. Who asks for one gets it all the same.
func TestRest(t *testing.T) {
	be := newBackend(t)
	r := newRig(t, be, 4, time.Second)
	idle, lent := r.get(t, "u"), r.get(t, "v")
	idle.Release()
	open := func(want int32) {
		t.Helper()
		pgtest.Eventually(t, 10*time.Second, func() error {
			if n := be.open.Load(); n != want {
				return errOpen(n)
			}
			return nil
		})
	}
	open(2)
	if n := r.Rest(map[string]bool{r.b.Name: true, "another": true}); n != 1 {
		t.Errorf("%d idle connections were closed, want 1", n)
	}
	open(1)
	if n := r.Rest(map[string]bool{r.b.Name: true}); n != 0 {
		t.Errorf("said again, %d connections were closed", n)
	}
	lent.Release()
	open(0)
	again := r.get(t, "u")
	again.Release()
	open(0)
	for _, s := range r.Stats() {
		if s.InUse+s.Idle != 0 {
			t.Errorf("connections are counted that are closed: %+v", s)
		}
	}
	if n := r.Rest(nil); n != 0 {
		t.Errorf("%d connections were closed at its end", n)
	}
	again = r.get(t, "u")
	again.Release()
	if c := again.Shelf().Ready(true); c != again {
		t.Error("a connection is not kept though its backend rests no more")
	} else {
		c.Release()
	}
	open(1)
}

// A connection that was made while its backend rests is closed when it comes back, also if a login is under way that nobody waits for any more.
func TestRestWhileALoginHangs(t *testing.T) {
	be := newBackend(t)
	p := newHangingSecond(t, pg.Credential{})
	b := &rib.Backend{Name: "b", Shard: "s", Addr: be.ln.Addr().String()}
	p.Rest(map[string]bool{b.Name: true})
	held := p.held(t, b, user("u"))
	held.Release()
	for _, s := range p.Stats() {
		if s.Idle != 0 {
			t.Errorf("%+v", s)
		}
	}
}

// Whoever drains a backend that is silent, as it often will be, does not wait for each of its connections.
func TestRestOfASilentBackend(t *testing.T) {
	be := newBackend(t)
	be.deaf.Store(true)
	const many = 60
	r := newRig(t, be, many, time.Second)
	var lent []*pool.Conn
	for range many {
		lent = append(lent, r.get(t, "u"))
	}
	for _, c := range lent {
		c.Release()
	}
	began := time.Now()
	if n := r.Rest(map[string]bool{r.b.Name: true}); n != many {
		t.Errorf("%d connections were closed", n)
	}
	if took := time.Since(began); took > 3*time.Second { // one after the other, it is twice that
		t.Errorf("it took %v", took)
	}
}

// errOpen says how many connections there are.
type errOpen int32

func (n errOpen) Error() string { return "so many connections are open: " + string(rune('0'+n)) }
