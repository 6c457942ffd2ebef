package node

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
)

// clockAt is a clock that is set by hand.
type clockAt struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clockAt) get() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clockAt) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = t
}

// Ids rise and never repeat: also if the clock is set back, if more are wanted than a millisecond holds, and after a restart.
func TestUniqueIDs(t *testing.T) {
	start := time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)
	clock := &clockAt{now: start}
	var disk int64
	keep := func(until int64) error { disk = until; return nil }
	u := newUniques(clock.get)
	if _, err := u.next(); err == nil {
		t.Fatal("an id without a number")
	}
	u.number.Store(8)
	if _, err := u.next(); err == nil {
		t.Fatal("an id that was not reserved")
	}
	if err := u.reserve(func(int64) error { return errors.New("no space left") }); err == nil || disk != 0 {
		t.Fatal("reserved without a note on disk")
	}
	if err := u.reserve(keep); err != nil {
		t.Fatal(err)
	}
	last := int64(0)
	next := func(u *uniques) int64 {
		t.Helper()
		id, err := u.next()
		if err != nil {
			t.Fatal(err)
		}
		if id <= last {
			t.Fatalf("%d after %d", id, last)
		}
		if number := id >> uniqueCountBits & (1<<uniqueNodeBits - 1); number != 7 {
			t.Fatalf("the number in %d is %d", id, number)
		}
		last = id
		return id
	}
	first := next(u)
	if at := uniqueEpoch.Add(time.Duration(first>>22) * time.Millisecond); !at.Equal(start) {
		t.Errorf("it says %v", at)
	}
	for range 3000 {
		next(u)
	}
	clock.set(start.Add(-time.Hour))
	for range 3000 {
		next(u)
	}
	clock.set(start.Add(time.Second))
	next(u)
	clock.set(start.Add(uniqueReserve + time.Second))
	if _, err := u.next(); err == nil {
		t.Error("an id of a time that was not reserved")
	}
	if err := u.reserve(keep); err != nil {
		t.Fatal(err)
	}
	next(u)
	// A restart, with the clock set back.
	clock.set(start.Add(-24 * time.Hour))
	again := newUniques(clock.get)
	again.number.Store(8)
	again.resume(disk)
	if err := again.reserve(keep); err != nil {
		t.Fatal(err)
	}
	for range 3000 {
		next(again)
	}
	// Many at once.
	var mu sync.Mutex
	var wg sync.WaitGroup
	seen := make(map[int64]bool)
	for range 8 {
		wg.Go(func() {
			for range 500 {
				id, err := again.next()
				mu.Lock()
				if err != nil || seen[id] {
					t.Errorf("%d twice, or %v", id, err)
				}
				seen[id] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func TestUniqueFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), uniqueFile)
	if until, err := readUnique(path); until != 0 || err != nil {
		t.Errorf("none: %d, %v", until, err)
	}
	for text, want := range map[string]int64{"123456\n": 123456, "": -1, "x": -1, "-1": -1, "99999999999999": -1} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if until, err := readUnique(path); err == nil && until != want || err != nil && want >= 0 {
			t.Errorf("%q: %d, %v", text, until, err)
		}
	}
}

// TestUniqueOnRealPostgreSQL: rangefinder.unique_id() is a key like any other, by every protocol and through every node.
func TestUniqueOnRealPostgreSQL(t *testing.T) {
	c := startCluster(t)
	c.everywhere(t, "CREATE TABLE events (id bigint PRIMARY KEY, what text, made bigint)", "GRANT ALL ON events TO app", "GRANT SELECT ON events TO probe")
	n := c.follower(t)
	n.mustAdmin(t, "keyspace", "create", "app.events", "--key", "id", "--type", "bigint", "--shards", "shard_1,shard_2,shard_3")
	var ids []int64
	for _, n := range c.nodes {
		n.sees(t, "app.events")
		conn := n.connect(t)
		var id int64
		pgtest.Eventually(t, 20*time.Second, func() error { return conn.QueryRow(t.Context(), "SELECT rangefinder.unique_id()").Scan(&id) })
		ids = append(ids, id)
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec} {
			for i := range 5 {
				before := id
				err := conn.QueryRow(t.Context(), "INSERT INTO events (id, what, made) VALUES (rangefinder.unique_id(), $1, RangeFinder.Unique_ID ( ) /* same */) RETURNING id", mode, mode.String()).Scan(&id)
				if code, text := sqlState(err); err != nil {
					t.Fatalf("%v: %s %s", mode, code, text)
				}
				if id <= before {
					t.Errorf("%v, row %d: %d after %d", mode, i, id, before)
				}
				ids = append(ids, id)
				var what string
				var made int64
				if err := conn.QueryRow(t.Context(), "SELECT what, made FROM events WHERE id = $1", mode, id).Scan(&what, &made); err != nil || what != mode.String() || made <= id {
					t.Errorf("%v: %q, %d of %d, %v", mode, what, made, id, err)
				}
			}
		}
		for sql, want := range map[string]string{
			"UPDATE events SET made = rangefinder.unique_id() WHERE id = 1":                     "0A000",
			"SELECT rangefinder.unique_id() FROM events WHERE id = 1":                           "0A000",
			"INSERT INTO events (id) SELECT rangefinder.unique_id() FROM generate_series(1, 2)": "0A000",
			"SELECT rangefinder.unique_id(1)":                                                   "42883",
			"PREPARE p AS SELECT rangefinder.unique_id()":                                       "0A000",
		} {
			_, err := conn.Exec(t.Context(), sql)
			if code, text := sqlState(err); code != want {
				t.Errorf("%s: %s %s", sql, code, text)
			}
		}
	}
	slices.Sort(ids)
	if twice := len(ids) - len(slices.Compact(slices.Clone(ids))); twice > 0 {
		t.Errorf("%d ids twice", twice)
	}
	ks, total := n.sees(t, "app.events"), 0
	for shard := range c.servers {
		all, own := c.countOn(t, ks, "events", "id", shard)
		if all != own || all == 0 {
			t.Errorf("shard_%d has %d rows and owns %d", shard+1, all, own)
		}
		total += all
	}
	if total != 3*25 {
		t.Errorf("%d rows", total)
	}
}
