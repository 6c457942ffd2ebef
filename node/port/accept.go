package port

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// accept hands every connection to a goroutine of its own, if there is room for one more half-open stream.
func (p *Port) accept() {
	const pauseMax = time.Second
	pause := time.Duration(0)
	for {
		conn, err := p.tcp.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of file descriptors, most likely: there is nothing to do but to wait for some.
			pause = min(max(2*pause, 5*time.Millisecond), pauseMax)
			p.noise.say("cluster port: cannot accept", slog.Any("error", err))
			select {
			case <-p.done:
				return
			case <-time.After(pause):
			}
			continue
		}
		pause = 0
		if !p.admit(conn) {
			conn.Close()
		}
	}
}

// admit starts a handshake, or reports that there are too many in progress.
func (p *Port) admit(conn net.Conn) bool {
	from := remoteIP(conn)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	if len(p.halfOpen) >= p.cfg.MaxHandshakes || p.byAddr[from] >= max(1, p.cfg.MaxHandshakes/4) {
		p.stats.refused.Add(1)
		p.noise.say("cluster port: too many handshakes in progress, closing new ones",
			slog.String("from", from.String()), slog.Int("in_progress", len(p.halfOpen)), slog.Int("from_there", p.byAddr[from]))
		return false
	}
	p.halfOpen[conn] = struct{}{}
	p.byAddr[from]++
	p.wg.Go(func() { p.welcome(conn, from) })
	return true
}

func remoteIP(conn net.Conn) netip.Addr {
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// welcome takes a new connection to a known kind and to whoever listens for it, or closes it.
func (p *Port) welcome(raw net.Conn, from netip.Addr) {
	deadline := time.Now().Add(p.cfg.HandshakeTimeout)
	s, kind, err := p.handshake(raw, deadline)
	if err == nil {
		err = p.deliver(s, kind, deadline)
	}
	p.mu.Lock()
	delete(p.halfOpen, raw)
	if p.byAddr[from]--; p.byAddr[from] <= 0 {
		delete(p.byAddr, from)
	}
	p.mu.Unlock()
	if err != nil {
		raw.Close()
		if s != nil {
			p.forget(s)
		}
	}
}

// handshake does TLS if the port is protected and reads the kind.
func (p *Port) handshake(raw net.Conn, deadline time.Time) (*stream, Kind, error) {
	if err := raw.SetDeadline(deadline); err != nil {
		return nil, 0, err
	}
	conn := raw
	if p.id != nil {
		c := tls.Server(raw, p.id.server)
		if err := c.Handshake(); err != nil {
			p.countHandshake(raw, err)
			return nil, 0, err
		}
		conn = c
	}
	var first [1]byte
	if _, err := conn.Read(first[:]); err != nil {
		p.countHandshake(raw, err)
		return nil, 0, err
	}
	s := p.track(conn, raw)
	if s == nil {
		return nil, 0, ErrClosed
	}
	return s, Kind(first[0]), nil
}

// countHandshake counts a handshake that failed and tells it, rarely.
func (p *Port) countHandshake(raw net.Conn, err error) {
	from := slog.String("from", raw.RemoteAddr().String())
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		p.stats.tooSlow.Add(1)
		p.noise.say("cluster port: a handshake took too long", from)
	case rejectedKey(err):
		p.stats.keyMismatches.Add(1)
		p.noise.say("cluster port: refused a node with another cluster key", from, slog.Any("error", err))
	default:
		p.stats.badHandshakes.Add(1)
		p.noise.say("cluster port: a handshake failed", from, slog.Any("error", err))
	}
}

// deliver gives a stream to the listener of its kind.
func (p *Port) deliver(s *stream, kind Kind, deadline time.Time) error {
	from := slog.String("from", s.raw.RemoteAddr().String())
	p.mu.Lock()
	l := p.listeners[kind]
	p.mu.Unlock()
	if l == nil {
		switch kind {
		case KindGossip, KindRaft, KindPull, KindAPI, KindHello, KindCancel:
			p.stats.nobodyListens.Add(1)
		default:
			p.stats.unknownKinds.Add(1)
			p.noise.say("cluster port: a stream of an unknown kind", from, slog.String("kind", kind.String()))
		}
		return fmt.Errorf("nobody serves %s streams", kind)
	}
	if err := s.SetDeadline(time.Time{}); err != nil {
		return err
	}
	late := time.NewTimer(time.Until(deadline))
	defer late.Stop()
	select {
	case l.queue <- s:
		p.stats.accepted.Add(1)
		return nil
	case <-l.done:
	case <-p.done:
	case <-late.C:
		p.noise.say("cluster port: nobody took a stream in time", from, slog.String("kind", kind.String()))
	}
	p.stats.nobodyListens.Add(1)
	return ErrClosed
}

// stream is an open stream. The port knows all of them, to close them when it closes.
type stream struct {
	net.Conn
	raw  net.Conn // below TLS; Conn itself on a plain port
	port *Port
	once sync.Once
}

// Close closes the stream and forgets it.
func (s *stream) Close() error {
	s.once.Do(func() { s.port.forget(s) })
	return s.Conn.Close()
}

// track registers a stream; nil if the port is closed.
func (p *Port) track(conn, raw net.Conn) *stream {
	s := &stream{Conn: conn, raw: raw, port: p}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.streams[s] = struct{}{}
	return s
}

func (p *Port) forget(s *stream) {
	p.mu.Lock()
	delete(p.streams, s)
	p.mu.Unlock()
}

// noiseEvery is how often the log hears of one kind of noise.
const noiseEvery = 10 * time.Second

// noiseLog logs each message at most once in noiseEvery and says how many like it were left out: a stranger at the door must
// not be able to fill the log.
type noiseLog struct {
	log *slog.Logger // constant

	mu   sync.Mutex
	said map[string]*noiseState // by message; messages are constants of this package, so it stays small
}

type noiseState struct {
	last    time.Time
	skipped int
}

func (n *noiseLog) say(message string, attrs ...any) {
	n.mu.Lock()
	if n.said == nil {
		n.said = make(map[string]*noiseState)
	}
	now := time.Now()
	s := n.said[message]
	if s == nil {
		s = &noiseState{}
		n.said[message] = s
	}
	if !s.last.IsZero() && now.Sub(s.last) < noiseEvery {
		s.skipped++
		n.mu.Unlock()
		return
	}
	skipped := s.skipped
	s.last, s.skipped = now, 0
	n.mu.Unlock()
	if skipped > 0 {
		attrs = append(attrs, slog.Int("like_it_since", skipped))
	}
	n.log.Warn(message, attrs...)
}
