package wire

import (
	"sync/atomic"
	"time"

	"rangefinder/wire/console"
)

// tally is what is counted of a session, and what others may know of it. The session's goroutine writes it, alone; so nothing
// here is contended.
type tally struct {
	// atomic
	transactions atomic.Uint64 // that servers have ended
	queries      atomic.Uint64 // requests answered: ReadyForQuery messages, the node's own ones too
	received     atomic.Uint64 // bytes from the client
	sent         atomic.Uint64 // bytes to the client
	asked        atomic.Int64  // when its last statement was planned, in nanoseconds of env.now; 0: none yet
	pin          atomic.Pointer[string]
	turn         atomic.Uint64 // what the session does, in the bits of doing; the others change with every request and every wait
	overran      atomic.Uint64 // the turn whose statement was canceled because of its timeout
}

// doing is what a session does, as far as timeouts care.
type doing uint64

const (
	busy     doing = iota // it has something to do, or waits for COPY data
	idle                  // it waits for its client, outside any transaction
	inBlock               // it waits for its client, in a transaction: also one that no server knows of yet
	allDoing doing = 3
)

// wake notes that the client has sent something.
func (t *tally) wake() {
	if v := t.turn.Load(); doing(v)&allDoing != busy {
		t.turn.Store(v&^uint64(allDoing) + uint64(allDoing) + 1)
	}
}

// anew notes that the session begins only now with what it has to do.
func (t *tally) anew() { t.turn.Store(t.turn.Load() + uint64(allDoing) + 1) }

// rest notes that the session waits for its client. A session that still does has not begun to wait anew.
func (t *tally) rest(d doing) {
	if v := t.turn.Load(); doing(v)&allDoing != d {
		t.turn.Store(v&^uint64(allDoing) + uint64(allDoing) + 1 + uint64(d))
	}
}

// answered counts an answer of the server, by the transaction status it ended with.
func (t *tally) answered(status byte, passedOn bool) {
	if passedOn {
		t.queries.Add(1)
	}
	if status == 'I' {
		t.transactions.Add(1)
	}
}

// addTo adds what was counted to a database's totals.
func (t *tally) addTo(d *console.Totals) {
	d.Transactions += t.transactions.Load()
	d.Queries += t.queries.Load()
	d.Received += t.received.Load()
	d.Sent += t.sent.Load()
}

// lastAsked is when the last statement was planned; before the first one it is connected. made is when
// env.now was 0.
func (t *tally) lastAsked(connected, made time.Time) time.Time {
	if ns := t.asked.Load(); ns != 0 {
		return made.Add(time.Duration(ns))
	}
	return connected
}
