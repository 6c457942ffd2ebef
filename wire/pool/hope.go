package pool

import (
	"context"
	"slices"
	"time"

	"rangefinder/rib"
)

// hope is about those of one identity for whom connections are being made. They take whichever comes first, be it made or given back, so that
// a single connection serves many of them long before their logins are over. That is what counts when a backend has died: all who used it come
// to the next one at once, and a server that starts a process for each of them is slow with all.
type hope struct {
	waiters []*waiter // the first comes first
	logins  int       // on their way for them; never fewer than waiters that have begun one
}

// patience is how long somebody waits for a connection that is in use, or for a login that is under way, before a login of his own is begun as well. Most
// statements are over by then.
const patience = 25 * time.Millisecond

// promises reports whether a connection will be free soon without a login more: one is in use, and another one is being made. mu is held.
func (bp *backendPool) promises(id Identity) bool {
	s := bp.shelves[id]
	return s != nil && s.making > 0 && s.held > s.making
}

// begun is how many of those who wait have begun a login.
func (h *hope) begun() (n int) {
	for _, w := range h.waiters {
		if w.giveUp != nil {
			n++
		}
	}
	return n
}

func (bp *backendPool) addHope(w *waiter) {
	h := bp.hopes[w.id]
	if h == nil {
		h = new(hope)
		bp.hopes[w.id] = h
	}
	h.waiters = append(h.waiters, w)
	w.hope = h
}

// hope begins a login for w, in a place that is taken already; old has had it. mu is held.
func (bp *backendPool) hope(ctx context.Context, b *rib.Backend, w *waiter, old *Conn) {
	bp.addHope(w)
	bp.beginFor(ctx, b, w, old)
}

// hopeLater does so when the patience of w is over, if there is a place then; if not, w is sent to the queue. mu is held.
func (bp *backendPool) hopeLater(ctx context.Context, b *rib.Backend, w *waiter) {
	bp.addHope(w)
	time.AfterFunc(patience, func() {
		bp.mu.Lock()
		defer bp.mu.Unlock()
		if !slices.Contains(w.hope.waiters, w) {
			return
		}
		if bp.closed {
			bp.serveHope(w, grant{err: ErrClosed})
			return
		}
		if old, ok := bp.place(w.id); ok {
			bp.beginFor(ctx, b, w, old)
			return
		}
		bp.serveHope(w, grant{err: errQueue})
	})
}

func (bp *backendPool) beginFor(ctx context.Context, b *rib.Backend, w *waiter, old *Conn) {
	w.hope.logins++
	id := w.id // w is not kept for as long as a login may take
	w.giveUp = bp.begin(context.WithoutCancel(ctx), b, id, old, false, func(c *Conn, err error) {
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
	h.logins--
	defer bp.endHope(id, h)
	switch {
	case err == nil && len(h.waiters) > 0:
		bp.serveHope(h.waiters[0], grant{conn: c})
	case err != nil && h.begun() > h.logins: // it is what there was for the last of them
		if bp.closed {
			err = ErrClosed
		}
		last := len(h.waiters) - 1
		for h.waiters[last].giveUp == nil {
			last--
		}
		bp.serveHope(h.waiters[last], grant{err: err})
	default:
		return false
	}
	return true
}

// serveHope gives what there is to one that hopes. mu is held.
func (bp *backendPool) serveHope(w *waiter, g grant) {
	w.hope.waiters = slices.DeleteFunc(w.hope.waiters, func(x *waiter) bool { return x == w })
	bp.endHope(w.id, w.hope)
	w.grant <- g
}

// endHope forgets it when nobody hopes any more, and nothing is made for those who did. mu is held.
func (bp *backendPool) endHope(id Identity, h *hope) {
	if len(h.waiters) == 0 && h.logins == 0 {
		delete(bp.hopes, id)
	}
}

// despair is for one that hopes and does not wait any more. Its login is ended too, unless others need it. mu is held.
func (bp *backendPool) despair(w *waiter) {
	h := w.hope
	h.waiters = slices.DeleteFunc(h.waiters, func(x *waiter) bool { return x == w })
	bp.endHope(w.id, h)
	if w.giveUp != nil && h.begun() < h.logins {
		w.giveUp()
	}
}
