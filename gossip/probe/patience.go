package probe

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// connectSteps are the most answers that a new connection waits for before its first query: of TCP, to the wish for TLS, two of the handshake
// of TLS 1.2, and four of a login by SCRAM.
const connectSteps = 8

// patience ends a probe that has waited too long for one answer. Each takes a round trip, and a new connection needs several: between
// continents they take longer together than a server that says nothing is waited for. However it goes on, connecting ends with pgconn's own timeout.
type patience struct {
	each time.Duration
	end  context.CancelFunc

	mu    sync.Mutex
	timer *time.Timer
}

func newPatience(ctx context.Context, each time.Duration) (context.Context, *patience) {
	p := &patience{each: each}
	ctx, p.end = context.WithCancel(ctx)
	p.timer = time.AfterFunc(each, p.end)
	return ctx, p
}

// again waits for one more answer.
func (p *patience) again() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer.Stop() {
		p.timer.Reset(p.each)
	}
}

// over is called when nothing waits any more.
func (p *patience) over() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer.Stop()
	p.end()
}

// listened is a connection that is being established: the first bytes after some of ours are an answer.
type listened struct {
	net.Conn
	p           *patience
	asked       atomic.Bool
	established atomic.Bool
}

// Write is net.Conn's.
func (l *listened) Write(b []byte) (int, error) {
	l.asked.Store(true)
	return l.Conn.Write(b)
}

// Read is net.Conn's.
func (l *listened) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if n > 0 && l.asked.Swap(false) && !l.established.Load() {
		l.p.again()
	}
	return n, err
}
