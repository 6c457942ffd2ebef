package gossip

import "time"

// bucket bounds how often something is done. The zero bucket is full.
type bucket struct {
	tokens float64
	filled time.Time // when tokens were counted
}

// take spends one token, of which rate come back in a second, up to burst; false if there is none.
func (b *bucket) take(now time.Time, rate, burst float64) bool {
	b.tokens = min(b.tokens+rate*now.Sub(b.filled).Seconds(), burst)
	b.filled = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
