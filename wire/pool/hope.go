package pool

import (
	"context"
	"errors"
	"slices"

	"rangefinder/rib"
)

// hope is about those of one identity for whom connections are being made. They take whichever comes first, be it made or given back, so that
// a single connection serves many of them long before their logins are over. That is what counts when a backend has died: all who used it come
// to the next one at once, and a server that starts a process for each of them is slow with all.
type hope struct {
	waiters []*waiter // the first comes first
	logins  int       // on their way for them, without those that were given up; never fewer than waiters
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
	l := bp.begin(context.WithoutCancel(ctx), b, w.id, old, false)
	l.hope, w.login = h, l
}

// fulfil gives to one of those who hope what has become of a login. It returns false if none has it: they have got others', or do not wait any more.
func (bp *backendPool) fulfil(l *login, c *Conn, err error) bool {
	if err == nil {
		bp.known[l.id] = struct{}{}
	}
	if !l.gaveUp {
		l.hope.logins--
		defer bp.endHope(l.id, l.hope)
	}
	if h := bp.hopes[l.id]; err == nil && h != nil && len(h.waiters) > 0 {
		h.serve(h.waiters[0], grant{conn: c})
		return true
	}
	if err == nil || l.gaveUp {
		return false
	}
	w := l.hope.hears(l, err)
	if w == nil {
		return false
	}
	if bp.closed {
		err = ErrClosed
	}
	l.hope.serve(w, grant{err: err})
	return true
}

// hears is who is told that a login has failed; nil: nobody, for there are others that they wait for.
func (h *hope) hears(l *login, err error) *waiter {
	// What a backend has against the user it has against all of them: who wanted the login hears it, and not only when the others are over, which
	// may hang.
	var ce *ConnectError
	if errors.As(err, &ce) && !ce.Elsewhere() {
		if i := slices.IndexFunc(h.waiters, func(w *waiter) bool { return w.login == l }); i >= 0 {
			return h.waiters[i]
		}
	}
	if last := len(h.waiters) - 1; last >= h.logins { // it is what there was for the last of them
		return h.waiters[last]
	}
	return nil
}

// serve gives what there is to one that hopes.
func (h *hope) serve(w *waiter, g grant) {
	h.leave(w)
	w.grant <- g
}

func (h *hope) leave(w *waiter) {
	h.waiters = slices.DeleteFunc(h.waiters, func(x *waiter) bool { return x == w })
}

// endHope forgets it when nobody hopes any more, and nothing is made for those who did. mu is held.
func (bp *backendPool) endHope(id Identity, h *hope) {
	if len(h.waiters) == 0 && h.logins == 0 && bp.hopes[id] == h {
		delete(bp.hopes, id)
	}
}

// despair is for one that hopes and does not wait any more. Its login is ended too, unless others need it. mu is held.
func (bp *backendPool) despair(w *waiter) {
	h, l := w.login.hope, w.login
	h.leave(w)
	if len(h.waiters) < h.logins {
		bp.giveUp(l)
	}
	bp.endHope(w.id, h)
}
