package fib

import (
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rangefinder/rib"
)

// watched opens a Maintainer and a Watchdog over the source. barks receives what the Watchdog says.
func watched(t *testing.T, s *source, limit time.Duration, logger *slog.Logger) (w *Watchdog, m *Maintainer, barks chan string) {
	t.Helper()
	h := new(Handle)
	m = NewMaintainer(s.Table, h, logger)
	m.Open()
	barks = make(chan string, 9)
	w = NewWatchdog(h, m, func() time.Duration { return limit }, func(why string) { barks <- why })
	w.Open()
	t.Cleanup(func() {
		w.Close()
		w.Close()
		m.Close()
	})
	return w, m, barks
}

// As long as all is well a Watchdog is silent, whatever goes on.
func TestWatchdogIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource(100)
		w, _, barks := watched(t, s, 2*time.Second, nil)
		for i := range 200 {
			s.observe("shard_1_b", rib.State(int(rib.Up)+i%2), rib.Replica)
			if i%50 == 0 {
				s.own(100 + i)
			}
			<-time.After(300 * time.Millisecond)
		}
		if w.Rounds() < 100 || len(barks) > 0 {
			t.Errorf("%d rounds in a minute, %d barks", w.Rounds(), len(barks))
		}
	})
}

// stuckLog is a log that takes nothing any more, as a full pipe does, until it is let go.
type stuckLog chan struct{}

func (l stuckLog) Write(p []byte) (int, error) {
	<-l
	return len(p), nil
}

// A Maintainer that does not come back is noticed after the limit, once.
func TestWatchdogOfAStuckMaintainer(t *testing.T) {
	for _, limit := range []time.Duration{2 * time.Second, 30 * time.Second, 0} {
		synctest.Test(t, func(t *testing.T) {
			s, log := newSource(4), make(stuckLog)
			_, _, barks := watched(t, s, limit, slog.New(slog.NewTextHandler(log, nil)))
			defer close(log) // before Close, which waits for it
			<-time.After(time.Minute)
			s.observe("shard_1_b", rib.Up, rib.Primary) // a split brain, which is logged
			begin := time.Now()
			if limit == 0 {
				<-time.After(time.Hour)
				if len(barks) > 0 {
					t.Errorf("without a limit: %s", <-barks)
				}
				return
			}
			why := <-barks
			if took := time.Since(begin); took < limit || took > limit+2*watchdogPause {
				t.Errorf("noticed after %v, the limit is %v", took, limit)
			}
			if want := "stuck for more than " + limit.String() + " while asking whether the table is kept up to date"; why != want {
				t.Errorf("it says %q, not %q", why, want)
			}
			<-time.After(time.Hour)
			if len(barks) > 0 {
				t.Errorf("it says it again: %s", <-barks)
			}
		})
	}
}

// A table that sends a key elsewhere than the ledger says is noticed at once.
func TestWatchdogOfAWrongTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource(2)
		w, _, barks := watched(t, s, time.Hour, nil)
		<-time.After(time.Minute)
		good := w.handle.Load()
		x := *good.dense[1]
		x.slots, x.direct, x.few = []*Slot{x.slots[1], x.slots[0]}, nil, nil
		w.handle.Store(&Table{ownership: good.ownership, dense: []*index{nil, &x}, slots: good.slots, byShard: good.byShard})
		begin := time.Now()
		why := <-barks
		if time.Since(begin) > watchdogPause || !strings.HasPrefix(why, "keyspace app.orders: the key ") || !strings.Contains(why, ", and belongs to shard_") {
			t.Errorf("after %v: %s", time.Since(begin), why)
		}
	})
}

// So is a list that sends a shard's reads or writes to another shard's backend.
func TestWatchdogOfAWrongList(t *testing.T) {
	for what, spoil := range map[string]func(c, other *Candidates){
		"read": func(c, other *Candidates) { c.Reads, c.ReadsNear = other.Reads, 1 }, "write": func(c, other *Candidates) { c.Writes = other.Writes },
	} {
		synctest.Test(t, func(t *testing.T) {
			w, _, barks := watched(t, newSource(2), time.Hour, nil)
			slot := w.handle.Load().Slot("shard_1")
			c := *slot.Candidates()
			spoil(&c, w.handle.Load().Slot("shard_2").Candidates())
			slot.candidates.Store(&c)
			select {
			case why := <-barks:
				if !strings.HasPrefix(why, "keyspace app.orders: a "+what+" of the key ") || !strings.HasSuffix(why, "which is shard_2's and not shard_1's") {
					t.Error(why)
				}
			case <-time.After(time.Minute):
				t.Errorf("nobody has noticed a %s", what)
			}
		})
	}
}

// The limit is asked for again: a reload can change it.
func TestWatchdogTakesANewLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log, h := newSource(4), make(stuckLog), new(Handle)
		m := NewMaintainer(s.Table, h, slog.New(slog.NewTextHandler(log, nil)))
		m.Open()
		var limit atomic.Int64
		barks := make(chan string, 1)
		w := NewWatchdog(h, m, func() time.Duration { return time.Duration(limit.Load()) }, func(why string) { barks <- why })
		w.Open()
		defer func() {
			close(log)
			w.Close()
			m.Close()
		}()
		s.observe("shard_1_b", rib.Up, rib.Primary)
		<-time.After(time.Minute)
		limit.Store(int64(10 * time.Second))
		begin := time.Now()
		<-barks
		if took := time.Since(begin); took > watchdogPause {
			t.Errorf("it took another %v", took)
		}
	})
}

func TestWatchdogClosedBeforeOpen(t *testing.T) {
	h := new(Handle)
	m := NewMaintainer(newSource(1).Table, h, nil)
	w := NewWatchdog(h, m, func() time.Duration { return 0 }, func(string) { t.Error("it barks") })
	w.Close()
	w.Open()
	if w.Rounds() != 0 {
		t.Error("it walks after Close")
	}
}
