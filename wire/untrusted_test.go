package wire

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// The log hears of each address and reason at once, of the same again after a minute with how often it was, of no more than one a second, and what is remembered is bounded.
func TestFailedHandshakesAreRationed(t *testing.T) {
	u := untrusted{known: make(map[failure]*failing)}
	now := time.Hour
	at := func(addr, why string) failure { return failure{netip.MustParseAddr(addr), why} }
	check := func(what string, f failure, n int, wantLines int, wantTimes, wantOthers int64) {
		t.Helper()
		lines := 0
		for range n {
			times, others, due := u.failed(f, now)
			if !due {
				continue
			}
			if lines++; times != wantTimes || others != wantOthers {
				t.Errorf("%s: %d times and %d others, want %d and %d", what, times, others, wantTimes, wantOthers)
			}
		}
		if lines != wantLines {
			t.Errorf("%s: %d lines, want %d", what, lines, wantLines)
		}
	}
	check("the first", at("10.0.0.1", "who are you"), 50, 1, 1, 0)
	check("another one within the same second", at("10.0.0.2", "who are you"), 3, 0, 0, 0)
	now += time.Second
	check("the first, a second later", at("10.0.0.1", "who are you"), 5, 0, 0, 0)
	check("the other one", at("10.0.0.2", "who are you"), 2, 1, 4, 3)
	now += time.Second
	check("another reason", at("10.0.0.1", "too old"), 2, 1, 1, 0)
	now += untrustedEvery
	check("the first, a minute later", at("10.0.0.1", "who are you"), 9, 1, 55, 0)
	for i := range 5 * maxUntrusted {
		u.failed(failure{why: fmt.Sprint(i)}, now)
	}
	if len(u.known) > maxUntrusted {
		t.Errorf("%d are remembered", len(u.known))
	}
}
