package wire

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"rangefinder/wire/pool"
)

// Listener is what Listen and Inherit return. Go leaves the connections alone that it accepts: they inherit TCP's keepalive from it, which is
// three system calls less for each.
type Listener struct {
	*net.TCPListener
	file *os.File // the same socket once more: Go lets nobody else accept on a listener
}

// Listen listens on a TCP port, in the way that suits Serve best.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	config := net.ListenConfig{KeepAlive: -1}
	ln, err := config.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return ours(ln)
}

// Inherit is Listen for a socket that another process listens on, or has. The file stays the caller's.
func Inherit(file *os.File) (net.Listener, error) {
	ln, err := net.FileListener(file)
	if err != nil {
		return nil, err
	}
	return ours(ln)
}

// ours makes a Listener of a new one, which it closes if it cannot.
func ours(ln net.Listener) (net.Listener, error) {
	err := errors.New("not a TCP socket")
	if t, ok := ln.(*net.TCPListener); ok {
		var file *os.File
		if file, err = t.File(); err == nil {
			return &Listener{t, file}, nil
		}
	}
	ln.Close()
	return nil, err
}

// Close is net.Listener's.
func (l *Listener) Close() error { return errors.Join(l.file.Close(), l.TCPListener.Close()) }

// Serve accepts connections until ln is closed or the server shut down; then it returns nil.
func (s *Server) Serve(ln net.Listener) error {
	s.mu.Lock()
	if s.draining.Load() { // Shutdown came first: it waits for what has begun, and nothing may begin any more
		s.mu.Unlock()
		ln.Close()
		return nil
	}
	s.sweeper.Do(func() {
		s.set = s.pools.Set()
		s.helpers.Go(s.heraldLoop)
		s.helpers.Go(s.sweepLoop)
		s.helpers.Go(s.averageLoop)
	})
	own, _ := ln.(*Listener)
	if own != nil && (s.set == nil || !setInherited(own, s.live.Load().Limits.KeepAlive)) {
		own = nil
	}
	s.listeners[ln] = own
	s.serving.Add(1)
	s.mu.Unlock()
	defer s.serving.Done()
	accept := s.acceptor(ln, own)
	for {
		conn, err := accept()
		if err != nil {
			if s.draining.Load() || errors.Is(err, net.ErrClosed) {
				return nil
			}
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				continue
			}
			s.log.Warn("accept failed", "err", err)
			select { // out of file descriptors, most likely: let some close
			case <-time.After(100 * time.Millisecond):
			case <-s.ctx.Done():
				return nil
			}
			continue
		}
		s.mu.Lock()
		if s.draining.Load() {
			s.mu.Unlock()
			conn.Close()
			return nil
		}
		evicted := s.knocks(conn)
		s.done.Add(1)
		s.mu.Unlock()
		for _, old := range evicted {
			s.refusedBy(RefusedHandshake)
			old.Close()
		}
		s.accepted.Add(1)
		if own == nil {
			pool.KeepAlive(conn, s.live.Load().Limits.KeepAlive)
		}
		select {
		case s.hands <- conn:
		default:
			go s.work(conn)
		}
	}
}

// acceptor is how the connections of a listener are accepted: those of our own go into the set at once, where their sessions need them.
func (s *Server) acceptor(ln net.Listener, own *Listener) func() (net.Conn, error) {
	if own == nil {
		return ln.Accept
	}
	raw, err := own.file.SyscallConn()
	if err != nil {
		return ln.Accept
	}
	return func() (net.Conn, error) {
		sock, err := s.set.Accept(raw, own.Addr())
		if err != nil {
			return nil, err
		}
		return sock, nil
	}
}

// maxResting bounds the goroutines that wait for a connection after one has ended.
const maxResting = 16

// work serves a connection, and then others: a goroutine that has served one has a stack as large as that takes, and growing a
// new one costs a twentieth of a short connection.
func (s *Server) work(conn net.Conn) {
	for {
		if ses := s.serve(conn); ses != nil {
			ses.goOn()
		} else {
			s.gone(conn)
		}
		if s.resting.Add(1) > maxResting {
			s.resting.Add(-1)
			return
		}
		select {
		case conn = <-s.hands:
			s.resting.Add(-1)
		case <-s.ctx.Done():
			return
		}
	}
}

// gone is the end of a connection.
func (s *Server) gone(conn net.Conn) {
	conn.Close()
	s.goes(conn)
	s.done.Done()
}
