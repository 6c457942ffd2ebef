package node

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
)

func TestProcessorsFollowTheWork(t *testing.T) {
	p := &processors{max: 8, now: 8}
	look := func(n int, used, late float64) {
		for range n {
			p.next(used, late)
		}
	}
	for _, step := range []struct {
		what       string
		looks      int
		used, late float64
		want       int
	}{
		{"little work: one is not taken away at once", enoughCalm - 1, 0.3, 0, 8},
		{"but after two seconds", 1, 0.3, 0, 7},
		{"and so on, down to one", 6 * enoughCalm, 0.3, 0, 1},
		{"never below", 3 * enoughCalm, 0, 0, 1},
		{"work for one", 100, 0.75, 0.05, 1},
		{"more than that: twice as many at once", 1, 0.85, 0, 2},
		{"enough", 100, 0.6, 0, 2},
		{"goroutines wait although the processors are not busy: others use them", 1, 0.6, 0.2, 4},
		{"a burst", 2, 4, 0, 8},
		{"never above", 10, 8, 0.5, 8},
		{"calm, but not for long enough", enoughCalm - 1, 0.1, 0, 8},
		{"a busy look begins the count anew", 1, 5, 0, 8},
		{"calm again", enoughCalm - 1, 0.1, 0, 8},
	} {
		if look(step.looks, step.used, step.late); p.now != step.want {
			t.Fatalf("%s: %d processors, want %d", step.what, p.now, step.want)
		}
	}
}

// The real thing: goroutines that spin are given more processors, if the machine has any.
func TestProcessorsAreGiven(t *testing.T) {
	t.Setenv("GOMAXPROCS", "")
	most := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(most)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		steerProcessors(ctx, most)
	}()
	defer func() {
		cancel()
		<-done
	}()
	var stop atomic.Bool
	defer stop.Store(true)
	for range 2 * most {
		go func() {
			for spinning := true; spinning; {
				spinning = !stop.Load()
			}
		}()
	}
	pgtest.Eventually(t, 20*time.Second, func() error {
		if n := runtime.GOMAXPROCS(0); n != most {
			return fmt.Errorf("%d processors of %d", n, most)
		}
		return nil
	})
}
