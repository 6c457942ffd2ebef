package moving

import (
	"slices"

	"rangefinder/rib"
)

// Touched collects which of a table's moves the keys of a statement are on. It is a sqlkey.Shards. It is its owner's scratch, and allocates
// nothing once it has been used.
type Touched struct {
	// owned by one goroutine
	moves    []rib.Move
	keyspace rib.KeyspaceID
	ids      []uint64
}

// Clear empties it.
func (t *Touched) Clear() { t.moves, t.ids = nil, t.ids[:0] }

// On has the next keys be of a keyspace, and looks for them in a table's moves.
func (t *Touched) On(moves []rib.Move, id rib.KeyspaceID) { t.moves, t.keyspace = moves, id }

// At adds all moves from or to a shard.
func (t *Touched) At(moves []rib.Move, shard string) {
	for i := range moves {
		if moves[i].From == shard || moves[i].To == shard {
			t.add(moves[i].ID)
		}
	}
}

// IDs are the moves found, until the next Clear.
func (t *Touched) IDs() []uint64 { return t.ids }

// Begin is sqlkey.Shards's.
func (t *Touched) Begin() {}

// Key is sqlkey.Shards's.
func (t *Touched) Key(k rib.Key) error {
	for i := range t.moves {
		if m := &t.moves[i]; m.Keyspace == t.keyspace && m.Holds(k) {
			t.add(m.ID)
		}
	}
	return nil
}

// Range is sqlkey.Shards's.
func (t *Touched) Range(from, to rib.Key) error {
	for i := range t.moves {
		if m := &t.moves[i]; m.Keyspace == t.keyspace && m.Meets(from, to) {
			t.add(m.ID)
		}
	}
	return nil
}

func (t *Touched) add(id uint64) {
	if !slices.Contains(t.ids, id) {
		t.ids = append(t.ids, id)
	}
}
