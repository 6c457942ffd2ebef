package moving

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rangefinder/fib"
	"rangefinder/rib"
)

// node is a handle, the moves that follow it, and what they have said.
type node struct {
	t      *testing.T
	fib    fib.Handle
	moves  *Moves
	news   atomic.Int64
	epoch  uint64
	cancel context.CancelFunc
	done   sync.WaitGroup
}

func start(t *testing.T, atWork func() []Work) *node {
	n := &node{t: t}
	n.moves = New(Config{FIB: &n.fib, AtWork: atWork, News: func() { n.news.Add(1) }})
	ctx, cancel := context.WithCancel(t.Context())
	n.cancel = cancel
	n.done.Go(func() { n.moves.Run(ctx) })
	return n
}

func (n *node) stop() { n.cancel(); n.done.Wait() }

// table installs a table with these moves of keyspace 1.
func (n *node) table(moves ...rib.Move) rib.Epoch {
	n.epoch++
	o := &rib.Ownership{ClusterID: "c", Epoch: rib.Epoch{Generation: 1, Index: n.epoch}, Moves: moves}
	self := rib.NewTable(rib.Member{Name: "n"})
	self.Owners().Set(o)
	t, err := fib.Compile(self.Snapshot())
	if err != nil {
		n.t.Fatal(err)
	}
	n.fib.Store(t)
	synctest.Wait()
	return o.Epoch
}

func move(id uint64, phase rib.MovePhase) rib.Move {
	return rib.Move{ID: id, Keyspace: 1, Low: rib.Key("b"), High: rib.Key("d"), From: "s1", To: "s2", Phase: phase}
}

type work struct{ over atomic.Bool }

func (w *work) Over() bool { return w.over.Load() }

// TestDrain: what entered before the freeze is waited for, nothing enters after it, and what is left is said at once.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := start(t, nil)
		defer n.stop()
		n.table(move(7, rib.MovePrepare))
		x := n.moves.View().Crossing(7)
		if x == nil || !x.Enter() || !x.Enter() {
			t.Fatal("a range that is being prepared must let everybody in")
		}
		frozen := n.table(move(7, rib.MoveFrozen))
		if s := n.moves.Say(); s.Applied != frozen || s.Settled != frozen || len(s.Drained) != 0 {
			t.Errorf("two are inside: %+v", s)
		}
		if x.Enter() {
			t.Error("somebody entered a frozen range")
		}
		x.Leave()
		synctest.Wait()
		before := n.news.Load()
		x.Leave()
		synctest.Wait()
		if s := n.moves.Say(); !slices.Equal(s.Drained, []uint64{7}) || n.news.Load() == before {
			t.Errorf("all have left: %+v, told %v", s, n.news.Load() > before)
		}
		n.table(move(7, rib.MoveFlipped))
		if s := n.moves.Say(); !slices.Equal(s.Drained, []uint64{7}) {
			t.Errorf("after the flip: %+v", s)
		}
		gone := n.table()
		if s := n.moves.Say(); len(s.Drained) != 0 || s.Settled != gone || x.Phase() != 0 || x.Enter() {
			t.Errorf("after its end: %+v", s)
		}
	})
}

// TestThaw: when the freeze is given up all may enter again, also who has not left yet, and of what is inside nothing is said to have left when the range is frozen again.
func TestThaw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := start(t, nil)
		defer n.stop()
		n.table(move(7, rib.MovePrepare))
		x := n.moves.View().Crossing(7)
		if !x.Enter() {
			t.Fatal("not let in")
		}
		first := n.table(move(7, rib.MoveFrozen))
		x.Leave()
		synctest.Wait()
		if s := n.moves.Say(); s.Applied != first || !slices.Equal(s.Drained, []uint64{7}) {
			t.Errorf("all have left: %+v", s)
		}
		told := n.news.Load()
		n.table(move(7, rib.MovePrepare))
		if s := n.moves.Say(); len(s.Drained) != 0 || n.news.Load() == told {
			t.Errorf("it is not frozen any more: %+v, told %v", s, n.news.Load() > told)
		}
		if y := n.moves.View().Crossing(7); y != x || !y.Enter() {
			t.Error("not let in after the freeze")
		}
		again := n.table(move(7, rib.MoveFrozen))
		if s := n.moves.Say(); s.Applied != again || len(s.Drained) != 0 || x.Enter() {
			t.Errorf("one is inside: %+v", s)
		}
		x.Leave()
		synctest.Wait()
		if s := n.moves.Say(); !slices.Equal(s.Drained, []uint64{7}) {
			t.Errorf("all have left: %+v", s)
		}
	})
}

// TestUnsettled: a node that hears of a move only when it is flipped, while something of before is at work, says so until that is over;
// and somebody who has entered and has not left keeps the node from having settled.
func TestUnsettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var list []Work
		n := start(t, func() []Work { return list })
		defer n.stop()
		old := n.table()
		old1 := &work{}
		list = []Work{old1}
		now := n.table(move(9, rib.MoveFlipped))
		if s := n.moves.Say(); s.Applied != now || s.Settled != old || len(s.Drained) != 0 {
			t.Errorf("something of before is at work: %+v", s)
		}
		list = []Work{&work{}} // of after: nobody asks for it
		old1.over.Store(true)
		<-time.After(2 * lookAgain)
		synctest.Wait()
		if s := n.moves.Say(); s.Settled != now || !slices.Equal(s.Drained, []uint64{9}) {
			t.Errorf("it is over: %+v", s)
		}

		list = nil
		n.table(move(11, rib.MovePrepare))
		x := n.moves.View().Crossing(11)
		if !x.Enter() {
			t.Fatal("not let in")
		}
		before := n.table(move(11, rib.MoveFrozen))
		n.table(move(11, rib.MoveFlipped))
		if s := n.moves.Say(); s.Settled != before {
			t.Errorf("one of before is on the source still: %+v", s)
		}
		x.Leave()
		synctest.Wait()
		if s := n.moves.Say(); s.Settled != s.Applied {
			t.Errorf("it has left: %+v", s)
		}
	})
}

// TestEnterRace: as many enter and leave as can while the range freezes: once drained is said, nobody is inside.
func TestEnterRace(t *testing.T) {
	for range 200 {
		var handle fib.Handle
		m := New(Config{FIB: &handle})
		install := func(epoch uint64, phase rib.MovePhase) {
			self := rib.NewTable(rib.Member{Name: "n"})
			self.Owners().Set(&rib.Ownership{ClusterID: "c", Epoch: rib.Epoch{Generation: 1, Index: epoch}, Moves: []rib.Move{move(7, phase)}})
			table, err := fib.Compile(self.Snapshot())
			if err != nil {
				t.Fatal(err)
			}
			handle.Store(table)
			m.Follow()
		}
		install(1, rib.MovePrepare)
		var inside atomic.Int64
		var drained atomic.Bool
		var wg sync.WaitGroup
		begin := make(chan struct{})
		for range 4 {
			wg.Go(func() {
				x := m.View().Crossing(7)
				<-begin
				for x.Enter() {
					inside.Add(1)
					if drained.Load() {
						t.Error("inside a drained range")
					}
					inside.Add(-1)
					x.Leave()
				}
			})
		}
		close(begin)
		install(2, rib.MoveFrozen)
		for len(m.Say().Drained) == 0 {
			runtime.Gosched()
		}
		drained.Store(true)
		if inside.Load() != 0 {
			t.Error("drained was said with somebody inside")
		}
		wg.Wait()
	}
}

func TestTouched(t *testing.T) {
	var touched Touched
	moves := []rib.Move{move(7, rib.MoveFrozen), {ID: 8, Keyspace: 1, Low: rib.Key("x")}, {ID: 9, Keyspace: 2}}
	for _, test := range []struct {
		what string
		do   func()
		want []uint64
	}{
		{"before it", func() { touched.Key(rib.Key("a")) }, nil},
		{"its first", func() { touched.Key(rib.Key("b")) }, []uint64{7}},
		{"past its last", func() { touched.Key(rib.Key("d")) }, nil},
		{"an open range", func() { touched.Key(rib.Key("zzz")) }, []uint64{8}},
		{"a range up to it", func() { touched.Range(nil, rib.Key("b")) }, nil},
		{"a range into it", func() { touched.Range(rib.Key("a"), rib.Key("bb")) }, []uint64{7}},
		{"everything", func() { touched.Range(nil, nil) }, []uint64{7, 8}},
		{"a shard", func() { touched.At(moves, "s2") }, []uint64{7}},
		{"another keyspace", func() { touched.On(moves, 2); touched.Key(rib.Key("a")) }, []uint64{9}},
	} {
		touched.Clear()
		touched.On(moves, 1)
		test.do()
		if !slices.Equal(touched.IDs(), test.want) {
			t.Errorf("%s: %v, want %v", test.what, touched.IDs(), test.want)
		}
	}
}

// TestAware: a node does not say that it knows a move as long as something is at work that was routed without, in whatever phase.
func TestAware(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := &work{}
		list := []Work{before}
		n := start(t, func() []Work { return list })
		defer n.stop()
		n.table()
		n.table(move(7, rib.MovePrepare))
		if s := n.moves.Say(); len(s.Aware) != 0 {
			t.Errorf("something of before is at work: %+v", s)
		}
		list = nil
		n.table(move(7, rib.MovePrepare), move(8, rib.MoveAborted))
		if s := n.moves.Say(); !slices.Equal(s.Aware, []uint64{8}) {
			t.Errorf("nothing was at work when the second began: %+v", s)
		}
		told := n.news.Load()
		before.over.Store(true)
		<-time.After(2 * lookAgain)
		synctest.Wait()
		if s := n.moves.Say(); !slices.Equal(s.Aware, []uint64{7, 8}) || n.news.Load() == told {
			t.Errorf("it is over: %+v, told %v", s, n.news.Load() > told)
		}
		n.table()
		if s := n.moves.Say(); len(s.Aware) != 0 {
			t.Errorf("the moves are: %+v", s)
		}
	})
}
