package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"rangefinder/cluster/move"
	"rangefinder/rib"
)

// simServers do what move.Postgres does, on simShards, over the network of the mover's node.
type simServers struct{ n *simNode }

var _ move.Servers = simServers{}

// on does something on one of a job's shards.
func (v simServers) on(ctx context.Context, j *move.Job, source bool, what string, f func(ctx context.Context, s *simShard) error) error {
	v.n.w.point(ctx, v.n, what)
	name := j.Move.To
	if source {
		name = j.Move.From
	}
	s := v.n.w.shards[name]
	as := simFor{move: j.Move.ID, term: j.Term, hello: func(context.Context) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.lead(j.Term)
	}}
	if what == "check" { // which changes nothing
		as = simFor{move: j.Move.ID}
	}
	err := v.n.call(ctx, s, as, func(ctx context.Context) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		return f(ctx, s)
	})
	if err != nil && !errors.Is(err, move.ErrDeposed) {
		err = fmt.Errorf("%s on %s: %w", what, name, err)
	}
	v.n.w.point(ctx, v.n, what+" done")
	return err
}

// claim finds the move's row on a side, and makes it this term's. Without must there may be none.
func (s *simShard) claim(j *move.Job, source, must bool) (*simSide, error) {
	sides := s.targets
	if source {
		sides = s.sources
	}
	side := sides[j.Move.ID]
	switch {
	case side == nil && must:
		return nil, move.ErrDeposed
	case side == nil:
		return nil, nil
	case side.term > j.Term:
		return nil, move.ErrDeposed
	}
	side.term = j.Term
	return side, nil
}

// Check finds rows that an earlier move has left.
func (v simServers) Check(ctx context.Context, j *move.Job) (list []move.Obstacle, err error) {
	rows := 0
	err = v.on(ctx, j, false, "check", func(_ context.Context, s *simShard) error {
		for key := range s.rows {
			if k := simKey(key); j.Move.Holds(k) {
				rows++
			}
		}
		return nil
	})
	if err == nil && rows > 0 {
		list = append(list, move.Obstacle{Shard: j.Move.To, Problem: "it has rows of the range", Rows: int64(rows)})
	}
	return list, err
}

// Copy makes the rows of both sides, the fence and the slot, copies and subscribes.
func (v simServers) Copy(ctx context.Context, j *move.Job, report func(move.Copied)) (id move.Identity, err error) {
	fresh := func() *simSide {
		side := &simSide{move: j.Move.ID, state: simOpen, term: j.Term, from: v.n.w.shards[j.Move.From]}
		side.low, side.high = simBounds(&j.Move)
		return side
	}
	for _, source := range []bool{true, false} {
		err := v.on(ctx, j, source, "claim", func(_ context.Context, s *simShard) error {
			side, err := s.claim(j, source, false)
			if err == nil {
				err = s.lead(j.Term)
			}
			switch {
			case err != nil:
				return err
			case source && side == nil:
				s.sources[j.Move.ID] = fresh()
				s.sources[j.Move.ID].state = simMade
			case source:
				side.slot = false
			default: // what an earlier try has left goes
				if side != nil {
					side.follows = false
					for key := range s.in(side) {
						s.commit(key, simGone)
					}
				}
				s.targets[j.Move.ID] = fresh()
			}
			return nil
		})
		if err != nil {
			return id, err
		}
	}
	var at int
	var rows map[int64]int64
	err = v.on(ctx, j, true, "slot", func(ctx context.Context, s *simShard) error {
		side, err := s.claim(j, true, true)
		if err == nil {
			err = s.guard(ctx, side)
		}
		if err != nil {
			return err
		}
		side.state, side.slot = simOpen, true
		at, rows = len(s.log), s.in(side)
		return nil
	})
	if err != nil {
		return id, err
	}
	for key, value := range rows {
		err := v.on(ctx, j, false, "copy", func(_ context.Context, s *simShard) error {
			_, err := s.claim(j, false, true)
			if err == nil {
				s.commit(key, value)
			}
			return err
		})
		if err == nil {
			err = pause(ctx, v.n.w.luck(0, 100*time.Millisecond))
		}
		if err != nil {
			return id, err
		}
	}
	report(move.Copied{Rows: int64(len(rows)), Part: 1})
	err = v.on(ctx, j, false, "subscribe", func(_ context.Context, s *simShard) error {
		side, err := s.claim(j, false, true)
		if err == nil {
			side.at, side.follows = at, true
			life := s.life
			s.serving.Go(func() { s.follow(life, side) })
		}
		return err
	})
	id = move.Identity{Source: move.Server{SystemID: 1, Timeline: 1}, Target: move.Server{SystemID: 2, Timeline: 1}}
	return id, err
}

// caught waits until the target has applied the source's log up to a place.
func (v simServers) caught(ctx context.Context, j *move.Job, at int) error {
	for {
		reached := false
		err := v.on(ctx, j, false, "look", func(_ context.Context, s *simShard) error {
			side, err := s.claim(j, false, true)
			reached = err == nil && side.at >= at
			return err
		})
		if err != nil || reached {
			return err
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// Follow tells how long the target takes to come as far as the source is.
func (v simServers) Follow(ctx context.Context, j *move.Job) (lag move.Lag, err error) {
	began, at := time.Now(), 0
	err = v.on(ctx, j, true, "mark", func(_ context.Context, s *simShard) error {
		_, err := s.claim(j, true, true)
		at = len(s.log)
		return err
	})
	if err == nil {
		err = v.caught(ctx, j, at)
	}
	return move.Lag{Time: time.Since(began)}, err
}

// Behind: these shards have no replicas.
func (v simServers) Behind(context.Context, *move.Job) (string, error) { return "", nil }

// Fence shuts the source.
func (v simServers) Fence(ctx context.Context, j *move.Job) error {
	return v.on(ctx, j, true, "fence", func(life context.Context, s *simShard) error {
		side, err := s.claim(j, true, true)
		if err != nil {
			return err
		}
		if err := s.shut(life, ctx, side); err != nil {
			return err
		}
		v.n.w.note("%s shuts its fence for move %d", s.name, j.Move.ID)
		return nil
	})
}

// Complete waits for the target, and compares.
func (v simServers) Complete(ctx context.Context, j *move.Job) error {
	var at int
	var rows map[int64]int64
	err := v.on(ctx, j, true, "end", func(_ context.Context, s *simShard) error {
		side, err := s.claim(j, true, true)
		if err == nil && side.state != simFrozen {
			err = fmt.Errorf("the fence is %s", side.state)
		}
		if err == nil {
			at, rows = len(s.log), s.in(side)
		}
		return err
	})
	if err == nil {
		err = v.caught(ctx, j, at)
	}
	if err != nil {
		return err
	}
	return v.on(ctx, j, false, "compare", func(_ context.Context, s *simShard) error {
		side, err := s.claim(j, false, true)
		if err == nil && side.at == at && !maps.Equal(rows, s.in(side)) {
			err = move.ErrDiffers
			v.n.w.wrong("move %d: the target has %v, and the source %v", j.Move.ID, s.in(side), rows)
		}
		return err
	})
}

// Thaw opens the source again, for a move that goes on, when nothing of the freeze is under way any more.
func (v simServers) Thaw(ctx context.Context, j *move.Job) error {
	err := v.on(ctx, j, true, "thaw the source", func(ctx context.Context, s *simShard) error {
		side, err := s.claim(j, true, false)
		if err == nil {
			err = s.alone(ctx, j.Move.ID)
		}
		if err == nil && side != nil && side.term == j.Term && side.state == simFrozen {
			side.state = simOpen
			s.open(j.Move.ID)
			s.tell()
			v.n.w.note("%s opens its fence for move %d, which goes on", s.name, j.Move.ID)
		}
		return err
	})
	if err == nil {
		err = v.on(ctx, j, false, "thaw the target", func(ctx context.Context, s *simShard) error {
			_, err := s.claim(j, false, false)
			if err == nil {
				err = s.alone(ctx, j.Move.ID)
			}
			return err
		})
	}
	return err
}

// Unfence opens the source again.
func (v simServers) Unfence(ctx context.Context, j *move.Job) error {
	return v.on(ctx, j, true, "unfence", func(_ context.Context, s *simShard) error {
		side, err := s.claim(j, true, false)
		if err == nil && side != nil {
			side.state = simOpen
			s.open(j.Move.ID)
			s.tell()
			v.n.w.note("%s opens its fence for move %d", s.name, j.Move.ID)
		}
		return err
	})
}

// Clean removes what an aborted move has left.
func (v simServers) Clean(ctx context.Context, j *move.Job, _ func(move.Copied)) error {
	target := v.on(ctx, j, false, "clean the target", func(ctx context.Context, s *simShard) error {
		side, err := s.claim(j, false, false)
		if err == nil {
			err = s.alone(ctx, j.Move.ID)
		}
		if err == nil && side != nil {
			side.follows = false
			for key := range s.in(side) {
				s.commit(key, simGone)
			}
			delete(s.targets, j.Move.ID)
		}
		return err
	})
	source := v.on(ctx, j, true, "clean the source", func(ctx context.Context, s *simShard) error { return s.alone(ctx, j.Move.ID) })
	if source == nil {
		source = v.RemoveFence(ctx, j)
	}
	return errors.Join(target, source)
}

// Detach ends the replication.
func (v simServers) Detach(ctx context.Context, j *move.Job) error {
	err := v.on(ctx, j, true, "moved", func(ctx context.Context, s *simShard) error {
		side, err := s.claim(j, true, true)
		if err == nil {
			side.state = simMoved
			err = s.alone(ctx, j.Move.ID)
		}
		return err
	})
	if err == nil {
		err = v.on(ctx, j, false, "unsubscribe", func(ctx context.Context, s *simShard) error {
			side, err := s.claim(j, false, false)
			if err == nil {
				err = s.alone(ctx, j.Move.ID)
			}
			if err == nil && side != nil {
				side.follows = false
				delete(s.targets, j.Move.ID)
			}
			return err
		})
	}
	if err == nil {
		err = v.on(ctx, j, true, "drop the slot", func(_ context.Context, s *simShard) error {
			side, err := s.claim(j, true, true)
			if err == nil {
				side.slot = false
			}
			return err
		})
	}
	return err
}

// Delete removes the source's rows.
func (v simServers) Delete(ctx context.Context, j *move.Job, _ func(move.Copied)) error {
	return v.on(ctx, j, true, "delete", func(_ context.Context, s *simShard) error {
		side, err := s.claim(j, true, true)
		if err != nil {
			return err
		}
		for key := range s.in(side) {
			s.commit(key, simGone)
		}
		return nil
	})
}

// AtWork lists the statements at the source.
func (v simServers) AtWork(ctx context.Context, j *move.Job) (works []move.Work, err error) {
	err = v.on(ctx, j, true, "at work", func(_ context.Context, s *simShard) error {
		works = nil
		for id := range s.running {
			works = append(works, move.Work{Backend: strconv.FormatUint(id, 10)})
		}
		return nil
	})
	return works, err
}

// RemoveFence removes the source's row.
func (v simServers) RemoveFence(ctx context.Context, j *move.Job) error {
	return v.on(ctx, j, true, "remove the fence", func(_ context.Context, s *simShard) error {
		side, err := s.claim(j, true, false)
		if err == nil && side != nil {
			delete(s.sources, j.Move.ID)
			s.tell()
			v.n.w.note("%s removes its fence of move %d", s.name, j.Move.ID)
		}
		return err
	})
}

// simBounds are a move's bounds as numbers.
func simBounds(m *rib.Move) (low, high int64) {
	low, high = simHigh, simLow
	for k := int64(simLow); k < simHigh; k++ {
		if m.Holds(simKey(k)) {
			low, high = min(low, k), max(high, k+1)
		}
	}
	return low, high
}
