package wire

import (
	"sync/atomic"
	"time"
)

// rationed is when the log was last told of something that may happen more often than anybody reads.
type rationed struct {
	// atomic
	next    atomic.Int64 // nanoseconds since the server was made: not before that
	skipped atomic.Int64 // since it was last told
}

// rationedEvery is how often the log is told.
const rationedEvery = time.Second

// due reports whether it is to be told now, and then of how many others it was not since it last was.
func (r *rationed) due(now time.Duration) (others int64, due bool) {
	next := r.next.Load()
	if int64(now) < next || !r.next.CompareAndSwap(next, int64(now+rationedEvery)) {
		r.skipped.Add(1)
		return 0, false
	}
	return r.skipped.Swap(0), true
}
