package cluster

import (
	"bytes"
	"testing"
	"time"

	"rangefinder/rib"
)

// movingOwnership is a table with moves, loans and links.
func movingOwnership() *rib.Ownership {
	o := sampleOwnership(3, 4)
	e := rib.Epoch{Generation: 1, Index: 80}
	o.Nodes = []string{"a"}
	o.Moves = []rib.Move{{ID: 9, Keyspace: 1, High: o.Keyspaces[0].Ranges[1].From, From: "shard_1", To: "shard_2", Phase: rib.MoveAborted, Epoch: e, Why: "slow", Note: []byte{1}}}
	o.Loans = []rib.Loan{{ID: 8, Keyspace: 1, Low: o.Keyspaces[0].Ranges[3].From, From: "shard_2", To: "shard_1", Until: time.UnixMilli(12345).UTC(), Due: true, Why: "rows"}}
	o.Links = chain(nil, e, []byte("one"))
	return o
}

// FuzzDecodeChained: any bytes are a table of the last form or an error; what decodes encodes to the same bytes again.
func FuzzDecodeChained(f *testing.F) {
	b, err := EncodeOwnership(nil, movingOwnership())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[headSize:])
	f.Fuzz(func(t *testing.T, body []byte) {
		b := append([]byte(magicChained+"\x00\x00\x00\x00"), body...)
		seal(b)
		o, err := DecodeOwnership(b)
		if err != nil {
			return
		}
		again, err := EncodeOwnership(nil, o)
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeOwnership(again)
		if err != nil {
			t.Fatalf("it does not come back: %v", err)
		}
		if third, err := EncodeOwnership(nil, back); err != nil || !bytes.Equal(again, third) {
			t.Fatalf("a second encoding differs (%v)", err)
		}
	})
}

// FuzzDecodeState: the same of a snapshot.
func FuzzDecodeState(f *testing.F) {
	s := newState()
	s.generation, s.now = 1, newDraft(movingOwnership())
	s.remember("r", request{epoch: s.now.Epoch, move: 9})
	s.history.add(Event{Epoch: s.now.Epoch, At: time.UnixMilli(5).UTC(), Kind: kindMoveStart, Author: "ann", Move: 9, Phase: rib.MovePrepare})
	b, err := s.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[headSize:])
	f.Fuzz(func(t *testing.T, body []byte) {
		b := append([]byte(magicState2+"\x00\x00\x00\x00"), body...)
		seal(b)
		s, err := decodeState(b)
		if err != nil {
			return
		}
		again, err := s.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeState(again); err != nil {
			t.Fatalf("it does not come back: %v", err)
		}
	})
}

// FuzzDecodeCommand: any log entry is a command or an error; a command can be applied without a panic.
func FuzzDecodeCommand(f *testing.F) {
	for _, c := range []*command{
		{Kind: kindSplit, Range: &rangeCommand{Keyspace: "app.orders", At: [][]byte{{1}}}},
		{Kind: kindMoveStart, Move: &moveCommand{Keyspace: "app.orders", To: "shard_2", Until: time.UnixMilli(7)}, By: &signature{Author: "ann"}},
		{Kind: kindMoveAdvance, Move: &moveCommand{ID: 9, Phase: rib.MovePrepare, Next: rib.MoveFrozen}},
		{Kind: kindLoanDue, Loan: &loanCommand{ID: 8, Stamp: time.UnixMilli(7)}},
	} {
		data, err := c.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := decodeCommand(data)
		if err != nil {
			return
		}
		s := newState()
		s.generation, s.now = 1, newDraft(movingOwnership())
		r := s.apply(100, c, data)
		for i := range s.now.table().Keyspaces {
			if err := s.now.table().Keyspaces[i].Validate(); err != nil {
				t.Fatalf("%v after %s (%v)", err, data, r.err)
			}
		}
	})
}
