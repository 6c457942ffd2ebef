package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// moveKillRate is moves.rate while things are killed. How fast rows are copied does not matter then, and there are twelve moves.
const moveKillRate = "64MiB"

// movePhases are where something is killed, and how one sees that a move is there.
var movePhases = []struct {
	name string
	at   func(*moveStatus) bool
}{
	{"copy", func(m *moveStatus) bool { return m.Phase == "prepare" && m.Step == "copy" && m.Part > 0.1 }},
	{"follow", func(m *moveStatus) bool { return m.Phase == "prepare" && m.Step == "follow" }},
	{"frozen", func(m *moveStatus) bool { return m.Phase == "frozen" }},
	{"flipped", func(m *moveStatus) bool { return m.Phase == "flipped" }},
}

// kills moves the range to and fro. What is killed comes back.
func (w *moveWorld) kills(ctx context.Context, l *moveLoad, o moveOptions, r *moveResult) error {
	l.calm.Store(false)
	if o.mb >= 500 {
		w.rate = moveKillRate
	}
	for _, n := range w.nodes {
		n.end(syscall.SIGTERM)
		if err := errors.Join(w.configure(), w.start(ctx, n)); err != nil {
			return err
		}
	}
	for _, phase := range movePhases {
		for _, who := range []string{"leader", "source", "target"} {
			k, err := w.killOne(ctx, l, who, phase.name, phase.at)
			if err != nil {
				return fmt.Errorf("%s killed in phase %s: %w", who, phase.name, err)
			}
			r.Kills = append(r.Kills, k)
		}
	}
	return nil
}

// killOne kills one of those who take part. The phases that are short are made long: a move that is paused stays in follow, and one whose range
// has a transaction open stays frozen.
func (w *moveWorld) killOne(ctx context.Context, l *moveLoad, who, phase string, at func(*moveStatus) bool) (k moveKill, err error) {
	from, to, err := w.other(ctx)
	if err != nil {
		return k, err
	}
	leader, err := w.leader(ctx)
	if err != nil {
		return k, err
	}
	id, err := w.begin(ctx, to)
	if err != nil {
		return k, err
	}
	ordered := func(what string) error {
		return w.retry(ctx, func() error {
			return w.nodes[0].call(ctx, "POST", fmt.Sprintf("/api/v1/moves/%d/%s", id, what), map[string]string{}, nil)
		})
	}
	if phase == "follow" || phase == "frozen" {
		if err := w.stays(ctx, id, ordered); err != nil {
			return k, err
		}
	}
	var open *moveOpen
	if phase == "frozen" { // a transaction that is older than the fence's triggers would keep them from being made
		for _, s := range w.shards { // how long a server recovers is not what is measured
			if err := s.ExecIn(ctx, benchDatabase, "CHECKPOINT"); err != nil {
				return k, err
			}
		}
		if err := ordered("resume"); err != nil {
			return k, err
		}
		if open, err = w.hold(ctx, l, leader, id); err != nil {
			return k, err
		}
		defer open.end()
	}
	if err := w.until(ctx, id, moveWatch, func(m *moveStatus) bool { return m == nil || at(m) || m.Phase == "flipped" || m.Phase == "aborted" }); err != nil {
		return k, err
	}
	m, err := w.at(ctx, id)
	if err != nil || m == nil || !at(m) {
		return k, errors.Join(fmt.Errorf("the move is not in the phase any more: %+v", m), err)
	}
	killed := time.Now()
	switch who {
	case "leader":
		if leader, err = w.leader(ctx); err != nil {
			return k, err
		}
		leader.end(syscall.SIGKILL)
		open.commit(ctx)
		err = w.start(ctx, leader)
	default:
		s := w.shards[map[string]string{"source": from, "target": to}[who]]
		if err = s.Kill(); err == nil {
			open.commit(ctx)
			err = s.Start(ctx)
		}
	}
	if err != nil {
		return k, err
	}
	back := time.Since(killed)
	if phase == "follow" {
		if err := ordered("resume"); err != nil {
			return k, err
		}
	}
	if err := w.over(ctx, id); err != nil {
		return k, err
	}
	took := time.Since(killed)
	owner, err := w.owner(ctx)
	if err != nil {
		return k, err
	}
	counts, err := l.check(ctx)
	if err != nil {
		return k, err
	}
	k = moveKill{Who: who, Phase: phase, Resumed: owner == to, Lost: counts.lost, duplicated: counts.duplicated}
	w.say("%-7s killed in %-8s: back after %.1f s, the move over after %.1f s; resumed %v, lost %d, duplicated %d", who, phase, back.Seconds(), took.Seconds(), k.Resumed, k.Lost, counts.duplicated)
	if !k.Resumed || phase == "frozen" {
		return k, w.told(id)
	}
	return k, nil
}

// stays has a move pause while it copies, so that it stays in follow. One that is paused does not begin to copy: so it goes on for a while if it has to do that anew, because the
// leader has lost its place on a busy machine.
func (w *moveWorld) stays(ctx context.Context, id uint64, ordered func(what string) error) error {
	for {
		if err := w.until(ctx, id, moveWatch, func(m *moveStatus) bool { return m == nil || m.Step != "check" && m.Part > 0 }); err != nil {
			return err
		}
		if err := ordered("pause"); err != nil {
			return err
		}
		anew := false
		if err := w.until(ctx, id, moveWatch, func(m *moveStatus) bool {
			anew = m != nil && m.Step == "copy" && m.Part == 0
			return anew || m == nil || m.Step == "follow" || m.Phase != "prepare"
		}); err != nil || !anew {
			return err
		}
		if err := ordered("resume"); err != nil {
			return err
		}
	}
}

// moveOpen is a transaction on the range, which keeps a freeze from its end.
type moveOpen struct {
	l    *moveLoad
	conn *pgx.Conn
	id   int64
	done bool
}

// hold has a transaction open on the range when that is frozen. One that has been open for two seconds would be waited for: so it is replaced by another one each second.
func (w *moveWorld) hold(ctx context.Context, l *moveLoad, leader *moveNode, id uint64) (open *moveOpen, err error) {
	for {
		limited, cancel := context.WithTimeout(ctx, time.Second)
		next, err := w.open(limited, l, leader)
		if err == nil {
			if open.commit(ctx); open != nil {
				open.end()
			}
			open = next
		} else if open == nil || limited.Err() == nil { // else the range is frozen, and the new one has waited until its time was over
			cancel()
			return nil, err
		}
		cancel()
		limited, cancel = context.WithTimeout(ctx, time.Second)
		err = w.until(limited, id, moveWatch, func(m *moveStatus) bool { return m == nil || m.Phase != "prepare" })
		over := err != nil && limited.Err() != nil && ctx.Err() == nil
		if cancel(); !over {
			return open, err
		}
	}
}

// open begins one at a node that does not lead.
func (w *moveWorld) open(ctx context.Context, l *moveLoad, leader *moveNode) (o *moveOpen, err error) {
	node := w.nodes[0]
	if node == leader {
		node = w.nodes[1]
	}
	o = &moveOpen{l: l}
	if o.conn, err = node.connect(ctx); err != nil {
		return nil, err
	}
	customer := rand.Int64N(moveCustomers)
	for !w.moves(customer) {
		customer = rand.Int64N(moveCustomers)
	}
	o.id = l.sends(moveHeld)
	_, err = o.conn.Exec(ctx, "BEGIN")
	if err == nil {
		err = insertParcel(ctx, o.conn, customer, o.id, moveHeld)
	}
	if err != nil {
		o.end()
		return nil, fmt.Errorf("a transaction on the range: %w", err)
	}
	return o, nil
}

// commit ends it; o may be nil.
func (o *moveOpen) commit(ctx context.Context) {
	if o == nil || o.done {
		return
	}
	o.done = true
	_, err := o.conn.Exec(ctx, "COMMIT")
	switch {
	case err == nil:
		o.l.heard(o.id, moveAcked)
	case !unsure(err):
		o.l.heard(o.id, moveRefused)
	}
}

func (o *moveOpen) end() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = o.conn.Close(ctx)
}
