package scatter

import (
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"rangefinder/fib"
	"rangefinder/wire/oids"
	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
	"rangefinder/wire/sqlkey"
)

// broken is a Host with a mistake in it.
type broken struct{ Host }

func (broken) Plan(string, []uint32) *sqlkey.Plan { panic("a mistake") }

// faulty is a Host that has a mistake where a shard is looked for, which a statement of several shards does in goroutines of its own.
type faulty struct{ Host }

func (faulty) Plan(string, []uint32) *sqlkey.Plan {
	return &sqlkey.Plan{Statements: 1, Target: sqlkey.Many, Fan: &sqlkey.Fan{}}
}
func (faulty) Shards(context.Context, *sqlkey.Plan, sqlkey.Args) ([]Share, *pg.Error) {
	return []Share{{Slot: new(fib.Slot)}, {Slot: new(fib.Slot)}}, nil
}
func (faulty) Scatter(*sqlkey.Plan, string, int) *pg.Error { return nil }
func (faulty) MustWrite(*sqlkey.Plan) bool                 { return false }
func (faulty) Home() string                                { return "" }
func (faulty) Types(string) *oids.Map                      { return nil }
func (faulty) Choose(*fib.Slot, bool) Chooser              { return faultyChooser{} }
func (faulty) Failed(*fib.NextHop, string)                 {}

type faultyChooser struct{}

func (faultyChooser) Next(context.Context, pool.Claim) (Link, *pg.Error) { panic("a mistake") }

// A panic ends the session that it is of, and is told, whichever goroutine it is in.
func TestPanicEndsOneSession(t *testing.T) {
	for name, host := range map[string]Host{"the coordinator's": broken{}, "a part's": faulty{}} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			var told atomic.Pointer[string]
			c := New(theirs, Config{Host: host, MaxFrame: 1 << 20, Shared: new(Shared), Panicked: func(with any) {
				text := with.(string)
				told.Store(&text)
			}})
			done := make(chan struct{})
			go func() {
				defer close(done)
				c.Serve(t.Context())
			}()
			if _, err := ours.Write(pg.AppendQuery(nil, "SELECT 1")); err != nil {
				t.Fatal(err)
			}
			if _, err := ours.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("%v, want the end", err)
			}
			<-done
			if p := told.Load(); p == nil || *p != "a mistake" {
				t.Errorf("told %v", p)
			}
		})
	}
}

// A panic in an errand, here of what takes its rows, is its error, and nothing more is told to the session.
func TestPanicOfAnErrand(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	told := 0
	c := New(discard{}, Config{Host: faulty{}, Shared: new(Shared), Panicked: func(any) { told++ }})
	b := &branch{slot: new(fib.Slot), conn: &pool.Conn{Net: ours, Params: map[string]string{}}, status: pg.StatusInTx}
	c.live[b] = struct{}{}
	go func() {
		buf := make([]byte, 64)
		_, _ = theirs.Read(buf)
		_, _ = theirs.Write(pg.AppendReady(pg.AppendDataRow(nil, [][]byte{nil}), pg.StatusInTx))
	}()
	ask := &errand{b: b, row: func([]byte) *pg.Error { panic("a mistake") }}
	e := c.errands(&execution{stmt: &stmt{plan: new(sqlkey.Plan), sure: true}}, []*errand{ask})
	if e == nil || e.Code != pg.CodeInternalError || told != 1 || !c.crashed.Load() || !b.struck {
		t.Errorf("%v, told %d times", e, told)
	}
	ours.Close()
}
