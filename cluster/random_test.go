package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rangefinder/rib"
)

// randomKey is a bound of few possible ones, so that commands meet; empty is the open end; sometimes it is no bound at all.
func randomKey(t *rapid.T, label string) rib.Key {
	switch n := rapid.IntRange(-2, 30).Draw(t, label); n {
	case -2:
		return rib.Key{1, 2, 3}
	case -1, 0:
		return nil
	default:
		return binary.BigEndian.AppendUint64(nil, 1<<63|uint64(n))
	}
}

// randomCommand is any command about ranges, moves and loans: many cannot work.
func randomCommand(t *rapid.T, i int, o *rib.Ownership) *command {
	c := &command{Request: rapid.SampledFrom([]string{"", "again", fmt.Sprint("n", i)}).Draw(t, "request"), By: &signature{At: time.UnixMilli(int64(i))}}
	keyspace := rapid.SampledFrom([]string{"k", "k", "k", "l", "none"}).Draw(t, "keyspace")
	shard := rapid.SampledFrom([]string{"a", "b", "c", "d", ""})
	low, high := randomKey(t, "low"), randomKey(t, "high")
	if keyspace == "l" && rapid.Bool().Draw(t, "a value") {
		low, high = rib.Key("de\x00"), rib.Key("de\x00\x00")
	}
	until := time.Time{}
	if rapid.Bool().Draw(t, "lent") {
		until = time.UnixMilli(int64(rapid.IntRange(0, 100).Draw(t, "until")))
	}
	id, loan := uint64(99), uint64(99)
	if n := len(o.Moves); n > 0 {
		id = o.Moves[rapid.IntRange(0, n-1).Draw(t, "move")].ID
	}
	if n := len(o.Loans); n > 0 {
		loan = o.Loans[rapid.IntRange(0, n-1).Draw(t, "loan")].ID
	}
	phase := rib.MovePhase(rapid.IntRange(0, 3).Draw(t, "phase"))
	c.Kind = rapid.SampledFrom([]string{kindSplit, kindSplit, kindSplit, kindMerge, kindReassign, kindMoveStart, kindMoveStart, kindMoveAdvance, kindMoveAdvance, kindMoveAdvance,
		kindMoveThaw, kindMoveNote, kindMoveAbort, kindMoveFinish, kindMoveFinish, kindLoanDue, kindLoanKeep, kindLoanEnd, kindLoanUntil, kindLoanCut}).Draw(t, "kind")
	switch c.Kind {
	case kindSplit:
		c.Range = &rangeCommand{Keyspace: keyspace, At: [][]byte{low, high}[:rapid.IntRange(0, 2).Draw(t, "bounds")]}
	case kindMerge, kindReassign:
		c.Range = &rangeCommand{Keyspace: keyspace, Low: low, High: high, To: shard.Draw(t, "to"), Until: until}
	case kindMoveStart:
		c.Move = &moveCommand{Keyspace: keyspace, Low: low, High: high, From: rapid.SampledFrom([]string{"", "", "a"}).Draw(t, "from"), To: shard.Draw(t, "to"), Until: until}
	case kindLoanDue, kindLoanKeep, kindLoanEnd, kindLoanUntil, kindLoanCut:
		c.Loan = &loanCommand{ID: loan, At: low, Until: until, Stamp: time.UnixMilli(int64(rapid.IntRange(0, 100).Draw(t, "stamp"))), Why: rapid.SampledFrom([]string{"", "rows"}).Draw(t, "why")}
	default:
		c.Move = &moveCommand{ID: id, Phase: phase, Next: phase + 1, Note: []byte(rapid.SampledFrom([]string{"", "note"}).Draw(t, "note"))}
	}
	return c
}

// TestRandomHistories: whatever commands come in whatever order, every key has one owner, what changes hands does so at a higher
// epoch and only by a flip or a reassignment, moves do not meet, refused commands change nothing, and a snapshot loses nothing.
func TestRandomHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		whole, part := newState(), newState()
		index := uint64(0)
		var known steps
		tables := []*rib.Ownership{}
		do := func(c *command) result {
			data := encodeFor(t, c)
			back, err := decodeCommand(data)
			if err != nil {
				t.Fatal(err)
			}
			index++
			before, history := whole.now.table(), len(whole.history.list)
			x := step{before: whole.now.Epoch, nextID: whole.nextID, stamp: whole.stamp, data: data}
			r := whole.apply(index, back, data)
			if x.after = whole.now.Epoch; r.changed {
				known.add(x)
				tables = append(tables, whole.now.table())
			}
			if s := part.apply(index, back, data); r.epoch != s.epoch || fmt.Sprint(r.err) != fmt.Sprint(s.err) || r.move.ID != s.move.ID {
				t.Fatalf("two machines differ: %+v and %+v", r, s)
			}
			after := whole.now.table()
			var rejected *RejectedError
			switch {
			case r.err != nil && !errors.As(r.err, &rejected):
				t.Fatalf("an error of another kind: %v", r.err)
			case !r.changed && (after != before || len(whole.history.list) != history):
				t.Fatalf("%s changed something and says it did not (%v)", c.Kind, r.err)
			case r.changed && after.Epoch.Compare(before.Epoch) <= 0:
				t.Fatalf("the epoch went from %v to %v", before.Epoch, after.Epoch)
			}
			checkTable(t, after)
			checkStep(t, c, before, after)
			return r
		}
		must := func(c *command) {
			if r := do(c); r.err != nil {
				t.Fatal(r.err)
			}
		}
		must(&command{Kind: kindInit2, Init: &initCommand{ClusterID: "c", Generation: 1}})
		for i, shard := range []string{"a", "b", "c"} {
			must(&command{Kind: kindShard, Shard: &shardCommand{Name: shard, SystemID: uint64(i + 1)}})
		}
		for _, spec := range []KeyspaceSpec{
			{Name: "k", Database: "app", Method: "range", Types: []string{"bigint"}, Tables: []TableSpec{{"public", "k", []string{"id"}}}, Shards: []string{"a", "b"}, Splits: []string{"10"}},
			{Name: "l", Database: "app", Method: "list", Types: []string{"text"}, Tables: []TableSpec{{"public", "l", []string{"id"}}}, Values: []ValueSpec{{"de", "a"}, {"fr", "b"}}},
		} {
			ks, err := spec.Keyspace()
			if err != nil {
				t.Fatal(err)
			}
			encoded, err := encodeKeyspace(ks)
			if err != nil {
				t.Fatal(err)
			}
			must(&command{Kind: keyspaceKind(ks), Created: encoded})
		}
		n := rapid.IntRange(1, 60).Draw(t, "commands")
		at := rapid.IntRange(0, n-1).Draw(t, "snapshot at")
		for i := range n {
			do(randomCommand(t, i, whole.now.table()))
			if i == at {
				b, err := part.copyForSnapshot().encode()
				if err != nil {
					t.Fatal(err)
				}
				if part, err = decodeState(b); err != nil {
					t.Fatal(err)
				}
				alike(t, whole, part)
			}
		}
		alike(t, whole, part)

		// Whoever has any of the tables comes to any later one by the commands between, as they are sent.
		to := rapid.IntRange(1, len(tables)-1).Draw(t, "follow to")
		have, want := tables[rapid.IntRange(0, to-1).Draw(t, "follow from")], tables[to]
		list, err := decodeSteps(encodeSteps(known.between(have.Epoch, want.Epoch)))
		if err != nil {
			t.Fatal(err)
		}
		got, err := follow(newDraft(have), list)
		if err != nil {
			t.Fatal(err)
		}
		a, err := EncodeOwnership(nil, got.table())
		b, err2 := EncodeOwnership(nil, want)
		if err := errors.Join(err, err2); err != nil || !bytes.Equal(a, b) {
			t.Fatalf("who follows has another table (%v):\n%+v\n%+v", err, got.table(), want)
		}
	})
}

// checkTable holds a table against what must be true of each.
func checkTable(t *rapid.T, o *rib.Ownership) {
	for i := range o.Keyspaces {
		if err := o.Keyspaces[i].Validate(); err != nil {
			t.Fatal(err)
		}
		for _, r := range o.Keyspaces[i].Ranges {
			if r.Epoch.Compare(o.Epoch) > 0 || r.Shard != "" && o.Shard(r.Shard) == nil {
				t.Fatalf("range %+v in a table of epoch %v", r, o.Epoch)
			}
		}
	}
	for i, m := range o.Moves {
		ks := o.Keyspace(m.Keyspace)
		owner, err := soleOwner(ks, newPartition(ks.Ranges), m.Low, m.High)
		want := m.From
		if m.Phase == rib.MoveFlipped {
			want = m.To
		}
		if err != nil || owner != want {
			t.Fatalf("move %+v: the owner is %s (%v)", m, owner, err)
		}
		for _, n := range o.Moves[:i] {
			if n.Keyspace == m.Keyspace && n.Meets(m.Low, m.High) || n.ID >= m.ID {
				t.Fatalf("two moves meet: %+v and %+v", n, m)
			}
		}
	}
	for i, l := range o.Loans {
		for _, k := range o.Loans[:i] {
			if k.Keyspace == l.Keyspace && rib.Meet(k.Low, k.High, l.Low, l.High) || k.ID >= l.ID {
				t.Fatalf("two loans meet: %+v and %+v", k, l)
			}
		}
	}
	if !slices.IsSortedFunc(o.Links, func(a, b rib.Link) int { return a.Epoch.Compare(b.Epoch) }) || len(o.Links) == 0 || o.Links[len(o.Links)-1].Epoch != o.Epoch {
		t.Fatalf("links %+v at epoch %v", o.Links, o.Epoch)
	}
}

// checkStep holds what a command did to owners against what it may do.
func checkStep(t *rapid.T, c *command, before, after *rib.Ownership) {
	for i := range before.Keyspaces {
		old, now := &before.Keyspaces[i], &after.Keyspaces[i]
		for _, r := range slices.Concat(old.Ranges, now.Ranges) {
			was, is := &old.Ranges[old.Owner(r.From)], &now.Ranges[now.Owner(r.From)]
			handed := c.Kind == kindReassign || c.Kind == kindMoveAdvance && c.Move.Next == rib.MoveFlipped
			switch {
			case was.Shard == is.Shard && is.Epoch.Compare(was.Epoch) < 0:
				t.Fatalf("%s: the epoch of %+v went back to %v", c.Kind, was, is.Epoch)
			case was.Shard != is.Shard && (!handed || is.Epoch != after.Epoch):
				t.Fatalf("%s took %+v to %+v", c.Kind, was, is)
			}
		}
	}
}
