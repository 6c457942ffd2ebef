package wire

import "rangefinder/wire/epoll"

// The session as an epoll.Runner: the set's goroutine runs those whose events have come together, and reads and writes for all of them at once.

// exchanged is what a read or a write has come to.
type exchanged struct {
	there bool
	n     int
	err   error
}

// Told runs the session, as epoll.Listener says, in a goroutine of its own: the set runs it by Run.
func (s *session) Told(bool) {
	if s.Take() {
		go s.goOn()
	}
}

// Take is epoll.Runner's.
func (s *session) Take() bool {
	w := &s.raw.word
	for {
		switch w.Load() {
		case parked:
			if w.CompareAndSwap(parked, running) {
				return true
			}
		case running:
			if w.CompareAndSwap(running, stirred) {
				return false
			}
		default:
			return false
		}
	}
}

// Room is epoll.Runner's.
func (s *session) Room(sock *epoll.Socket) []byte {
	c, r := s.core, &s.raw
	switch {
	case sock != r.from || c.inHand == nil:
		return nil
	case sock != r.sock:
		s.lend()
		return s.buf
	case len(c.in)-c.inOff >= serverBuffer:
		return nil
	}
	c.unpark(&s.server.buffers)
	return c.clientSpace()
}

// Got is epoll.Runner's.
func (s *session) Got(_ *epoll.Socket, n int, err error) { s.raw.got = exchanged{true, n, err} }

// Wrote is epoll.Runner's.
func (s *session) Wrote(n int, err error) { s.raw.wrote = exchanged{true, n, err} }

// Run is epoll.Runner's: it runs the session in the set's goroutine, and in another one what cannot be done there. A panic ends this
// session and no other.
func (s *session) Run(b *epoll.Batch) {
	defer func() {
		if r := recover(); r != nil {
			s.panicked(r)
			go s.over()
		}
	}()
	r := &s.raw
	r.batch = b
	how := s.settle()
	if how == goesOn {
		how = s.runRaw(true)
	}
	switch how {
	case blocks:
		r.batch = nil
		go s.goOn()
	case ends:
		s.over()
	}
}

// settle has the core know of what the batch has done for the session.
func (s *session) settle() outcome {
	r := &s.raw
	if !r.wrote.there {
		r.burst, r.full = 0, false // it begins
	}
	if got := r.got; got.there {
		r.got = exchanged{}
		if r.from == r.sock {
			s.gotRaw(got.n, got.err)
		} else {
			s.tookServer(got.n, got.err)
		}
	}
	if w, to := r.wrote, r.due; w.there {
		r.wrote, r.due = exchanged{}, nil
		if to == r.sock {
			return s.flushedRaw(w.n, w.err, true)
		}
		s.fed(to, w.n, w.err)
	}
	return goesOn
}

// leave leaves a write to the batch.
func (s *session) leave(sock *epoll.Socket, p []byte) outcome {
	s.raw.due = sock
	s.raw.batch.Write(s, sock, p)
	return writes
}
