package move

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// TestNoFreezeForAReplica: a replica that is far behind, on either side, would keep a freeze from its end. So statements are not held back for it: the range is frozen when
// it has caught up, and until then the status names it.
func TestNoFreezeForAReplica(t *testing.T) {
	for _, name := range []string{"shard_1", "shard_2"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, true)
			r.fill(50)
			r.config.Freeze = time.Second
			low, high := r.quarter()
			replica := r.at(name).replica
			m := r.mover(func(c *Config) {
				c.Freeze = time.Second
				hook("Copy before", func() error { return replica.Exec(t.Context(), "SELECT pg_wal_replay_pause()") })(c)
			})
			id := r.book.start(low, high, "shard_1", "shard_2")
			pgtest.Eventually(t, time.Minute, func() error {
				if s := m.Status(); len(s) != 1 || s[0].Phase != rib.MovePrepare || !strings.Contains(s[0].Problem, "of shard "+name+" is too far behind: it has not replayed in 500ms what its primary had") {
					return fmt.Errorf("%+v, %q", s, r.book.became())
				}
				return nil
			})
			if err := replica.Exec(t.Context(), "SELECT pg_wal_replay_resume()"); err != nil {
				t.Fatal(err)
			}
			r.over(id, m)
			if told := r.book.became(); !slices.Equal(told, []string{"flipped"}) {
				t.Errorf("%q", told)
			}
			r.clean()
		})
	}
}

// TestReplicaThatKeepsRows: a move that waits for a replica to have removed the range's rows says so.
func TestReplicaThatKeepsRows(t *testing.T) {
	r := newRig(t, true)
	r.fill(50)
	low, high := r.quarter()
	replica := r.at("shard_1").replica
	m := r.mover(hook("Delete before", func() error { return replica.Exec(t.Context(), "SELECT pg_wal_replay_pause()") }))
	id := r.book.start(low, high, "shard_1", "shard_2")
	pgtest.Eventually(t, time.Minute, func() error {
		if s := m.Status(); len(s) != 1 || s[0].Step != string(stepDelete) || !strings.Contains(s[0].Problem, "of shard shard_1 is too far behind: it has not replayed the removal of the range's rows") {
			return fmt.Errorf("%+v, %q", s, r.book.became())
		}
		return nil
	})
	if err := replica.Exec(t.Context(), "SELECT pg_wal_replay_resume()"); err != nil {
		t.Fatal(err)
	}
	r.over(id, m)
	r.clean()
}
