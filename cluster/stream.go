package cluster

import (
	"errors"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// StreamLayer is what Raft speaks over: accepts and dials streams between the nodes' cluster ports.
type StreamLayer = raft.StreamLayer

// ownedStreams remembers Raft's streams, because Raft's transport, when closed, leaves open the ones that it accepted, and a
// goroutine that reads from each.
type ownedStreams struct {
	StreamLayer
	l *Ledger

	mu     sync.Mutex
	closed bool
	open   map[*ownedConn]struct{}
}

func newOwnedStreams(s StreamLayer, l *Ledger) *ownedStreams {
	return &ownedStreams{StreamLayer: s, l: l, open: make(map[*ownedConn]struct{})}
}

func (s *ownedStreams) own(c net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	o := &ownedConn{Conn: c, owner: s}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		c.Close()
		return nil, net.ErrClosed
	}
	s.open[o] = struct{}{}
	return o, nil
}

// Accept returns the next stream from elsewhere.
func (s *ownedStreams) Accept() (net.Conn, error) {
	c, err := s.own(s.StreamLayer.Accept())
	if err != nil {
		return nil, err
	}
	return &greetedConn{Conn: c, l: s.l}, nil
}

// Dial opens a stream.
func (s *ownedStreams) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	c, err := s.own(s.StreamLayer.Dial(address, timeout))
	if err != nil {
		return nil, err
	}
	if err := s.l.greet(c, timeout); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// closeAll closes every stream, and every later one at once.
func (s *ownedStreams) closeAll() {
	s.mu.Lock()
	s.closed = true
	conns := make([]*ownedConn, 0, len(s.open))
	for c := range s.open {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

type ownedConn struct {
	net.Conn
	owner *ownedStreams
	once  sync.Once
}

func (c *ownedConn) Close() error {
	c.once.Do(func() {
		c.owner.mu.Lock()
		delete(c.owner.open, c)
		c.owner.mu.Unlock()
	})
	return c.Conn.Close()
}
