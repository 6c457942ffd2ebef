package wire

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

const (
	// untrustedEvery is how often the log tells of an address whose handshakes fail for the same reason.
	untrustedEvery = time.Minute
	// maxUntrusted bounds how many such failures are told apart, and maxReason the bytes of why: clients have a say in both.
	maxUntrusted = 1000
	maxReason    = 200
)

// untrusted are the handshakes of TLS that have failed of late. Whoever sees to clients has to hear of them, for the clients seldom say why they do not come in; but not of each: who does
// not trust this node's certificate comes again and again.
type untrusted struct {
	all rationed // of what is told, whatever it is

	// guarded by mu
	mu    sync.Mutex
	known map[failure]*failing
}

// failure is a handshake that has failed, as far as it is told from others.
type failure struct {
	addr netip.Addr // zero: it is not known
	why  string
}

// failing is how often that was.
type failing struct {
	told  time.Duration // when the log was told last
	since int64         // how often it has failed since
}

// failed notes a failure. due: the log is to be told, how often it was since it last was, and of how many others it was not told.
func (u *untrusted) failed(f failure, now time.Duration) (times, others int64, due bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	x := u.known[f]
	if x == nil {
		if len(u.known) >= maxUntrusted {
			clear(u.known)
		}
		x = &failing{told: now - untrustedEvery}
		u.known[f] = x
	}
	if x.since++; now-x.told < untrustedEvery {
		return 0, 0, false
	}
	if others, due = u.all.due(now); !due {
		return 0, 0, false
	}
	times, x.since, x.told = x.since, 0, now
	return times, others, true
}

// reasonOf is why a handshake has failed, without what differs each time.
func reasonOf(err error) string {
	why := err.Error()
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil { // with the ports that it was between
		why = op.Op + ": " + op.Err.Error()
	}
	return strings.ToValidUTF8(strings.Clone(why[:min(len(why), maxReason)]), "")
}

// distrusts tells of a handshake with a client that has failed.
func (s *Server) distrusts(conn net.Conn, err error) {
	s.untrustedN.Add(1)
	f := failure{why: reasonOf(err)}
	f.addr, _ = addressOf(conn.RemoteAddr())
	if times, others, due := s.untrusted.failed(f, time.Since(s.made)); due {
		s.log.Warn("no TLS with a client", "client", f.addr, "err", f.why, "times", times, "others", others)
	}
}
