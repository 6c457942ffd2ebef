package pgtest_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
)

// A condition that is looked at while the time runs out fails for that alone; why it was waited for all the while is what the error has to tell.
func TestWaitTellsTheReason(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	looks := 0
	err := pgtest.Wait(ctx, time.Millisecond, func() error {
		if looks++; looks < 3 {
			return errors.New("two nodes differ")
		}
		cancel()
		<-ctx.Done()
		return context.Cause(ctx)
	})
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "two nodes differ") {
		t.Errorf("%v", err)
	}
	if err := pgtest.Wait(ctx, time.Millisecond, func() error { return errors.New("at once") }); !strings.Contains(err.Error(), "at once") {
		t.Errorf("%v", err)
	}
}
