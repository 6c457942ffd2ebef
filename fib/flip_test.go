package fib_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rangefinder/fib"
	"rangefinder/rib"
)

// Whatever has happened, a table that went along flip by flip says what one says that is compiled afresh.
func TestFlipsAddUpToCompile(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 1))
		w := newWorld(3)
		table := compile(t, w)
		backend := func() string {
			return fmt.Sprintf("shard_%d_%s", rnd.IntN(3)+1, []string{"fra_primary", "fra", "iad", "syd", "new"}[rnd.IntN(5)])
		}
		now := time.Unix(1_700_001_000, 0)
		for range 40 {
			for range 1 + rnd.IntN(3) {
				b := backend()
				switch rnd.IntN(11) {
				case 0:
					w.announce(b, fmt.Sprintf("shard_%d", rnd.IntN(3)+1), "iad")
				case 1:
					w.Health().Evidence(b, rnd.IntN(2) == 0, "no route")
				case 2:
					now = now.Add(20 * time.Second)
					w.Health().Distance("syd", time.Duration(rnd.IntN(200))*time.Millisecond, now)
				case 3:
					w.seq++
					w.Health().Announce(rib.Announcement{Observer: "me", Stamp: rib.Stamp{Incarnation: 1, Seq: w.seq}, Backend: rib.Backend{Name: b}, Gone: true})
				case 4:
					w.seq++
					w.Health().Observe(rib.Route{
						Backend: b, Observer: "me", Stamp: rib.Stamp{Incarnation: 1, Seq: w.seq}, State: rib.Up, Role: rib.Replica,
						Timeline: 1 + uint32(rnd.IntN(2)), Lag: time.Duration(rnd.IntN(20)) * time.Second,
					})
				case 5:
					w.Local().Try(map[string]rib.Trial{b: {Ejected: []string{"", "slow"}[rnd.IntN(2)], Held: uint8(rnd.IntN(91))}})
				case 6:
					w.Local().SetPolicy(&rib.Policy{
						MaxLag:    time.Duration(rnd.IntN(20)) * time.Second,
						Databases: map[string]rib.Preference{"app": {Regions: []string{"syd", "iad"}[:rnd.IntN(3)], Pinned: rnd.IntN(2) == 0}},
					})
				default:
					w.observe(b, rib.State(int(rib.Up)+rnd.IntN(2)), rib.Role(1+rnd.IntN(2)))
				}
			}
			s := w.Snapshot()
			table.Flip(s)
			fresh, err := fib.Compile(s)
			if err != nil {
				r.Fatal(err)
			}
			for _, slot := range fresh.Slots() {
				got, want := table.Slot(slot.Shard()).Candidates(), slot.Candidates()
				if !reflect.DeepEqual(got, want) {
					r.Fatalf("%s: flips made %+v, not %+v", slot.Shard(), got, want)
				}
				for i := range 4 {
					database, write := []string{"", "app"}[i%2], i > 1
					if got, want := table.ExplainShard(slot.Shard(), database, write), fresh.ExplainShard(slot.Shard(), database, write); !reflect.DeepEqual(got, want) {
						r.Fatalf("%s is explained as %+v, not %+v", slot.Shard(), got, want)
					}
				}
			}
		}
	})
}

// A backend of a shard that the table has no slot for is nobody's candidate.
func TestFlipWithoutASlot(t *testing.T) {
	w := newWorld(3)
	table := compile(t, w)
	w.announce("stranger", "shard_x", "fra")
	w.observe("stranger", rib.Up, rib.Replica)
	if n := table.Flip(w.Snapshot()); n != 0 {
		t.Errorf("%d lists changed", n)
	}
	w.observe("stranger", rib.Down, rib.Replica)
	w.observe("shard_2_fra", rib.Down, rib.Replica)
	if n := table.Flip(w.Snapshot()); n != 1 {
		t.Errorf("%d lists changed", n)
	}
}
