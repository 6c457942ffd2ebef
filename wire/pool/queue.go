package pool

import (
	"container/list"

	"rangefinder/wire/pg"
)

// waiter waits for a connection of its identity, or for leave to make one.
type waiter struct {
	id    Identity
	by    *Holder    // nil: of nobody who may hold others
	grant chan grant // capacity 1
	front bool       // see push
	el    *list.Element

	login *login // that was begun for it; nil: it stands in line
}

// grant is what a waiter gets: a connection, an error, or a place to make a connection in.
type grant struct {
	conn *Conn
	err  error
	old  *Conn // to be closed first: it has that place
}

// queue holds those who wait, in a line for each identity. Within a line the first comes first; between lines it goes round, so
// that a user with a long line keeps no other one waiting.
type queue struct {
	n     int
	lines map[Identity]*line
	turns list.List // of *line: who was served longest ago is first
}

type line struct {
	id      Identity
	waiters list.List // of *waiter
	turn    *list.Element
}

// push adds a waiter to its line; front is for one that was there already, and for one that holds other connections, for which others wait.
func (q *queue) push(w *waiter, front bool) {
	l := q.lines[w.id]
	if l == nil {
		l = &line{id: w.id}
		l.turn = q.turns.PushBack(l)
		q.lines[w.id] = l
	}
	var el *list.Element // which it comes before; nil: none
	if w.front = front; front {
		for el = l.waiters.Front(); el != nil && el.Value.(*waiter).front; {
			el = el.Next()
		}
	}
	if el != nil {
		w.el = l.waiters.InsertBefore(w, el)
	} else {
		w.el = l.waiters.PushBack(w)
	}
	q.n++
}

func (q *queue) remove(w *waiter) {
	l := q.lines[w.id]
	l.waiters.Remove(w.el)
	q.n--
	if l.waiters.Len() == 0 {
		q.turns.Remove(l.turn)
		delete(q.lines, w.id)
	}
}

// serve gives what there is to the first in a line, whose turn comes again last.
func (q *queue) serve(l *line, g grant) {
	w := l.waiters.Front().Value.(*waiter)
	q.turns.MoveToBack(l.turn)
	q.remove(w)
	w.grant <- g
}

// failAll sends everybody away.
func (q *queue) failAll(err error) {
	for el := q.turns.Front(); el != nil; el = q.turns.Front() {
		q.serve(el.Value.(*line), grant{err: err})
	}
}

// neediest is the line that should get the next place: of those that can use one, the one whose identity has the fewest places,
// and of these the one that was served longest ago. nil: none. mu is held.
func (bp *backendPool) neediest(but Identity) (best *line) {
	for el := bp.queue.turns.Front(); el != nil; el = el.Next() {
		l := el.Value.(*line)
		if l.id == but || bp.isFull(l.id) {
			continue
		}
		if best == nil || bp.held(l.id) < bp.held(best.id) {
			best = l
		}
		if bp.held(best.id) == 0 {
			break
		}
	}
	return best
}

// pass gives a connection that has come back to who should have it, or its place. It returns false if nobody wants either. A
// connection of another identity is of no use but for its place, and a new one costs a login: so it goes to its own line, as long as
// no other identity has fewer places by more than one, or none at all. mu is held.
func (bp *backendPool) pass(c *Conn) bool {
	own, other := bp.queue.lines[c.Identity], bp.neediest(c.Identity)
	if other != nil && bp.mayConnect() {
		if theirs := bp.held(other.id); own == nil || theirs == 0 || theirs+1 < bp.held(c.Identity) {
			bp.lose(c)
			bp.take(other.id)
			bp.queue.serve(other, grant{old: c})
			return true
		}
	}
	if own == nil {
		return false
	}
	bp.lent(c)
	bp.queue.serve(own, grant{conn: c})
	return true
}

// fill gives free places to those who wait, and the places of idle connections, which are of use to none of them. mu is held.
func (bp *backendPool) fill() {
	for !bp.closed && bp.queue.n > 0 && bp.mayConnect() {
		l := bp.neediest(Identity{})
		if l == nil {
			return
		}
		old, ok := bp.room(l.id)
		if !ok {
			return
		}
		bp.take(l.id)
		bp.queue.serve(l, grant{old: old})
	}
}

// room finds a place for one more connection; old has to go for it, if it is not nil. Where the backend itself is full, another user's
// idle connection may be what fills it. mu is held.
func (bp *backendPool) room(id Identity) (old *Conn, ok bool) {
	free := bp.bound() - bp.total
	if free < 0 {
		return nil, false
	}
	if free == 0 || bp.full[id] != nil {
		old = bp.popAnyIdle()
	}
	if old != nil {
		bp.lose(old)
	}
	return old, free > 0 || old != nil
}

// take notes a place that somebody makes a connection in. mu is held.
func (bp *backendPool) take(id Identity) {
	bp.total++
	s := bp.shelves[id]
	if s == nil {
		s = &Shelf{home: bp}
		bp.shelves[id] = s
	}
	s.held++
	bp.connecting++
}

// lose notes that a connection is about to be closed. mu is held.
func (bp *backendPool) lose(c *Conn) {
	delete(bp.conns, c)
	bp.leave(c.Identity)
}

// leave gives up a place. mu is held.
func (bp *backendPool) leave(id Identity) {
	bp.total--
	if s := bp.shelves[id]; s.held > 1 {
		s.held--
	} else {
		delete(bp.shelves, id)
	}
}

// words are what a backend said when it had no connection left; nil: nothing.
func (bp *backendPool) words(id Identity) *pg.Error {
	if f := bp.full[id]; f != nil {
		return f.words
	}
	return nil
}
