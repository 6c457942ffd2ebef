package heat

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"rangefinder/rib"
)

func keyOf(n uint64) rib.Key { return binary.BigEndian.AppendUint64(nil, n) }

// tens puts keys into ranges of ten.
func tens(_ rib.KeyspaceID, key rib.Key) (rib.Key, bool) {
	if len(key) < 8 {
		return nil, false
	}
	return keyOf(binary.BigEndian.Uint64(key) / 10 * 10), true
}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if math.Abs(got-want) > tolerance*want {
		t.Errorf("%s: %.1f, want %.1f", what, got, want)
	}
}

// run has sessions carry out statements for a time, at a rate that most of their keys share; keys are drawn.
func run(m *Meter, at time.Time, span time.Duration, rate int, key func() rib.Key) time.Time {
	draws := make([]Draw, 16)
	for end := at.Add(span); at.Before(end); at = at.Add(Each) {
		for range int(float64(rate) * Each.Seconds()) {
			if d := &draws[rand.IntN(len(draws))]; d.Due() {
				m.Note(d, 1, key(), nil)
			}
		}
		m.Collect(at.Add(Each), tens)
	}
	return at
}

func TestRatesOfRangesAndKeys(t *testing.T) {
	for _, rate := range []int{20, 1000, 50_000} { // noted one by one, the same, and one in fifty
		m := New()
		m.Collect(time.Unix(1000, 0), tens)
		at := run(m, time.Unix(1000, 0), 30*time.Second, rate, func() rib.Key {
			if rand.IntN(10) < 4 {
				return keyOf(7)
			}
			return keyOf(10 + rand.Uint64N(20)) // two more ranges
		})
		ranges, keys := m.Ranges(), m.Keys()
		if len(ranges) != 3 || len(keys) != 21 {
			t.Fatalf("%d a second: %d ranges, %d keys", rate, len(ranges), len(keys))
		}
		tolerance := 0.15
		if rate < 100 {
			tolerance = 0.5
		}
		var sum float64
		for _, r := range ranges {
			sum += r.Rate
		}
		near(t, "all", sum, float64(rate), tolerance)
		if binary.BigEndian.Uint64(keys[0].Key) != 7 || keys[0].Error != 0 || keys[0].Cut {
			t.Errorf("the hottest key: %+v", keys[0])
		}
		near(t, "the hottest key", keys[0].Rate, 0.4*float64(rate), tolerance)
		run(m, at, time.Minute, 0, nil)
		if left := m.Ranges(); len(left) > 0 && left[0].Rate > float64(rate)/100 {
			t.Errorf("a minute later: %+v", left)
		}
	}
}

// TestAPatternIsNotTakenForTheWhole has a session whose every other statement is on the same key.
func TestAPatternIsNotTakenForTheWhole(t *testing.T) {
	m := New()
	at := time.Unix(1000, 0)
	m.Collect(at, tens)
	var d Draw
	for range 100 {
		for i := range 4000 {
			if d.Due() {
				m.Note(&d, 1, keyOf(uint64(i%2*10)), nil)
			}
		}
		at = at.Add(Each)
		m.Collect(at, tens)
	}
	ranges := m.Ranges()
	if len(ranges) != 2 {
		t.Fatalf("%+v", ranges)
	}
	near(t, "one", ranges[0].Rate, 10_000, 0.15)
	near(t, "the other", ranges[1].Rate, 10_000, 0.15)
}

// TestSessionsOfOneStatement counts clients that connect for each statement.
func TestSessionsOfOneStatement(t *testing.T) {
	m := New()
	at := time.Unix(1000, 0)
	m.Collect(at, tens)
	for range 100 {
		for range 4000 {
			var d Draw
			if d.Due() {
				m.Note(&d, 1, keyOf(1), nil)
			}
		}
		at = at.Add(Each)
		m.Collect(at, tens)
	}
	near(t, "the rate", m.Ranges()[0].Rate, 20_000, 0.15)
}

// TestMemoryIsBounded draws more keys and ranges than are kept; the frequent one is found among them.
func TestMemoryIsBounded(t *testing.T) {
	m := New()
	m.Collect(time.Unix(1000, 0), tens)
	run(m, time.Unix(1000, 0), 20*time.Second, 20_000, func() rib.Key {
		if rand.IntN(20) == 0 {
			return keyOf(1)
		}
		return keyOf(rand.Uint64())
	})
	keys, ranges := m.Keys(), m.Ranges()
	if len(keys) != maxKeys || len(m.keys.index) != maxKeys || len(ranges) != maxRanges || len(m.ranges.index) != maxRanges {
		t.Fatalf("%d keys, %d ranges", len(keys), len(ranges))
	}
	if binary.BigEndian.Uint64(keys[0].Key) != 1 {
		t.Fatalf("the hottest key: %+v", keys[0])
	}
	near(t, "the hottest key", keys[0].Rate, 1000, 0.5)
	if keys[1].Rate-keys[1].Error > 100 {
		t.Errorf("a key that came once: %+v", keys[1])
	}
}

func TestLongKeysAndThoseWithoutARange(t *testing.T) {
	m := New()
	m.every.Store(1)
	at := time.Unix(1000, 0)
	m.Collect(at, tens)
	long := rib.Key(strings.Repeat("k", keyBytes) + "x")
	var d Draw
	for _, key := range []rib.Key{long, long[:keyBytes], rib.Key("short")} {
		if !d.Due() {
			t.Fatal("a statement is passed over")
		}
		m.Note(&d, 1, key, nil)
	}
	m.Collect(at.Add(time.Second), tens)
	if keys := m.Keys(); len(keys) != 3 {
		t.Errorf("%+v", keys)
	}
	cut := 0
	for _, k := range m.Keys() {
		if k.Cut {
			cut++
		}
	}
	if ranges := m.Ranges(); cut != 1 || len(ranges) != 1 { // "kkkkkkkk" and no more: both long ones are of one range
		t.Errorf("%d keys are cut, ranges %+v", cut, ranges)
	}
}

// TestWhatAHashIsOf: what a key is a hash of is told with it, if it is not longer than a note has room for, and of no other key.
func TestWhatAHashIsOf(t *testing.T) {
	m := New()
	m.every.Store(1)
	at := time.Unix(1000, 0)
	m.Collect(at, tens)
	room := strings.Repeat("p", keyBytes-8)
	var d Draw
	for _, x := range []struct {
		key   uint64
		plain string
	}{{1, "one"}, {2, ""}, {1, ""}, {3, room}, {4, room + "p"}, {5, "before"}, {5, "after"}} {
		if !d.Due() {
			t.Fatal("a statement is passed over")
		}
		m.Note(&d, 1, keyOf(x.key), rib.Key(x.plain))
	}
	m.Collect(at.Add(time.Second), tens)
	want := map[uint64]string{1: "one", 2: "", 3: room, 4: "", 5: "after"}
	for _, k := range m.Keys() {
		if n := binary.BigEndian.Uint64(k.Key); string(k.Plain) != want[n] || k.Cut {
			t.Errorf("key %d: %q, want %q", n, k.Plain, want[n])
		}
	}
	for i := range maxKeys + 10 { // who takes another's place has not its plain key
		m.keys.add(ident{1, string(keyOf(uint64(100 + i))), false}, 5)
	}
	for _, k := range m.Keys() {
		if n := binary.BigEndian.Uint64(k.Key); n >= 100 && len(k.Plain) > 0 {
			t.Errorf("key %d: %q", n, k.Plain)
		}
	}
}

// TestManySessions notes from many goroutines while another collects; whatever finds no room is reckoned in.
func TestManySessions(t *testing.T) {
	m := New()
	m.every.Store(1)
	at := time.Unix(1000, 0)
	m.Collect(at, tens)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			var d Draw
			for range 10_000 {
				if d.Due() {
					m.Note(&d, 1, keyOf(uint64(i)), nil)
				}
			}
		})
	}
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				m.Collect(at, tens) // no time passes
			}
		}
	}()
	wg.Wait()
	close(stop)
	<-done
	var d Draw
	if d.Due() {
		m.Note(&d, 1, keyOf(1), nil)
	}
	m.Collect(at.Add(time.Millisecond), tens)
	if left := m.missed.Load(); left != 0 {
		t.Errorf("%d statements are not reckoned in", left)
	}
	if ranges := m.Ranges(); len(ranges) != 1 || ranges[0].Rate <= 0 {
		t.Errorf("%+v", ranges)
	}
}

func TestWithoutAMeter(t *testing.T) {
	var d Draw
	var m *Meter
	for range 3 {
		if d.Due() {
			m.Note(&d, 1, nil, nil)
		}
	}
	if d.Due() {
		t.Error("a note is due though nobody collects")
	}
	if m := New(); m.Ranges() != nil || m.Keys() != nil {
		t.Error("something is known before anything was collected")
	}
}

// BenchmarkCount is what counting costs a statement on a busy node. Nothing may be allocated.
func BenchmarkCount(b *testing.B) {
	for _, every := range []uint32{1, 50, maxEvery} { // up to 1,000 statements a second, at 50,000, and none noted
		b.Run(fmt.Sprint("one in ", every), func(b *testing.B) {
			m := New()
			m.every.Store(every)
			key := keyOf(7)
			var d Draw
			b.ReportAllocs()
			for range b.N {
				if d.Due() {
					m.Note(&d, 1, key, nil)
					if m.parts[d.part].n == partNotes {
						m.parts[d.part].n = 0
					}
				}
			}
		})
	}
}

func TestNothingIsAllocated(t *testing.T) {
	m := New()
	m.every.Store(2)
	key := keyOf(7)
	var d Draw
	if n := testing.AllocsPerRun(1000, func() {
		if d.Due() {
			m.Note(&d, 1, key, nil)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
