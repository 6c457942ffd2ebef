package twophase

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Whose is left alone for how long.
func TestWhatMayBeEnded(t *testing.T) {
	alone := true
	m := New(Config{
		Cluster: "0123456789", Node: "a", Logger: slog.New(slog.DiscardHandler),
		Alive: func(node string) bool { return node == "b" }, Alone: func() bool { return alone },
	})
	for _, c := range []struct {
		what  string
		gid   GID
		alone bool
		from  time.Duration // the youngest that may be ended
	}{
		{"this process's, and unknown to it", GID{Node: "a", Boot: m.boot}, true, 0},
		{"an earlier process's", GID{Node: "a", Boot: "x"}, true, 0},
		{"that of a process which may be alive beside this one", GID{Node: "a", Boot: "x"}, false, 10 * time.Second},
		{"a live node's", GID{Node: "b", Boot: "x"}, true, time.Minute},
		{"a dead node's", GID{Node: "c", Boot: "x"}, true, 10 * time.Second},
	} {
		alone = c.alone
		if !m.mayEnd(c.gid, c.from) {
			t.Errorf("%s: not after %s", c.what, c.from)
		}
		if c.from > 0 && m.mayEnd(c.gid, c.from-1) {
			t.Errorf("%s: before %s", c.what, c.from)
		}
	}
}

// What was prepared while a server's clock was ahead is in its future once that is right. Who has seen it for long enough ends it all the same: it
// holds locks.
func TestAServersClockWasSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(false)
		n := w.nodes[0]
		n.m.cfg.Grace = 10 * time.Second
		n.m.cfg.Settle = time.Hour // shard_1 would forget the refusal, which counts as old here at once, while shard_2 asks for it
		const gid = "rangefinder:01234567:gone:x:1:shard_1"
		prepare := func() { w.shards["shard_2"].prepared[gid] = &fakeTx{fate: map[string]string{}, age: -time.Hour} }
		prepare()
		look := func(when string, after time.Duration, left bool) {
			t.Helper()
			<-time.After(after)
			if got := n.m.Look(t.Context()); got != left {
				t.Errorf("%s: left: %v", when, got)
			}
		}
		look("at first", 0, true)
		look("too early", 5*time.Second, true)
		if list := n.m.Transactions(); len(list) != 1 || list[0].Age != 5*time.Second {
			t.Errorf("seen for 5 s: %+v", list)
		}
		w.shards["shard_2"].down = true
		look("while the shard is down", 4*time.Second, true)
		w.shards["shard_2"].down = false
		look("still too early", time.Second-1, true)
		look("in time", 1, false)
		prepare()
		look("another one", 0, true)
		look("another one, too early", 10*time.Second-1, true)
		look("another one, in time", 1, false)
	})
}

// A shard that cannot be asked, and what is left there for that reason, is for a person to look at.
func TestAlarms(t *testing.T) {
	w := newWorld(false)
	n := w.nodes[0]
	n.m.cfg.Uses = func() []string { return nil }
	w.shards["shard_2"].prepared["rangefinder:01234567:gone:x:1:shard_1"] = &fakeTx{fate: map[string]string{}}
	w.shards["shard_1"].down = true
	if !n.m.Look(context.Background()) {
		t.Error("nothing is left")
	}
	alarms := strings.Join(n.m.Alarms(), "\n")
	for _, want := range []string{
		"what transactions over several shards have left on shard shard_1 cannot be seen: connection lost",
		"transaction rangefinder:01234567:gone:x:1:shard_1 is left prepared on shard_2 since 1h0m0s, with its locks (in doubt): connection lost",
	} {
		if !strings.Contains(alarms, want) {
			t.Errorf("no %q in %q", want, alarms)
		}
	}
	w.shards["shard_1"].down = false
	if n.m.Look(context.Background()) {
		t.Errorf("left: %+v", n.m.Transactions())
	}
	if alarms := n.m.Alarms(); len(alarms) != 0 {
		t.Errorf("alarms %q", alarms)
	}
	n.m.cfg.Shards = func() []string { return nil }
	if !n.m.Look(context.Background()) {
		t.Error("it is enough to know no shards")
	}
}

// A decision is removed when nothing that has to follow it is left, and not before that is known.
func TestDecisionsAreRemoved(t *testing.T) {
	const gid = "rangefinder:01234567:gone:x:1:shard_1"
	w := newWorld(false)
	m := w.nodes[0].m
	m.cfg.Shards = func() []string { return []string{"shard_1"} }
	decision := w.shards["shard_1"].decisions
	decision[gid] = Decision{GID: gid, Commit: true, Participants: shardNames(3), By: "app"}
	w.shards["shard_2"].prepared[gid] = &fakeTx{fate: map[string]string{}}
	if m.Look(context.Background()); len(decision) != 1 {
		t.Error("removed, and a part of the transaction was still prepared")
	}
	delete(w.shards["shard_2"].prepared, gid)
	w.shards["shard_3"].down = true
	if m.Look(context.Background()); len(decision) != 1 {
		t.Error("removed, and a shard could not be asked")
	}
	w.shards["shard_3"].down = false
	if m.Look(context.Background()); len(decision) != 0 {
		t.Error("not removed")
	}
}

// A server whose clock is ahead takes a new decision for an old one. It stays all the same for as long as a server may fail that has followed it and told no
// replica: one that nobody remembers would be decided anew, to be rolled back.
func TestADecisionStaysIfAClockIsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const gid = "rangefinder:01234567:gone:x:1:shard_1"
		w := newWorld(false)
		m := w.nodes[0].m
		m.cfg.Settle = time.Minute
		decision := w.shards["shard_1"].decisions
		decision[gid] = Decision{GID: gid, Commit: true, Participants: shardNames(3), By: "app"}
		for _, c := range []struct {
			after time.Duration
			left  int
		}{{0, 1}, {time.Minute - 1, 1}, {1, 0}} {
			<-time.After(c.after)
			if m.Look(t.Context()); len(decision) != c.left {
				t.Errorf("%v later: %d decisions, want %d", c.after, len(decision), c.left)
			}
		}
	})
}

// meanwhile are Sites where something happens after a list of what is prepared was made.
type meanwhile struct {
	Sites
	then func()
}

type meanwhileSite struct {
	Site
	then func()
}

func (x meanwhile) Open(ctx context.Context, shard, database string) (Site, error) {
	s, err := x.Sites.Open(ctx, shard, database)
	return meanwhileSite{s, x.then}, err
}

func (x meanwhileSite) Prepared(ctx context.Context, prefix string) (Found, error) {
	f, err := x.Site.Prepared(ctx, prefix)
	x.then()
	return f, err
}

// What ends by itself after it was listed as prepared was not left by anybody: nothing is said of it, nor decided.
func TestEndedMeanwhile(t *testing.T) {
	for _, whose := range []string{"this process's", "another node's"} {
		w := newWorld(false)
		var log bytes.Buffer
		m := w.nodes[0].m
		gid := GID{Cluster: "01234567", Node: "node_a", Boot: m.boot, Number: 1, Decision: "shard_1"}
		if whose != "this process's" {
			gid.Node = "node_b"
		}
		name := gid.String()
		shard := w.shards["shard_2"]
		shard.prepared[name] = &fakeTx{fate: map[string]string{}}
		if whose == "this process's" {
			m.active[name] = &transaction{name: name, shards: shardNames(2), open: []string{"shard_2"}, state: Deciding}
		} else {
			w.shards["shard_1"].decisions[name] = Decision{GID: name, Commit: true, Participants: shardNames(2), By: "app"}
		}
		m.cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		m.cfg.Uses, m.cfg.Shards = func() []string { return nil }, func() []string { return []string{"shard_2"} }
		m.cfg.Sites = meanwhile{w.nodes[0], func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			shard.finish(name, false)
			m.mu.Lock()
			delete(m.active, name)
			m.mu.Unlock()
		}}
		m.Look(context.Background())
		if log.Len() > 0 || m.Counts().Ended != 0 {
			t.Errorf("%s: it was ended by somebody else, and is told of: %s", whose, log.String())
		}
		if d, there := w.shards["shard_1"].decisions[name]; there && !d.Commit {
			t.Errorf("%s: it was decided to roll it back", whose)
		}
	}
}

// There is a bound to what a node keeps in its books.
func TestTooManyOpen(t *testing.T) {
	w := newWorld(false)
	m := w.nodes[0].m
	for i := range maxActive {
		m.active[string(rune('a'+i%26))+strings.Repeat("x", i/26)] = &transaction{shards: shardNames(2)}
	}
	tx := &fakeTx{shards: shardNames(2), fate: map[string]string{}}
	var list []Participant
	for _, name := range shardNames(2) {
		list = append(list, Participant{&fakeBranch{n: w.nodes[0], s: w.shards[name], tx: tx, plan: map[string]fault{}}, true})
	}
	if err := m.Commit(context.Background(), "app", list); code(err) != "53000" {
		t.Errorf("error %v", err)
	}
	if tx.fate["shard_1"] != "rolled back" || tx.fate["shard_2"] != "rolled back" {
		t.Errorf("fate %v", tx.fate)
	}
}
