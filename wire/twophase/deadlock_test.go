package twophase

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pg"
)

func TestVictims(t *testing.T) {
	span := func(node string, number uint64, pids ...uint32) Spanning { // one process on each shard, a to c; 0: none
		s := Spanning{Node: node, Number: number}
		for i, pid := range pids {
			if pid != 0 {
				s.Parts = append(s.Parts, Part{string(rune('a' + i)), pid})
			}
		}
		return s
	}
	type waits = map[string][]Wait
	for _, c := range []struct {
		name  string
		all   []Spanning
		waits waits
		want  string
	}{
		{"nobody waits", []Spanning{span("x", 1, 1, 1)}, nil, ""},
		{"one waits for another", []Spanning{span("x", 1, 1, 1), span("x", 2, 2, 2)}, waits{"a": {{PID: 1, For: []uint32{2}}}}, ""},
		{"two for each other", []Spanning{span("x", 1, 1, 1), span("x", 2, 2, 2)}, waits{"a": {{PID: 1, For: []uint32{2}}}, "b": {{PID: 2, For: []uint32{1}}}}, "x 2"},
		{"of two nodes", []Spanning{span("x", 2, 1, 1), span("y", 2, 2, 2)}, waits{"a": {{PID: 1, For: []uint32{2}}}, "b": {{PID: 2, For: []uint32{1}}}}, "y 2"},
		{"the same numbers of processes on other shards", []Spanning{span("x", 1, 1, 2), span("x", 2, 2, 1)}, waits{"a": {{PID: 1, For: []uint32{2}}}, "b": {{PID: 2, For: []uint32{1}}}}, ""},
		{"on one shard, which sees it itself", []Spanning{span("x", 1, 1, 1), span("x", 2, 2, 2)}, waits{"a": {{PID: 1, For: []uint32{2}}, {PID: 2, For: []uint32{1}}}}, ""},
		{"by way of one that is on one shard alone", []Spanning{span("x", 1, 1, 1), span("x", 2, 2, 2)},
			waits{"a": {{PID: 1, For: []uint32{9}}, {PID: 9, For: []uint32{2}}}, "b": {{PID: 2, For: []uint32{1}}}}, "x 2"},
		{"three in a circle", []Spanning{span("x", 1, 1, 0, 1), span("x", 2, 2, 2, 0), span("x", 3, 0, 3, 3)},
			waits{"a": {{PID: 1, For: []uint32{2}}}, "b": {{PID: 2, For: []uint32{3}}}, "c": {{PID: 3, For: []uint32{1}}}}, "x 3"},
		{"three in a line", []Spanning{span("x", 1, 1, 0, 1), span("x", 2, 2, 2, 0), span("x", 3, 0, 3, 3)},
			waits{"a": {{PID: 1, For: []uint32{2}}}, "b": {{PID: 2, For: []uint32{3}}}}, ""},
		{"two circles", []Spanning{span("x", 1, 1, 1), span("x", 2, 2, 2), span("x", 3, 3, 3), span("x", 4, 4, 4)},
			waits{"a": {{PID: 1, For: []uint32{2}}, {PID: 3, For: []uint32{4}}}, "b": {{PID: 2, For: []uint32{1}}, {PID: 4, For: []uint32{3}}}}, "x 4, x 2"},
		{"who waits for a circle is not of it", []Spanning{span("x", 1, 1, 1), span("x", 2, 2, 2), span("x", 3, 3, 3)},
			waits{"a": {{PID: 1, For: []uint32{2}}, {PID: 3, For: []uint32{1}}}, "b": {{PID: 2, For: []uint32{1}}}}, "x 2"},
		{"for what is prepared", []Spanning{span("x", 1, 1, 1), span("x", 2, 2, 2)}, waits{"a": {{PID: 1, For: []uint32{0}}}, "b": {{PID: 2, For: []uint32{1}}}}, ""},
	} {
		got := ""
		for i, v := range victims(c.all, c.waits) {
			if i > 0 {
				got += ", "
			}
			got += fmt.Sprintf("%s %d", v.Node, v.Number)
		}
		if got != c.want {
			t.Errorf("%s: ended are %q, want %q", c.name, got, c.want)
		}
	}
}

// What one look saw here and another there need never have been so at once.
func TestStandstill(t *testing.T) {
	first := map[string][]Wait{"a": {{1, "t1", []uint32{2, 3}}, {4, "t1", []uint32{1}}}, "b": {{2, "t1", []uint32{1}}}}
	second := map[string][]Wait{"a": {{1, "t1", []uint32{3}}, {4, "t2", []uint32{1}}}}
	got := standstill(first, second)
	if len(got) != 1 || len(got["a"]) != 1 || got["a"][0].PID != 1 || len(got["a"][0].For) != 1 || got["a"][0].For[0] != 3 {
		t.Errorf("still so: %+v", got)
	}
}

// span is two connections of a test's.
type span struct {
	parts  []Part
	broken chan *pg.Error
}

func (s *span) Parts() []Part        { return s.parts }
func (s *span) Waits() time.Duration { return suspicious }
func (s *span) Break(e *pg.Error)    { s.broken <- e }

func TestTransactionsThatWaitForEachOther(t *testing.T) {
	r := newRig(t)
	a, b := r.manager("node_a"), r.manager("node_b")
	a.cfg.Others = func(context.Context) []Spanning { return b.Spanning() }
	b.cfg.Others = func(context.Context) []Spanning { return a.Spanning() }
	begin := func(m *Manager, first string) (*span, map[string]*branch) {
		s, conns := &span{broken: make(chan *pg.Error, 9)}, map[string]*branch{}
		for _, shard := range shardNames(2) {
			c := r.open(shard)
			r.exec(c, "BEGIN")
			s.parts, conns[shard] = append(s.parts, Part{shard, c.conn.PgConn().PID()}), c
		}
		r.exec(conns[first], "UPDATE account SET balance = 0 WHERE id = 1")
		t.Cleanup(m.Watch(s))
		return s, conns
	}
	one, oneAt := begin(a, "shard_1")
	two, twoAt := begin(b, "shard_2")
	waitFor := func(b *branch) chan error {
		done := make(chan error, 1)
		go func() {
			_, err := b.conn.Exec(context.Background(), "UPDATE account SET balance = 0 WHERE id = 1", pgx.QueryExecModeSimpleProtocol)
			done <- err
		}()
		pgtest.Eventually(t, time.Minute, func() error {
			if n := r.query(b.shard, "SELECT count(*)::text FROM pg_locks WHERE NOT granted"); n[0] != "1" {
				return fmt.Errorf("%s wait", n[0])
			}
			return nil
		})
		return done
	}
	first := waitFor(oneAt["shard_2"])
	a.Detect(t.Context())
	b.Detect(t.Context())
	if len(one.broken)+len(two.broken) > 0 {
		t.Fatal("one was ended that only waits")
	}
	second := waitFor(twoAt["shard_1"])
	a.Detect(t.Context())
	if len(one.broken)+len(two.broken) > 0 {
		t.Fatal("node_a has ended one, and it is node_b that has to")
	}
	b.Detect(t.Context())
	select {
	case e := <-two.broken:
		if e.Code != pg.CodeDeadlockDetected {
			t.Errorf("ended with %v", e)
		}
	default:
		t.Fatal("nobody was ended")
	}
	if b.Counts().Deadlocks != 1 || a.Counts().Deadlocks != 0 {
		t.Errorf("counted: %d and %d", a.Counts().Deadlocks, b.Counts().Deadlocks)
	}
	for _, c := range []*branch{twoAt["shard_2"]} {
		r.exec(c, "ROLLBACK")
	}
	if err := <-first; err != nil {
		t.Error(err)
	}
	r.exec(oneAt["shard_2"], "ROLLBACK")
	r.exec(oneAt["shard_1"], "ROLLBACK")
	if err := <-second; err != nil {
		t.Error(err)
	}
	r.exec(twoAt["shard_1"], "ROLLBACK")
}
