package pool_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pool"
)

// TestLimitsGrow: whoever waits gets a place that a larger bound makes.
func TestLimitsGrow(t *testing.T) {
	r := newRig(t, newBackend(t), 1, 30*time.Second)
	first := r.get(t, "u")
	got := make(chan *pool.Conn, 1)
	go func() {
		c, err := r.Get(t.Context(), r.b, pool.Identity{User: "u", Database: "d"}, true)
		if err != nil {
			t.Error(err)
		}
		got <- c
	}()
	waiting := func(n int) {
		pgtest.Eventually(t, 30*time.Second, func() error {
			if s := r.Stats(); s[0].Waiting != n {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
	}
	waiting(1)
	r.SetLimits(pool.Limits{Size: 2, Wait: 50 * time.Millisecond})
	second := <-got
	if second == nil || second == first {
		t.Fatal("no connection of its own")
	}
	_, err := r.Get(t.Context(), r.b, pool.Identity{User: "u", Database: "d"}, true)
	var ee *pool.ExhaustedError
	if !errors.As(err, &ee) || ee.Size != 2 || ee.Wait != 50*time.Millisecond {
		t.Errorf("the third: %v", err)
	}
	first.Release()
	second.Release()
}

// TestLimitsShrink: what is beyond a smaller bound is closed, what is lent out once it comes back.
func TestLimitsShrink(t *testing.T) {
	r := newRig(t, newBackend(t), 4, time.Second)
	var lent []*pool.Conn
	for range 4 {
		lent = append(lent, r.get(t, "u"))
	}
	lent[3].Release()
	lent[2].Release()
	r.SetLimits(pool.Limits{Size: 1, Wait: time.Second})
	if s := r.Stats(); s[0].Idle != 0 || s[0].InUse != 2 || s[0].Size != 1 {
		t.Errorf("after shrinking: %+v", s)
	}
	lent[1].Release()
	if s := r.Stats(); s[0].Idle != 0 || s[0].InUse != 1 {
		t.Errorf("one has come back beyond the bound: %+v", s)
	}
	lent[0].Release()
	if s := r.Stats(); s[0].Idle != 1 || s[0].InUse != 0 {
		t.Errorf("the last one fits: %+v", s)
	}
}

// TestForget: a forgotten backend's connections end; whoever waited for one gets a new one.
func TestForget(t *testing.T) {
	r := newRig(t, newBackend(t), 1, 30*time.Second)
	lent := r.get(t, "u")
	got := make(chan *pool.Conn, 1)
	go func() {
		c, err := r.Get(t.Context(), r.b, pool.Identity{User: "u", Database: "d"}, true)
		if err != nil {
			t.Error(err)
		}
		got <- c
	}()
	pgtest.Eventually(t, 30*time.Second, func() error {
		if s := r.Stats(); s[0].Waiting != 1 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	r.Forget("b")
	again := <-got
	if again == nil || again == lent {
		t.Fatal("no new connection")
	}
	lent.Release()
	if list, _ := r.Servers(); len(list) != 1 || list[0].ID != again.ID {
		t.Errorf("servers: %+v", list)
	}
	again.Release()
	r.Renew()
	if s := r.Stats(); len(s) != 1 || s[0].Idle != 0 {
		t.Errorf("after Renew: %+v", s)
	}
}
