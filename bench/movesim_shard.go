package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"sync"
	"time"

	"rangefinder/cluster/move"
)

// This file is what move-sim has in PostgreSQL's place: a register for each key, transactions of one write that wait for each other, a fence
// that refuses as the real one does, and a log that a subscription follows.

// simGone is what a read finds where there is no row.
const simGone = -1

var (
	errSimFenced = errors.New("RF001: the row belongs to another shard now, or is about to")
	errSimUnsent = errors.New("nothing was sent")
	errSimLost   = errors.New("the connection was lost: what became of it is not known")
)

// simShard is one shard: a primary that may crash, and comes back with what it had committed.
type simShard struct {
	// constant
	w    *simWorld
	name string
	simPeer

	// guarded by mu; what is not durable is made anew by start
	mu      sync.Mutex
	changed chan struct{}   // closed when somebody who waits has to look again
	life    context.Context // of this start
	end     context.CancelFunc
	locks   map[int64]bool // rows that a transaction holds
	rows    map[int64]int64
	log     []simChange
	sources map[uint64]*simSide // of moves away from here
	targets map[uint64]*simSide // of moves to here
	closed  map[int64]uint64    // keys that belong elsewhere, by the move that took them: the judge's, the shard itself does not look
	leader  uint64              // the newest term of a mover that has been here
	running map[uint64]bool     // clients' statements, by their calls' numbers
	movers  map[net.Conn]*simMover
	serving sync.WaitGroup
}

// simChange is one entry of a shard's log.
type simChange struct {
	key, value int64 // value simGone: the row was deleted
}

// simMover is a connection in a move's name.
type simMover struct {
	move uint64
	end  context.CancelFunc // of what runs on it
}

// simSide is a move's row of rangefinder.fence, and what hangs on it.
type simSide struct {
	move      uint64
	low, high int64
	state     string
	term      uint64
	slot      bool // of a source
	follows   bool // of a target: there is a subscription
	from      *simShard
	at        int // how much of the source's log has been applied

	// not durable
	shared    int  // transactions that hold the fence open
	exclusive bool // somebody wants it shut
}

func (s *simSide) holds(key int64) bool { return s.low <= key && key < s.high }

// States of a fence's row.
const (
	simMade   = "made" // there are no triggers yet
	simOpen   = "open"
	simFrozen = "frozen"
	simMoved  = "moved"
)

func newSimShard(w *simWorld, name, region string) *simShard {
	return &simShard{
		w: w, name: name, simPeer: simPeer{w: w, host: w.net.Host(name, region)},
		rows: map[int64]int64{}, sources: map[uint64]*simSide{}, targets: map[uint64]*simSide{}, closed: map[int64]uint64{},
	}
}

// start has the shard serve.
func (s *simShard) start() error {
	ln, err := s.host.Listen(postgresPort)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.life, s.end = context.WithCancel(s.w.ctx)
	s.changed, s.locks = make(chan struct{}), map[int64]bool{}
	s.running, s.movers = map[uint64]bool{}, map[net.Conn]*simMover{}
	for _, side := range s.sources {
		side.shared, side.exclusive = 0, false
	}
	s.simPeer.start()
	life := s.life
	s.serving.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			s.serving.Go(func() { s.serve(life, conn) })
		}
	})
	for _, side := range s.targets {
		if side.follows {
			s.serving.Go(func() { s.follow(life, side) })
		}
	}
	return nil
}

// crash ends it, with all that is not committed.
func (s *simShard) crash() {
	s.mu.Lock()
	s.end()
	s.mu.Unlock()
	s.host.Close()
	s.simPeer.stop()
	s.serving.Wait()
}

// serve runs what comes over one connection. What is sent is a number: the shard looks up what it stands for. That nobody waits for the answer any
// more is no reason not to go on, as with PostgreSQL.
func (s *simShard) serve(life context.Context, conn net.Conn) {
	ctx, end := context.WithCancel(context.WithValue(life, simOwn{}, conn))
	defer func() {
		end()
		conn.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.movers, conn)
		s.tell()
	}()
	var b [8]byte
	for {
		if _, err := io.ReadFull(conn, b[:]); err != nil {
			return
		}
		id := binary.BigEndian.Uint64(b[:])
		call := s.w.take(id)
		if call == nil {
			return
		}
		s.mu.Lock()
		if call.move != 0 {
			s.movers[conn] = &simMover{call.move, end}
		} else {
			s.running[id] = true
		}
		s.mu.Unlock()
		call.err = call.do(ctx)
		s.mu.Lock()
		delete(s.running, id)
		s.mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		if _, err := conn.Write(b[:]); err != nil {
			return
		}
	}
}

// simOwn is the key of a context's value: the connection that a call has come by.
type simOwn struct{}

// alone ends all other connections in a move's name. mu is held.
func (s *simShard) alone(ctx context.Context, id uint64) error {
	for {
		others := 0
		for conn, m := range s.movers {
			if m.move == id && conn != ctx.Value(simOwn{}) {
				others++
				m.end()
				conn.Close()
			}
		}
		if others == 0 {
			return nil
		}
		if err := s.wait(ctx); err != nil {
			return err
		}
	}
}

// lead refuses the movers of older leaders than have been here. mu is held.
func (s *simShard) lead(term uint64) error {
	if term < s.leader {
		return move.ErrDeposed
	}
	s.leader = term
	return nil
}

// wait waits for a change. mu is held before and after it.
func (s *simShard) wait(ctx context.Context) error {
	changed := s.changed
	s.mu.Unlock()
	select {
	case <-changed:
	case <-ctx.Done():
	}
	s.mu.Lock()
	return ctx.Err()
}

// tell wakes who waits. mu is held.
func (s *simShard) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// sleep lets time go by within a transaction. mu is held before and after it.
func (s *simShard) sleep(ctx context.Context, d time.Duration) error {
	s.mu.Unlock()
	pauseErr := pause(ctx, d)
	s.mu.Lock()
	return errors.Join(pauseErr, ctx.Err())
}

// fenceOf is the fence of a move that takes the key away; nil: there is none.
func (s *simShard) fenceOf(key int64) *simSide {
	for _, side := range s.sources {
		if side.holds(key) {
			return side
		}
	}
	return nil
}

// write is a transaction that sets a register and takes so long from its statement to its end.
func (s *simShard) write(ctx context.Context, key, value int64, takes time.Duration, leased bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.locks[key] {
		if err := s.wait(ctx); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.locks[key] = true
	side := s.fenceOf(key)
	if !s.w.fence || side != nil && side.state == simMade {
		side = nil
	}
	if side != nil {
		for side.exclusive {
			if err := s.wait(ctx); err != nil {
				return err
			}
		}
		if side.state != simOpen {
			delete(s.locks, key)
			s.tell()
			return errSimFenced
		}
		side.shared++
	}
	if err := s.sleep(ctx, takes); err != nil {
		return err // a crash: the locks are gone with it
	}
	s.commit(key, value)
	if by, ok := s.closed[key]; ok {
		s.w.late(s.name, key, value, by, leased)
	}
	delete(s.locks, key)
	if side != nil {
		side.shared--
	}
	s.tell()
	return nil
}

func (s *simShard) commit(key, value int64) {
	if s.rows[key] = value; value == simGone {
		delete(s.rows, key)
	}
	s.log = append(s.log, simChange{key, value})
}

// read returns a register.
func (s *simShard) read(key int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.rows[key]; ok {
		return v
	}
	return simGone
}

// in are the rows of a range.
func (s *simShard) in(side *simSide) map[int64]int64 {
	rows := maps.Clone(s.rows)
	maps.DeleteFunc(rows, func(key, _ int64) bool { return !side.holds(key) })
	return rows
}

// guard makes a fence, when no transaction is on its rows: a trigger waits for the table.
func (s *simShard) guard(ctx context.Context, side *simSide) error {
	for busy := true; busy; {
		busy = false
		for key := range s.locks {
			busy = busy || side.holds(key)
		}
		if busy {
			if err := s.wait(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// shut has the fence refuse, when no transaction holds it open. It does not if whoever wants that has given up: the commit is theirs.
func (s *simShard) shut(ctx, asked context.Context, side *simSide) error {
	term := side.term
	for side.exclusive {
		if err := s.wait(ctx); err != nil {
			return err
		}
	}
	side.exclusive = true
	var err error
	for side.shared > 0 && err == nil {
		err = s.wait(ctx)
	}
	side.exclusive = false
	s.tell()
	if err != nil {
		return err
	}
	if asked.Err() != nil || side.term != term || s.sources[side.move] != side {
		return move.ErrDeposed
	}
	side.state = simFrozen
	for _, key := range simKeys {
		if side.holds(key) {
			s.closed[key] = side.move
		}
	}
	return nil
}

// open has it accept again. The judge knows that, too.
func (s *simShard) open(id uint64) {
	maps.DeleteFunc(s.closed, func(_ int64, by uint64) bool { return by == id })
}

// follow applies the source's log, as a subscription does, some time after it was written.
func (s *simShard) follow(life context.Context, side *simSide) {
	for life.Err() == nil {
		_ = pause(life, s.w.luck(5*time.Millisecond, 60*time.Millisecond))
		s.mu.Lock()
		over, at := !side.follows || s.targets[side.move] != side, side.at
		s.mu.Unlock()
		if over {
			return
		}
		var news []simChange
		ctx, cancel := context.WithTimeout(life, 5*time.Second)
		err := s.call(ctx, side.from, simFor{}, func(context.Context) error {
			side.from.mu.Lock()
			defer side.from.mu.Unlock()
			if from := side.from.sources[side.move]; from == nil || !from.slot {
				return fmt.Errorf("there is no slot for move %d", side.move)
			}
			news = append(news, side.from.log[at:]...)
			return nil
		})
		cancel()
		if err != nil {
			continue
		}
		_ = pause(life, s.w.luck(0, 40*time.Millisecond))
		s.mu.Lock()
		if side.follows && life.Err() == nil {
			for _, c := range news {
				if side.holds(c.key) {
					s.commit(c.key, c.value)
				}
			}
			side.at = at + len(news)
		}
		s.mu.Unlock()
	}
}
