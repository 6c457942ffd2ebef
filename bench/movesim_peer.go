package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"rangefinder/gossip/memnet"
)

// simCall is something that is done on a shard for somebody elsewhere.
type simCall struct {
	do   func(context.Context) error
	move uint64 // in whose name; 0: it is a statement
	err  error
}

// simFor is in whose name a connection is.
type simFor struct {
	move, term uint64                      // 0: a client's
	hello      func(context.Context) error // what is done first; nil: nothing
}

// simPeer is whoever opens connections to shards: it keeps some, and has one call at a time on each.
type simPeer struct {
	// constant
	w    *simWorld
	host *memnet.Host

	// guarded by peerMu
	peerMu sync.Mutex
	down   bool
	idle   map[simWay][]*memnet.Conn
}

// simWay is where a connection leads to, and for whom.
type simWay struct {
	s          *simShard
	move, term uint64
}

func (p *simPeer) start() {
	p.peerMu.Lock()
	defer p.peerMu.Unlock()
	p.down, p.idle = false, map[simWay][]*memnet.Conn{}
}

func (p *simPeer) stop() {
	p.peerMu.Lock()
	defer p.peerMu.Unlock()
	p.down = true
	for _, list := range p.idle {
		for _, c := range list {
			c.Reset()
		}
	}
	p.idle = nil
}

// conn is a connection to a shard, a kept one or a new one.
func (p *simPeer) conn(ctx context.Context, way simWay) (c *memnet.Conn, fresh bool, err error) {
	p.peerMu.Lock()
	if p.down {
		p.peerMu.Unlock()
		return nil, false, errors.New("this process has died")
	}
	if list := p.idle[way]; len(list) > 0 {
		c := list[len(list)-1]
		p.idle[way] = list[:len(list)-1]
		p.peerMu.Unlock()
		return c, false, nil
	}
	p.peerMu.Unlock()
	conn, err := p.host.Dial(ctx, "tcp", way.s.host.Addr(postgresPort))
	if err != nil {
		return nil, false, err
	}
	return conn.(*memnet.Conn), true, nil
}

// call has a shard do something, in a move's name after hello on a new connection. Of errSimLost it may be done yet, as long as what has
// left is on its way, or runs at the shard.
func (p *simPeer) call(ctx context.Context, s *simShard, as simFor, do func(context.Context) error) error {
	way := simWay{s, as.move, as.term}
	conn, fresh, err := p.conn(ctx, way)
	if err != nil {
		return fmt.Errorf("%w: %w", errSimUnsent, err)
	}
	if fresh && as.hello != nil {
		if err := p.send(ctx, conn, &simCall{do: as.hello, move: as.move}); err != nil {
			conn.Reset()
			return err
		}
	}
	err = p.send(ctx, conn, &simCall{do: do, move: as.move})
	p.peerMu.Lock()
	defer p.peerMu.Unlock()
	if p.down || ctx.Err() != nil || errors.Is(err, errSimLost) {
		conn.Reset()
	} else {
		p.idle[way] = append(p.idle[way], conn)
	}
	return err
}

// send sends one call, and waits for its answer.
func (p *simPeer) send(ctx context.Context, conn *memnet.Conn, call *simCall) error {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], p.w.put(call))
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	_, err := conn.Write(b[:])
	if err == nil {
		_, err = io.ReadFull(conn, b[:])
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errSimLost, err)
	}
	return call.err
}
