package main

import (
	"encoding/binary"
	"net"
	"sync"
	"sync/atomic"
)

// counts is what the clients of a soak have seen, all together. Everything in it is atomic.
type counts struct {
	logins, ops, commits, increments atomic.Uint64
	asked                            atomic.Uint64 // requests written: Query, Sync and FunctionCall messages
	answered                         atomic.Uint64 // ReadyForQuery messages read, but for those that end a login
	cancels, timeouts, deaths        atomic.Uint64
	excused                          atomic.Uint64 // errors that a fault explains
	full                             atomic.Uint64 // 53300
	connected                        atomic.Int64
}

// countingConn counts the requests that are written and the answers that are read. A request whose last byte is not written is none.
type countingConn struct {
	net.Conn
	counts *counts

	// out is the writer's, in the reader's: pgx may use one goroutine for each
	out, in frameCounter
	ready   bool // the login has ended
	started bool // the startup packet, which has no type, is written
}

func (c *countingConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if !c.started { // a write of its own
		c.started = true
		return n, err
	}
	c.out.feed(p[:n], func(typ byte) {
		if typ == 'Q' || typ == 'S' || typ == 'F' {
			c.counts.asked.Add(1)
		}
	})
	return n, err
}

func (c *countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.in.feed(p[:n], func(typ byte) {
		if typ != 'Z' {
			return
		}
		if c.ready {
			c.counts.answered.Add(1)
		}
		c.ready = true
	})
	return n, err
}

// frameCounter finds frames in a stream that comes in pieces, and tells of each when its last byte has passed.
type frameCounter struct {
	header []byte
	left   int // bytes of the body still to come
}

func (f *frameCounter) feed(p []byte, whole func(typ byte)) {
	for {
		if len(f.header) < 5 {
			n := min(5-len(f.header), len(p))
			f.header = append(f.header, p[:n]...)
			p = p[n:]
			if len(f.header) < 5 {
				return
			}
			f.left = int(binary.BigEndian.Uint32(f.header[1:])) - 4
		}
		n := min(f.left, len(p))
		f.left -= n
		p = p[n:]
		if f.left > 0 {
			return
		}
		whole(f.header[0])
		f.header = f.header[:0]
	}
}

// account is what one row must hold: as many increments as were acknowledged, and at most those more whose fate nobody was told.
type account struct {
	acknowledged, unknown int64
}

func (a account) holds(n int64) bool { return a.acknowledged <= n && n <= a.acknowledged+a.unknown }

// faults are what has been found, in the order in which it was.
type faults struct {
	// guarded by mu
	mu    sync.Mutex
	list  []string
	count int
}

// maxFaults bounds what is kept, not what is counted.
const maxFaults = 50

func (f *faults) add(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count++
	if len(f.list) < maxFaults {
		f.list = append(f.list, what)
	}
}

func (f *faults) all() ([]string, int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.list...), f.count
}
