package wire

import (
	"context"
	"net"
	"time"
)

// Shutdown stops accepting, ends idle sessions and who has not said yet what he wants, lets logins and open transactions finish until ctx ends, and then closes what is left.
// It returns ctx's error if sessions had to be cut off.
func (s *Server) Shutdown(ctx context.Context) error {
	s.draining.Store(true)
	s.stop()
	s.mu.Lock()
	for ln := range s.listeners {
		ln.Close()
	}
	s.closeStrangers()
	for _, ses := range s.sessions {
		ses.wake() // it goes if it is idle
	}
	s.mu.Unlock()

	gone := make(chan struct{})
	go func() {
		s.done.Wait()
		close(gone)
	}()
	var err error
	select {
	case <-gone:
	case <-ctx.Done():
		err = ctx.Err()
		s.cutOff()
		select {
		case <-gone:
		case <-time.After(lastWait):
			s.log.Error("sessions did not end when they were cut off", "sessions", s.Stats().Sessions)
		}
	}
	s.cancel()
	s.helpers.Wait()
	return err
}

// Wait returns when the last connection has ended, or with ctx's error. Nothing may be accepted any more.
func (s *Server) Wait(ctx context.Context) error {
	gone := make(chan struct{})
	go func() {
		s.serving.Wait()
		s.done.Wait()
		close(gone)
	}()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// lastWait is for sessions that have been cut off: nothing that they do may take that long.
const lastWait = 5 * time.Second

// cutOff ends all sessions, wherever they are. A session uses its sockets as only who closes them may: so they get a deadline that
// has passed, which wakes it.
func (s *Server) cutOff() {
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	alive := make(map[net.Conn]bool, len(s.sessions))
	for _, ses := range s.sessions {
		alive[ses.client] = true
		ses.client.SetDeadline(longAgo)
		ses.wake()
		ses.mu.Lock()
		if ses.running != nil {
			ses.strike()
		}
		ses.mu.Unlock()
	}
	for conn := range s.conns {
		if !alive[conn] { // a handshake, or below TLS
			conn.Close()
		}
	}
}
