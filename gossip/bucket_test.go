package gossip

import (
	"testing"
	"time"
)

func TestBucket(t *testing.T) {
	var b bucket
	now := time.Unix(1_700_000_000, 0)
	take := func(after time.Duration, want int) {
		t.Helper()
		now = now.Add(after)
		got := 0
		for b.take(now, 2, 5) {
			got++
		}
		if got != want {
			t.Errorf("%d tokens after %v, not %d", got, after, want)
		}
	}
	take(0, 5)
	take(0, 0)
	take(time.Second, 2)
	take(400*time.Millisecond, 0)
	take(100*time.Millisecond, 1)
	take(time.Hour, 5)
}
