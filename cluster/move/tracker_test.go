package move

import (
	"slices"
	"testing"
)

// TestSafeGoesOnUnderAHotRow: a row that is never found alike does not hold the source's log back: only what changed since its last change is
// kept. A row that is open from before holds it.
func TestSafeGoesOnUnderAHotRow(t *testing.T) {
	tr := newTracker()
	commit := func(at uint64, keys ...string) {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		for _, key := range keys {
			tr.note("t", key, at)
		}
		tr.at = at + 5
	}
	round := func(open ...string) {
		t.Helper()
		changed, at := tr.take()
		for _, key := range open {
			if !slices.Contains(changed["t"], key) {
				t.Fatalf("%s is not among %v", key, changed["t"])
			}
		}
		if got := tr.give(map[string][]string{"t": open}, at); got != len(open) {
			t.Fatalf("%d are open, want %d", got, len(open))
		}
	}
	safe := func(want uint64) {
		t.Helper()
		if tr.safe != want {
			t.Fatalf("safe is %d, want %d", tr.safe, want)
		}
	}
	commit(100, "hot", "cold")
	round("hot")
	safe(100)
	commit(200, "hot", "cold")
	round("hot")
	safe(200)
	commit(300, "other")
	round("hot", "other")
	safe(200)
	round("other") // what was hot is alike
	safe(300)
	round()
	safe(305)
	// What comes between take and give counts too: it may be the rest of a transaction that began before.
	commit(400, "a")
	_, at := tr.take()
	commit(390, "b")
	if open := tr.give(nil, at); open != 0 {
		t.Fatal(open)
	}
	safe(390)
	if tr.count != 1 {
		t.Fatalf("%d rows are kept in mind", tr.count)
	}
}
