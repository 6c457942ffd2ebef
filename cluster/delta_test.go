package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"rangefinder/rib"
)

// same holds two nodes' tables against each other.
func same(t *testing.T, a, b *testNode) {
	t.Helper()
	x, err := EncodeOwnership(nil, a.table.Owners().Get())
	y, err2 := EncodeOwnership(nil, b.table.Owners().Get())
	if err := errors.Join(err, err2); err != nil || !bytes.Equal(x, y) {
		t.Errorf("%s and %s differ (%v):\n%+v\n%+v", a.name, b.name, err, a.table.Owners().Get(), b.table.Owners().Get())
	}
}

// TestFollowersPullCommands: who follows gets the commands that it lacks, from a voter or from another one who follows, and the whole
// table where that is not enough.
func TestFollowersPullCommands(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b, c := w.add("a", "iad"), w.add("b", "fra"), w.add("c", "syd")
		d, e, f := w.add("d", "iad"), w.add("e", "iad"), w.add("f", "iad")
		w.form(a, b, c, d, e, f)
		w.shards(2)
		leader := w.leader()
		spec := KeyspaceSpec{Name: "app.orders", Database: "app", Method: "range", Types: []string{"bigint"}, Shards: []string{"shard_1", "shard_2"}, Splits: []string{"10"},
			Tables: []TableSpec{{"public", "orders", []string{"id"}}}}
		if _, err := leader.ledger.CreateKeyspace(w.ctx(), spec); err != nil {
			t.Fatal(err)
		}
		pulled := func(n, from *testNode, deltas uint64) {
			t.Helper()
			before := n.ledger.Status().PullsDelta
			if applied, err := n.pull(from); err != nil || !applied {
				t.Fatalf("%s from %s: %v, %v", n.name, from.name, applied, err)
			}
			if got := n.ledger.Status().PullsDelta - before; got != deltas {
				t.Errorf("%s from %s: %d pulls of commands, want %d", n.name, from.name, got, deltas)
			}
			same(t, n, from)
		}
		split := func(from, to int) {
			t.Helper()
			for i := from; i < to; i++ {
				if _, err := leader.ledger.Split(w.ctx(), SplitSpec{Keyspace: "app.orders", At: []string{fmt.Sprint(100 + i)}}); err != nil {
					t.Fatal(err)
				}
			}
		}
		settle := func(n *testNode) { // a voter that does not lead hears of the last commit a little later
			t.Helper()
			w.until(n.name+" has it", func() error {
				if n.ledger.Epoch() != leader.ledger.Epoch() {
					return errors.New("not yet")
				}
				return nil
			})
		}
		d.ledger.whole.Store(true)
		if d.ledger.Epoch() != leader.ledger.Epoch() {
			pulled(d, leader, 0)
		}
		d.ledger.whole.Store(false)
		if e.ledger.Epoch() != leader.ledger.Epoch() {
			if _, err := e.pull(leader); err != nil {
				t.Fatal(err)
			}
		}
		split(0, 3)
		pulled(d, leader, 1)
		pulled(e, d, 1) // neither is a voter
		split(3, 5)
		m, err := leader.ledger.StartMove(w.ctx(), MoveRequest{Keyspace: "app.orders", Range: "100-102", To: "shard_1"})
		if err != nil {
			t.Fatal(err)
		}
		voter := a
		if leader == a {
			voter = b
		}
		settle(voter)
		pulled(e, voter, 1)
		if err := leader.ledger.NoteMove(w.ctx(), m.ID, []byte("a note"), false, Origin{}); err != nil {
			t.Fatal(err)
		}
		pulled(e, leader, 1)
		pulled(d, e, 1) // three commands at once, of which e has got two by one pull and one by another

		// What was damaged, or is of other commands, is not taken; then comes the whole.
		split(5, 6)
		leader.ledger.fsm.steps.mu.Lock()
		last := &leader.ledger.fsm.steps.list[len(leader.ledger.fsm.steps.list)-1]
		last.data = slices.Clone(last.data)
		last.data = bytes.Replace(last.data, []byte("split"), []byte("merge"), 1)
		leader.ledger.fsm.steps.mu.Unlock()
		epoch := d.ledger.Epoch()
		if applied, err := d.pull(leader); applied || !errors.Is(err, ErrDelta) || d.ledger.Epoch() != epoch {
			t.Fatalf("commands that lead elsewhere: %v, %v", applied, err)
		}
		pulled(d, leader, 0)
		split(6, 7)
		pulled(d, leader, 1)

		// More than is remembered.
		leader.ledger.fsm.steps.mu.Lock()
		leader.ledger.fsm.steps.list = leader.ledger.fsm.steps.list[len(leader.ledger.fsm.steps.list)-1:]
		leader.ledger.fsm.steps.mu.Unlock()
		pulled(f, leader, 0)
		split(7, 9)
		pulled(f, leader, 1)

		// An older node asks for no commands, and gets none.
		split(9, 10)
		if _, delta, err := func() (*rib.Ownership, bool, error) {
			conn, err := f.host.Dial(w.ctx(), "tcp", leader.host.Addr(pullPort))
			if err != nil {
				return nil, false, err
			}
			defer conn.Close()
			return f.ledger.pull(w.ctx(), conn, false)
		}(); err != nil || delta {
			t.Errorf("%v %v", delta, err)
		}
	})
}

func TestStepsAreBoundedAndMeet(t *testing.T) {
	var s steps
	at := func(i uint64) rib.Epoch { return rib.Epoch{Generation: 1, Index: i} }
	for i := uint64(1); i <= 3*maxSteps; i++ {
		s.add(step{before: at(i - 1), after: at(i), data: []byte("x")})
	}
	s.add(step{before: at(5), after: at(6), data: []byte("known already")})
	if len(s.list) != maxSteps || s.bytes != maxSteps {
		t.Errorf("%d commands of %d bytes", len(s.list), s.bytes)
	}
	if got := s.between(at(3*maxSteps-2), at(3*maxSteps)); len(got) != 2 || got[1].after != at(3*maxSteps) {
		t.Errorf("%+v", got)
	}
	for _, x := range [][2]uint64{{0, 3 * maxSteps}, {3*maxSteps - 1, 3*maxSteps + 1}, {3 * maxSteps, 3 * maxSteps}, {3*maxSteps - 1, 3*maxSteps - 2}} {
		if got := s.between(at(x[0]), at(x[1])); got != nil {
			t.Errorf("from %d to %d: %+v", x[0], x[1], got)
		}
	}
	s.add(step{before: at(9 * maxSteps), after: at(9*maxSteps + 1), data: make([]byte, maxStepBytes)})
	if len(s.list) != 1 || s.bytes != maxStepBytes {
		t.Errorf("after a gap: %d commands of %d bytes", len(s.list), s.bytes)
	}
	s.add(step{before: at(9*maxSteps + 1), after: at(9*maxSteps + 2), data: []byte("x")})
	if len(s.list) != 1 || s.bytes != 1 {
		t.Errorf("beyond the bound: %d commands of %d bytes", len(s.list), s.bytes)
	}
}

// FuzzDecodeSteps: any bytes are commands in their order or an error, and what decodes encodes to the same.
func FuzzDecodeSteps(f *testing.F) {
	at := func(i uint64) rib.Epoch { return rib.Epoch{Generation: 1, Index: i} }
	b := encodeSteps([]step{{before: at(1), after: at(3), nextID: 2, data: []byte("one")}, {before: at(3), after: at(4), data: []byte("two")}})
	f.Add(b[headSize:])
	f.Fuzz(func(t *testing.T, body []byte) {
		b := append([]byte(magicDelta+"\x00\x00\x00\x00"), body...)
		seal(b)
		list, err := decodeSteps(b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		again, err := decodeSteps(encodeSteps(list))
		if err != nil || len(again) != len(list) {
			t.Fatalf("it does not come back: %v", err)
		}
		if _, err := follow(newDraft(movingOwnership()), list); err == nil {
			t.Fatal("noise is a table")
		}
	})
}
