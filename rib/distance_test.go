package rib_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"rangefinder/rib"
)

// ruler feeds one region's samples, one a second, and counts how often the published distance changes.
type ruler struct {
	*rib.Table
	now     time.Time
	changes int
}

func newRuler() *ruler {
	return &ruler{Table: rib.NewTable(rib.Member{Name: "n1", Region: "fra"}), now: epoch0}
}

func (r *ruler) sample(d time.Duration) time.Duration {
	before := r.published()
	r.now = r.now.Add(time.Second)
	r.Health().Distance("syd", d, r.now)
	if r.published() != before {
		r.changes++
	}
	return r.published()
}

func (r *ruler) published() time.Duration { return r.Snapshot().Distances["syd"] }

const ms = time.Millisecond

func TestDistanceFollowsAShift(t *testing.T) {
	for _, shift := range [][2]time.Duration{{100 * ms, 20 * ms}, {20 * ms, 100 * ms}, {280 * ms, 200 * ms}, {2 * ms, 9 * ms}} {
		r := newRuler()
		for range 60 {
			r.sample(shift[0])
		}
		seconds := 1
		for r.sample(shift[1]) != shift[1] {
			if seconds++; seconds > 10 {
				break
			}
		}
		if seconds < 2 || seconds > 4 {
			t.Errorf("%v to %v took %d s", shift[0], shift[1], seconds)
		}
	}
}

// One or two outliers in a row change nothing, however large.
func TestDistanceIgnoresOutliers(t *testing.T) {
	r := newRuler()
	for range 20 {
		r.sample(50 * ms)
	}
	r.changes = 0
	for range 200 {
		r.sample(5 * time.Second)
		r.sample(ms)
		for range 3 {
			r.sample(50 * ms)
		}
	}
	if r.changes != 0 || r.published() != 50*ms {
		t.Errorf("%d changes, now %v", r.changes, r.published())
	}
}

// A day of a link with a tenth of jitter hardly ever changes what is published.
func TestDistanceIsCalm(t *testing.T) {
	rnd, r := rand.New(rand.NewPCG(7, 8)), newRuler()
	for range 30 {
		r.sample(90 * ms)
	}
	r.changes = 0
	for range 24 * 3600 {
		r.sample(time.Duration((90 + 9*(2*rnd.Float64()-1)) * float64(ms)))
	}
	if r.changes > 1 {
		t.Errorf("%d changes in a day", r.changes)
	}
	if off := (r.published() - 90*ms).Abs(); off > 15*ms {
		t.Errorf("published %v of 90 ms", r.published())
	}
	t.Logf("%d changes in a day, now %v", r.changes, r.published())
}

// Once changed, it holds for ten seconds.
func TestDistanceHolds(t *testing.T) {
	r := newRuler()
	for range 30 {
		r.sample(10 * ms)
	}
	for r.published() == 10*ms {
		r.sample(50 * ms)
	}
	changed := r.now
	for r.published() == 50*ms {
		r.sample(200 * ms)
	}
	if held := r.now.Sub(changed); held != 10*time.Second {
		t.Errorf("it held for %v", held)
	}
	if r.published() != 200*ms {
		t.Errorf("then it was %v", r.published())
	}
}

func TestDistanceMargin(t *testing.T) {
	r := newRuler()
	for range 30 {
		r.sample(10 * ms)
	}
	for range 100 {
		r.sample(11900 * time.Microsecond) // a tenth and a millisecond is 2 ms
	}
	if r.published() != 10*ms {
		t.Errorf("a difference of 1.9 ms was published: %v", r.published())
	}
	for range 100 {
		r.sample(12200 * time.Microsecond)
	}
	before := r.published()
	if before < 12*ms || before > 12200*time.Microsecond {
		t.Errorf("a difference of 2.2 ms was not: %v", before)
	}
	if d := r.Snapshot().Distances; d["fra"] != 0 || len(d) != 2 {
		t.Errorf("distances %v: the own region is at 0", d)
	}
	r.Health().Distance("syd", -time.Second, r.now)
	if r.published() != before {
		t.Error("a negative sample counted")
	}
}
