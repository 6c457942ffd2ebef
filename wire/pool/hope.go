package pool

import (
	"context"
	"slices"

	"rangefinder/rib"
)

// hope is about those of one identity for whom connections are being made. They take whichever comes first, be it made or given back, so that
// a single connection serves many of them long before their logins are over. That is what counts when a backend has died: all who used it come
// to the next one at once, and a server that starts a process for each of them is slow with all.
type hope struct {
	waiters []*waiter // the first comes first
	logins  int       // on their way for them; never fewer than waiters
}

// serve gives what there is to who came first.
func (h *hope) serve(g grant) {
	w := h.waiters[0]
	h.waiters = slices.Delete(h.waiters, 0, 1)
	w.grant <- g
}

// hope begins a login for w, in a place that is taken already; old has had it. mu is held.
func (bp *backendPool) hope(ctx context.Context, b *rib.Backend, w *waiter, old *Conn) {
	h := bp.hopes[w.id]
	if h == nil {
		h = new(hope)
		bp.hopes[w.id] = h
	}
	h.waiters = append(h.waiters, w)
	h.logins++
	id := w.id // w is not kept for as long as a login may take
	w.giveUp = bp.begin(context.WithoutCancel(ctx), b, id, old, func(c *Conn, err error) {
		if !bp.fulfil(id, c, err) && c != nil {
			c.Release()
		}
	})
}

// fulfil gives to one of those who hope what has become of a login. It returns false if none has it: they have got others', or do not wait any more.
func (bp *backendPool) fulfil(id Identity, c *Conn, err error) bool {
	bp.mu.Lock()
	defer bp.mu.Unlock()
	if err == nil {
		bp.known[id] = struct{}{}
	}
	h := bp.hopes[id]
	if h.logins--; h.logins == 0 {
		delete(bp.hopes, id)
	}
	switch {
	case err == nil && len(h.waiters) > 0:
		h.serve(grant{conn: c})
	case err != nil && len(h.waiters) > h.logins: // it is what there was for the last of them
		if bp.closed {
			err = ErrClosed
		}
		w := h.waiters[len(h.waiters)-1]
		h.waiters = h.waiters[:len(h.waiters)-1]
		w.grant <- grant{err: err}
	default:
		return false
	}
	return true
}

// despair is for one that hopes and does not wait any more. Its login is ended too, unless others need it. mu is held.
func (bp *backendPool) despair(w *waiter) {
	h := bp.hopes[w.id]
	h.waiters = slices.DeleteFunc(h.waiters, func(x *waiter) bool { return x == w })
	if len(h.waiters) < h.logins {
		w.giveUp()
	}
}
