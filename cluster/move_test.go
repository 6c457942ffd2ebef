package cluster

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"rangefinder/rib"
)

// story runs commands on a machine with a range keyspace of three shards, split at 1000 and 2000, and a list.
type story struct {
	*machine
	t *testing.T
}

func newStory(t *testing.T) *story {
	s := &story{newMachine(t, "shard_1", "shard_2", "shard_3"), t}
	s.must(s.create(KeyspaceSpec{Name: "app.orders", Database: "app", Method: "range", Types: []string{"bigint"}, Origin: Origin{RequestID: "orders"},
		Tables: []TableSpec{{Schema: "public", Name: "orders", Columns: []string{"id"}}},
		Shards: []string{"shard_1", "shard_2", "shard_3"}, Splits: []string{"1000", "2000"}}))
	s.must(s.create(KeyspaceSpec{Name: "app.lands", Database: "app", Method: "list", Types: []string{"text"}, Origin: Origin{RequestID: "lands"},
		Tables: []TableSpec{{Schema: "public", Name: "lands", Columns: []string{"code"}}},
		Values: []ValueSpec{{"de", "shard_1"}, {"fr", "shard_2"}}, Default: "shard_3"}))
	s.must(s.create(KeyspaceSpec{Name: "app.rates", Database: "app", Method: "reference", Origin: Origin{RequestID: "rates"},
		Tables: []TableSpec{{Schema: "public", Name: "rates"}}, Shards: []string{"shard_1", "shard_2"}}))
	return s
}

// keys reads an interval of a keyspace.
func (s *story) keys(keyspace, text string) (low, high rib.Key) {
	s.t.Helper()
	low, high, err := s.st.now.table().KeyspaceByName(keyspace).ParseInterval(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return low, high
}

func (s *story) rangeCommand(kind, keyspace, interval, from, to string) result {
	s.t.Helper()
	c := &rangeCommand{Keyspace: keyspace, From: from, To: to}
	c.Low, c.High = s.keys(keyspace, interval)
	return s.do(&command{Kind: kind, Range: c, By: &signature{Author: "ann", At: time.UnixMilli(5)}})
}

func (s *story) split(keyspace string, at ...string) result {
	s.t.Helper()
	c := &rangeCommand{Keyspace: keyspace}
	for _, text := range at {
		low, _ := s.keys(keyspace, text+"..")
		c.At = append(c.At, low)
	}
	return s.do(&command{Kind: kindSplit, Range: c})
}

func (s *story) start(keyspace, interval, from, to string) result {
	s.t.Helper()
	c := &moveCommand{Keyspace: keyspace, From: from, To: to}
	c.Low, c.High = s.keys(keyspace, interval)
	return s.do(&command{Kind: kindMoveStart, Move: c, By: &signature{Author: "ann", Reason: "full", At: time.UnixMilli(5)}})
}

func (s *story) advance(id uint64, from, to rib.MovePhase) result {
	return s.do(&command{Kind: kindMoveAdvance, Move: &moveCommand{ID: id, Phase: from, Next: to}})
}

func (s *story) abort(id uint64) result {
	return s.do(&command{Kind: kindMoveAbort, Move: &moveCommand{ID: id}, By: &signature{Reason: "slow"}})
}

func (s *story) finish(id uint64) result {
	return s.do(&command{Kind: kindMoveFinish, Move: &moveCommand{ID: id}})
}

// owners says who owns what, in one line.
func (s *story) owners(keyspace string) string {
	ks := s.st.now.table().KeyspaceByName(keyspace)
	if err := ks.Validate(); err != nil {
		s.t.Fatal(err)
	}
	var parts []string
	for _, r := range ks.Ranges {
		parts = append(parts, fmt.Sprintf("%s=%s@%d", ks.FormatInterval(r.From, r.To), r.Shard, r.Epoch.Index))
	}
	return strings.Join(parts, " ")
}

func (s *story) owned(keyspace, want string) {
	s.t.Helper()
	if got := s.owners(keyspace); got != want {
		s.t.Errorf("owners\n%s\nwant\n%s", got, want)
	}
}

// refused checks that a command was refused for a reason, and changed nothing.
func (s *story) refused(what string, run func() result, reason error, text string) {
	s.t.Helper()
	own, past := s.st.now.table(), len(s.st.history.list)
	r := run()
	var rejected *RejectedError
	if !errors.Is(r.err, reason) || !errors.As(r.err, &rejected) || !strings.Contains(r.err.Error(), text) {
		s.t.Errorf("%s: %v", what, r.err)
	}
	if r.changed || s.st.now.table() != own || len(s.st.history.list) != past {
		s.t.Errorf("%s: it was refused and changed something", what)
	}
}

func TestSplitMergeReassign(t *testing.T) {
	s := newStory(t)
	s.owned("app.orders", "..1000=shard_1@5 1000..2000=shard_2@5 2000..=shard_3@5")
	s.must(s.split("app.orders", "500", "1500", "-7"))
	s.owned("app.orders", "..-7=shard_1@5 -7..500=shard_1@5 500..1000=shard_1@5 1000..1500=shard_2@5 1500..2000=shard_2@5 2000..=shard_3@5")
	s.must(s.rangeCommand(kindReassign, "app.orders", "400..1000", "shard_1", "shard_3"))
	s.owned("app.orders", "..-7=shard_1@5 -7..400=shard_1@5 400..500=shard_3@9 500..1000=shard_3@9 1000..1500=shard_2@5 1500..2000=shard_2@5 2000..=shard_3@5")
	s.must(s.rangeCommand(kindMerge, "app.orders", "..400", "", ""))
	s.must(s.rangeCommand(kindReassign, "app.orders", "1000..2000", "", "shard_3"))
	s.must(s.rangeCommand(kindMerge, "app.orders", "400..", "", ""))
	s.owned("app.orders", "..400=shard_1@5 400..=shard_3@11") // the newest epoch of those merged

	s.must(s.rangeCommand(kindReassign, "app.lands", "fr", "shard_2", "shard_1"))
	s.owned("app.lands", "other values=shard_3@6 de=shard_1@6 other values=shard_3@6 fr=shard_1@13 other values=shard_3@6")

	s.refused("no keyspace", func() result { return s.do(&command{Kind: kindSplit, Range: &rangeCommand{Keyspace: "x"}}) }, ErrNoKeyspace, "named x")
	s.refused("no bound", func() result { return s.split("app.orders") }, ErrInvalid, "1 to 100")
	s.refused("twice", func() result { return s.split("app.orders", "400") }, ErrInvalid, "a bound at 400")
	s.refused("half", func() result { return s.split("app.orders", "100", "400") }, ErrInvalid, "a bound at 400")
	s.refused("named twice", func() result { return s.split("app.orders", "100", "200", "100") }, ErrInvalid, "names the bound 100 twice")
	s.refused("no key", func() result {
		return s.do(&command{Kind: kindSplit, Range: &rangeCommand{Keyspace: "app.orders", At: [][]byte{{1, 2}}}})
	}, ErrInvalid, "at no key")
	s.refused("empty", func() result {
		return s.do(&command{Kind: kindSplit, Range: &rangeCommand{Keyspace: "app.orders", At: [][]byte{nil}}})
	}, ErrInvalid, "at no key")
	s.refused("list", func() result {
		return s.do(&command{Kind: kindSplit, Range: &rangeCommand{Keyspace: "app.lands", At: [][]byte{[]byte("de\x00")}}})
	}, ErrInvalid, "shards by list")
	s.refused("two owners", func() result { return s.rangeCommand(kindMerge, "app.orders", "..", "", "") }, ErrOwner, "..400 is shard_1's and 400.. is shard_3's")
	s.refused("half a range", func() result { return s.rangeCommand(kindMerge, "app.orders", "..300", "", "") }, ErrInvalid, "whole ranges")
	s.refused("one range", func() result { return s.rangeCommand(kindMerge, "app.orders", "..400", "", "") }, ErrInvalid, "one range")
	s.refused("inverted", func() result {
		low, high := s.keys("app.orders", "100..200")
		return s.do(&command{Kind: kindMerge, Range: &rangeCommand{Keyspace: "app.orders", Low: high, High: low}})
	}, ErrInvalid, "holds no key")
	s.refused("other owner", func() result { return s.rangeCommand(kindReassign, "app.orders", "1..2", "shard_2", "shard_3") }, ErrOwner, "belongs to shard shard_1")
	s.refused("own", func() result { return s.rangeCommand(kindReassign, "app.orders", "1..2", "", "shard_1") }, ErrInvalid, "already")
	s.refused("unknown", func() result { return s.rangeCommand(kindReassign, "app.orders", "1..2", "", "shard_9") }, ErrUnknownShard, "shard_1, shard_2, shard_3")
	s.refused("other values", func() result {
		return s.do(&command{Kind: kindReassign, Range: &rangeCommand{Keyspace: "app.lands", High: []byte("de\x00"), To: "shard_1"}})
	}, ErrInvalid, "lists values")
	s.refused("reference", func() result {
		return s.do(&command{Kind: kindReassign, Range: &rangeCommand{Keyspace: "app.rates", To: "shard_3"}})
	}, ErrInvalid, "reference")
}

func TestMoveFromStartToEnd(t *testing.T) {
	s := newStory(t)
	m := s.must(s.start("app.orders", "100..200", "", "shard_2")).move
	if m.ID != 8 || m.From != "shard_1" || m.Phase != rib.MovePrepare || m.Epoch.Index != 8 {
		t.Fatalf("%+v", m)
	}
	before := s.owners("app.orders")

	// Nothing else may happen to that range, and all else may.
	under := fmt.Sprintf("under move %d from shard_1 to shard_2 (prepare)", m.ID)
	for _, interval := range []string{"100..200", "..", "150..160", "0..101", "199..500", "50..300"} {
		s.refused("a second move of "+interval, func() result { return s.start("app.orders", interval, "", "shard_3") }, ErrMoving, under)
	}
	s.refused("split", func() result { return s.split("app.orders", "150") }, ErrMoving, under)
	s.refused("merge", func() result { return s.rangeCommand(kindMerge, "app.orders", "..1000", "", "") }, ErrMoving, under)
	s.refused("reassign", func() result { return s.rangeCommand(kindReassign, "app.orders", "..101", "", "shard_3") }, ErrMoving, under)
	other := s.must(s.start("app.orders", "200..300", "shard_1", "shard_3")).move
	s.must(s.start("app.lands", "de", "", "shard_2"))
	s.must(s.split("app.orders", "100", "200", "2500"))
	s.owned("app.orders", "..100=shard_1@5 100..200=shard_1@5 200..1000=shard_1@5 1000..2000=shard_2@5 2000..2500=shard_3@5 2500..=shard_3@5")

	// Phases in order.
	s.refused("no move", func() result { return s.advance(99, rib.MovePrepare, rib.MoveFrozen) }, ErrNoMove, "99")
	s.refused("a jump", func() result { return s.advance(m.ID, rib.MovePrepare, rib.MoveFlipped) }, ErrInvalid, "from prepare to flipped")
	s.refused("back", func() result { return s.advance(m.ID, rib.MoveFrozen, rib.MovePrepare) }, ErrInvalid, "from frozen to prepare")
	s.refused("too early", func() result { return s.advance(m.ID, rib.MoveFrozen, rib.MoveFlipped) }, ErrPhase, "is prepare and not frozen")
	s.refused("over too early", func() result { return s.finish(m.ID) }, ErrPhase, "is prepare")
	frozen := s.must(s.do(&command{Kind: kindMoveAdvance, Move: &moveCommand{ID: m.ID, Phase: rib.MovePrepare, Next: rib.MoveFrozen, Note: []byte("lsn")}})).move
	if frozen.Phase != rib.MoveFrozen || frozen.Epoch.Compare(m.Epoch) <= 0 || string(frozen.Note) != "lsn" {
		t.Fatalf("%+v", frozen)
	}
	if again := s.must(s.advance(m.ID, rib.MovePrepare, rib.MoveFrozen)); again.changed || again.move.Epoch != frozen.Epoch {
		t.Fatalf("frozen twice: %+v", again)
	}
	s.must(s.do(&command{Kind: kindMoveNote, Move: &moveCommand{ID: m.ID, Note: []byte("lsn 2")}}))
	if now := s.st.now.table().Move(m.ID); string(now.Note) != "lsn 2" || now.Epoch != frozen.Epoch {
		t.Fatalf("noted: %+v", now)
	}
	s.refused("a long note", func() result {
		return s.do(&command{Kind: kindMoveNote, Move: &moveCommand{ID: m.ID, Note: make([]byte, MaxNote+1)}})
	}, ErrInvalid, "16384 bytes")
	cleared := func(id uint64) result {
		return s.do(&command{Kind: kindMoveNote, Move: &moveCommand{ID: id, Note: []byte("lsn 2"), Cleared: true}})
	}
	s.refused("cleared too early", func() result { return cleared(m.ID) }, ErrPhase, "is frozen")

	// Back, and on again.
	thaw := func(id uint64, note string) result {
		return s.do(&command{Kind: kindMoveThaw, Move: &moveCommand{ID: id, Note: []byte(note)}, By: &signature{Author: "mover", Reason: "shard_2 is away"}})
	}
	thawed := s.must(thaw(m.ID, "lsn 3")).move
	if thawed.Phase != rib.MovePrepare || thawed.Epoch.Compare(frozen.Epoch) <= 0 || string(thawed.Note) != "lsn 3" || thawed.Why != "" {
		t.Fatalf("%+v", thawed)
	}
	if e := s.st.history.list[len(s.st.history.list)-1]; e.Kind != "move.thaw" || e.Reason != "shard_2 is away" || e.Author != "mover" || e.Phase != rib.MovePrepare || e.Move != m.ID || e.Keyspace != "app.orders" {
		t.Errorf("the history says %+v", e)
	}
	if again := s.must(thaw(m.ID, "lsn 4")); again.changed || string(again.move.Note) != "lsn 3" {
		t.Fatalf("thawed twice: %+v", again)
	}
	s.refused("flipped while it is not frozen", func() result { return s.advance(m.ID, rib.MoveFrozen, rib.MoveFlipped) }, ErrPhase, "is prepare and not frozen")
	s.refused("a long note", func() result { return thaw(m.ID, strings.Repeat("x", MaxNote+1)) }, ErrInvalid, "16384 bytes")
	s.refused("no move", func() result { return thaw(99, "") }, ErrNoMove, "99")
	if again := s.must(s.advance(m.ID, rib.MovePrepare, rib.MoveFrozen)).move; again.Epoch.Compare(thawed.Epoch) <= 0 || again.Phase != rib.MoveFrozen {
		t.Fatalf("frozen again: %+v", again)
	}
	s.must(s.do(&command{Kind: kindMoveNote, Move: &moveCommand{ID: m.ID, Note: []byte("lsn 2")}}))
	flipped := s.must(s.advance(m.ID, rib.MoveFrozen, rib.MoveFlipped)).move
	if flipped.Phase != rib.MoveFlipped || flipped.Epoch != s.st.now.table().Epoch || string(flipped.Note) != "lsn 2" {
		t.Fatalf("%+v", flipped)
	}
	s.owned("app.orders", fmt.Sprintf("..100=shard_1@5 100..200=shard_2@%d 200..1000=shard_1@5 1000..2000=shard_2@5 2000..2500=shard_3@5 2500..=shard_3@5", flipped.Epoch.Index))
	s.refused("too late", func() result { return s.abort(m.ID) }, ErrPhase, "only goes forward")
	s.refused("back from the other side", func() result { return thaw(m.ID, "") }, ErrPhase, "is flipped and not frozen")
	s.refused("while it is cleaned up", func() result { return s.start("app.orders", "100..200", "", "shard_1") }, ErrMoving, "flipped")
	for what, r := range map[string]result{"split": s.split("app.orders", "150"), "merge": s.rangeCommand(kindMerge, "app.orders", "..1000", "", ""), "move": s.start("app.orders", "..", "", "shard_3")} {
		var rejected *RejectedError
		if !errors.As(r.err, &rejected) || rejected.Move == nil || rejected.Move.ID != m.ID || rejected.Move.Phase != rib.MoveFlipped || strings.Contains(rejected.Text, "abort") {
			t.Errorf("%s of what has flipped: %v", what, r.err) // it cannot be aborted
		}
	}
	if now := s.must(cleared(m.ID)).move; !now.Cleared {
		t.Fatalf("cleared: %+v", now)
	}
	encoded, err := EncodeOwnership(nil, s.st.now.table())
	if err != nil {
		t.Fatal(err)
	}
	if read, err := DecodeOwnership(encoded); err != nil || !read.Move(m.ID).Cleared || read.Move(other.ID).Cleared {
		t.Fatalf("read back: %+v, %v", read, err)
	}
	s.must(s.finish(m.ID))
	s.refused("over twice", func() result { return s.finish(m.ID) }, ErrNoMove, "over")

	// The other one does not take place.
	s.must(s.advance(other.ID, rib.MovePrepare, rib.MoveFrozen))
	was := s.owners("app.orders")
	aborted := s.must(s.abort(other.ID)).move
	if aborted.Phase != rib.MoveAborted || aborted.Why != "slow" || aborted.Epoch != s.st.now.table().Epoch {
		t.Fatalf("%+v", aborted)
	}
	if again := s.must(s.abort(other.ID)); again.changed {
		t.Fatal("aborted twice")
	}
	s.refused("back after all", func() result { return thaw(other.ID, "") }, ErrPhase, "is aborted and not frozen")
	s.refused("on after all", func() result { return s.advance(other.ID, rib.MoveFrozen, rib.MoveFlipped) }, ErrPhase, "is aborted")
	s.must(s.finish(other.ID))
	s.owned("app.orders", was)
	if was == before {
		t.Fatal("the first move moved nothing")
	}
	if len(s.st.now.table().Moves) != 1 {
		t.Fatalf("moves left: %+v", s.st.now.table().Moves)
	}
}
