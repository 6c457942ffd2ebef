package pgtest

import (
	"context"
	"fmt"
	"time"
)

// Eventually calls condition at once and then every 10 ms until it returns nil. After timeout it fails the test with
// condition's last error.
func Eventually(t TB, timeout time.Duration, condition func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := Wait(ctx, 10*time.Millisecond, condition); err != nil {
		t.Fatal(err)
	}
}

// Wait calls condition at once and then every interval until it returns nil. When ctx ends first, the error is both ctx's
// and the last one that condition returned before: what it was about when the time was over may have failed for that alone.
func Wait(ctx context.Context, interval time.Duration, condition func() error) error {
	err := condition()
	if err == nil {
		return nil
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			now := condition()
			if now == nil {
				return nil
			}
			if ctx.Err() == nil {
				err = now
			}
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}

// waitFor is Wait for processes, which need no context.
func waitFor(timeout time.Duration, condition func() error) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return Wait(ctx, 2*time.Millisecond, condition)
}
