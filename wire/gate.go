package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"rangefinder/wire/pg"
)

// gate counts the sessions that have, or are getting, a server connection to one database, and holds further ones back while
// the database is paused. Passing it costs two additions to an atomic.
type gate struct {
	// atomic
	inside   atomic.Int64
	pause    atomic.Pointer[pause] // nil: open
	disabled atomic.Bool           // no new sessions
	held     atomic.Int64          // nanoseconds that sessions have been held

	consistency atomic.Uint32 // Consistency of its sessions' reads, unless they say otherwise
	scatter     atomic.Uint32 // Scatter of its sessions' statements, unless they say otherwise
	isolated    atomic.Uint32 // Isolated of its sessions
	across      atomic.Bool   // its sessions' transactions may write on several shards, unless they say otherwise
}

// pause is one PAUSE of a database.
type pause struct {
	over  chan struct{} // closed by RESUME
	empty chan struct{} // capacity 1: the last session may have left
}

// enter lets a session in, or returns the pause that it has to wait for. A session counts itself first and looks then, and PAUSE
// does it the other way round: so one of them sees the other.
func (g *gate) enter() *pause {
	g.inside.Add(1)
	p := g.pause.Load()
	if p != nil {
		g.leave()
	}
	return p
}

// enterWithin lets in what is asked for a client that is not known yet, as long as ctx lasts.
func (g *gate) enterWithin(ctx context.Context) error {
	for p := g.enter(); p != nil; p = g.enter() {
		select {
		case <-p.over:
		case <-ctx.Done():
			return fmt.Errorf("the database is paused: %w", ctx.Err())
		}
	}
	return nil
}

// leave is called when the server connection is back in its pool, or closed.
func (g *gate) leave() {
	if g.inside.Add(-1) != 0 {
		return
	}
	if p := g.pause.Load(); p != nil {
		select {
		case p.empty <- struct{}{}:
		default:
		}
	}
}

// close begins a pause; it returns nil if there is one already.
func (g *gate) close() *pause {
	p := &pause{over: make(chan struct{}), empty: make(chan struct{}, 1)}
	if !g.pause.CompareAndSwap(nil, p) {
		return nil
	}
	return p
}

// open ends the pause p, or whichever there is if p is nil. It returns false if there is none.
func (g *gate) open(p *pause) bool {
	if p == nil {
		p = g.pause.Load()
	}
	if p == nil || !g.pause.CompareAndSwap(p, nil) {
		return false
	}
	close(p.over)
	return true
}

// errHangup ends what is held for a client that is not there any more.
var errHangup = errors.New("the client is gone")

var errWaitCanceled = &pg.Error{Severity: "ERROR", Code: pg.CodeQueryCanceled, Message: "canceling statement due to user request", Detail: "It waited on this node, for a server connection, for a primary, or for the end of a pause. Nothing of it was sent."}

// watchEvery is how often whoever is held looks whether its client is still there.
const watchEvery = time.Second

// pass waits until the database is not paused and enters the gate. It ends with ctx's cause, with errDraining, or with
// errHangup.
func (s *Server) pass(ctx context.Context, g *gate, client net.Conn) error {
	p := g.enter()
	if p == nil {
		return nil
	}
	since := time.Now()
	defer func() { g.held.Add(int64(time.Since(since))) }()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-p.over:
			if hungUp(client) {
				return errHangup
			}
			if p = g.enter(); p == nil {
				return nil
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.stopping.Done():
			return errDraining.WithSeverity("ERROR")
		case <-tick.C:
			if hungUp(client) {
				return errHangup
			}
		}
	}
}

// pass takes the session through its database's gate. While it is held, a CancelRequest ends its statement. False: the core has
// been told that there is no connection.
func (s *session) pass(ctx context.Context) bool {
	if s.gate.enter() == nil {
		return true
	}
	held, free := s.hold(ctx)
	err := s.server.pass(held, s.gate, s.client)
	free()
	if err == nil {
		return true
	}
	if errors.Is(err, errHangup) { // what it sent since is not to be run either
		s.clientGone()
	}
	s.core.refused(err)
	return false
}
