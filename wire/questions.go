package wire

import (
	"context"
	"errors"
	"io"
	"time"

	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
)

// This file is about connections for what is asked when a client logs in: what is kept of its password, what its role begins with, whether a server takes what
// it wants to begin with. A login does not wait behind sessions that keep their connections for as long as they like: its first statement does.

const (
	// inLine is how long a question waits for a connection of the pool. Sessions that take turns give one up in that time.
	inLine = 100 * time.Millisecond
	// maxBeside bounds the connections to one backend beside its pool, for questions about logins.
	maxBeside = 2
	// farewell bounds how long such a connection takes to be closed.
	farewell = time.Second
)

// asked is a connection for a question.
type asked struct {
	*pool.Conn
	free func() // gives its place beside the pool to another one; nil: it is of the pool
}

// forQuestion is a connection for a question to b. If the pool has none soon, it is one beside the pool, where there is a place for it. If then the backend itself
// has none left, a patient question stands in the pool's line for as long as ctx, or the pool, lets it. Errors are those of pool.Pools.Get.
func (s *Server) forQuestion(ctx context.Context, b *rib.Backend, id pool.Identity, patient bool) (*asked, error) {
	soon, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := time.AfterFunc(s.inLine(ctx), cancel)
	defer timer.Stop()
	conn, err := s.pools.Take(soon, b, id, pool.Claim{Placed: func() { timer.Stop() }})
	var full *pool.ExhaustedError
	switch {
	case err == nil:
		return &asked{Conn: conn}, nil
	case ctx.Err() != nil:
		return nil, err
	case soon.Err() == nil && (!errors.As(err, &full) || full.Full != nil):
		return nil, err
	}
	free := func() {}
	if !id.Own { // how many of its own questions are asked at a time, the node bounds elsewhere: see auth.Guard
		if free, err = s.besides(ctx, b.Name); err != nil {
			return nil, err
		}
	}
	if conn, err = s.pools.Dial(ctx, b, id); err == nil {
		return &asked{conn, free}, nil
	}
	free()
	var ce *pool.ConnectError
	if !errors.As(err, &ce) {
		return nil, err
	}
	ce.Shard, ce.Identity = b.Shard, id
	var pe *pg.Error
	switch {
	case ce.Login() && !id.Own:
		s.cfg.Guard.Refused(ctx, id.User, id.Database)
	case errors.As(ce.Err, &pe) && pe.Code == pg.CodeTooManyConnections && patient:
		if conn, err = s.pools.Get(ctx, b, id, false); err == nil {
			return &asked{Conn: conn}, nil
		}
	}
	return nil, err
}

// inLine is how long a question stands in line that may take as long as ctx. A node that has no share of the backends' connections yet is about to
// get one: until then it takes as little as it can.
func (s *Server) inLine(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok && s.pools.Share() == 0 {
		return time.Until(deadline) / 2
	}
	return inLine
}

// besides waits for a place for a connection to that backend beside its pool; free gives it up.
func (s *Server) besides(ctx context.Context, backend string) (free func(), err error) {
	s.mu.Lock()
	places := s.beside[backend]
	if places == nil {
		places = make(chan struct{}, maxBeside)
		s.beside[backend] = places
	}
	s.mu.Unlock()
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// done gives it back after an answer, for others to use.
func (a *asked) done() {
	if a.free != nil {
		a.bye()
		return
	}
	a.Release()
}

// lost gives it back when nobody knows any more what will come over it.
func (a *asked) lost() {
	if a.free == nil {
		a.Discard()
		return
	}
	a.Net.Close()
	a.free()
}

// bye closes it, and says so: nobody else is to use it.
func (a *asked) bye() {
	if a.free == nil {
		a.Bye()
		return
	}
	a.Net.SetDeadline(time.Now().Add(farewell))
	if _, err := a.Net.Write(pg.AppendTerminate(nil)); err == nil {
		io.Copy(io.Discard, a.Net) // the place is free when the server has none left for it
	}
	a.lost()
}
