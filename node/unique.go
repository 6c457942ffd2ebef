package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"rangefinder/wire/pg"
)

// An id of rangefinder.unique_id() has 64 bits: a zero, 41 for the milliseconds since 2024, 12 for the number of the node that made it, 10 for
// those that it made in that millisecond. Numbers are given by the ledger, once and for ever, so two nodes never make the same id and ask
// nobody for one. A node never makes an id of a time that is behind what it has made: if its clock is set back, or more are wanted than a
// millisecond holds, it counts on from the last one. After a restart it goes on behind the time up to which it had reserved ids on disk.

const (
	uniqueNodeBits, uniqueCountBits = 12, 10

	uniqueReserve = 15 * time.Second // how far ahead ids are reserved on disk
	uniqueRenew   = 5 * time.Second  // how often
	uniqueFile    = "unique"         // in data_dir: the reserved time, in milliseconds since uniqueEpoch
)

// uniqueEpoch is when the time of ids begins.
var uniqueEpoch = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// uniques makes ids. It is safe for concurrent use.
type uniques struct {
	// constant
	clock func() time.Time

	// atomic
	number   atomic.Int64 // of the node, plus one; 0: it has none yet
	last     atomic.Int64 // the last id's milliseconds and count
	reserved atomic.Int64 // in milliseconds: ids are of times before that; 0: nothing was reserved yet
}

func newUniques(clock func() time.Time) *uniques { return &uniques{clock: clock} }

func (u *uniques) millis() int64 { return u.clock().Sub(uniqueEpoch).Milliseconds() }

// next makes an id. It waits for nothing.
func (u *uniques) next() (int64, error) {
	number := u.number.Load()
	if number == 0 || u.reserved.Load() == 0 {
		return 0, pg.NewError(pg.CodeCannotConnectNow, "this node cannot make unique ids yet").
			WithDetail("The ledger has not given it a number, or its ids have not been reserved on disk.").
			WithHint("Try again in a moment; if it stays so, look at the node's log and whether the cluster has a leader (rangefinder status).")
	}
	for {
		last := u.last.Load()
		id := max(u.millis()<<uniqueCountBits, last+1)
		if id>>uniqueCountBits >= u.reserved.Load() {
			return 0, pg.NewError(pg.CodeCannotConnectNow, "this node has no unique ids left for now").
				WithDetail("Its clock has jumped ahead, or data_dir cannot be written: ids are reserved there first.").WithHint("Try again in a moment; if it stays so, look at the node's log.")
		}
		if u.last.CompareAndSwap(last, id) {
			millis, count := id>>uniqueCountBits, id&(1<<uniqueCountBits-1)
			return millis<<(uniqueNodeBits+uniqueCountBits) | (number-1)<<uniqueCountBits | count, nil
		}
	}
}

// reserve reserves ids for some time, of which keep has a note made on disk first.
func (u *uniques) reserve(keep func(until int64) error) error {
	until := max(u.millis(), u.last.Load()>>uniqueCountBits) + uniqueReserve.Milliseconds()
	if until <= u.reserved.Load() {
		return nil
	}
	if err := keep(until); err != nil {
		return err
	}
	u.reserved.Store(until)
	return nil
}

// resume goes on behind what was reserved before.
func (u *uniques) resume(until int64) { u.last.Store(until << uniqueCountBits) }

// uniqueLoop reserves ids, and takes the node's number when the ledger has given it one.
func (n *Node) uniqueLoop(ctx context.Context) {
	path := filepath.Join(n.dir.path, uniqueFile)
	resumed := false
	for failed := ""; ; {
		err := error(nil)
		if !resumed {
			var until int64
			if until, err = readUnique(path); err == nil {
				n.unique.resume(until)
				resumed = true
			}
		}
		if err == nil {
			err = n.unique.reserve(func(until int64) error { return writeFileAtomic(path, []byte(strconv.FormatInt(until, 10)+"\n")) })
		}
		if err != nil && err.Error() != failed {
			failed = err.Error()
			n.log.Error("unique ids cannot be reserved", "error", err)
		}
		wait := uniqueRenew
		if number, ok := n.table.Owners().Get().NodeNumber(n.state.Node); ok {
			n.unique.number.Store(int64(number) + 1)
		} else {
			wait = leaderTick
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

// readUnique reads up to when ids were reserved; 0 if none ever were.
func readUnique(path string) (int64, error) {
	text, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	until, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || until < 0 || until >= 1<<41 {
		return 0, fmt.Errorf("%s is damaged: it holds %.40q; write into it the milliseconds since 2024 of a time after the last id that this node made", path, text)
	}
	return until, nil
}
