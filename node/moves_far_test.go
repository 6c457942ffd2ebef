package node

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestRangesMoveBetweenFarRegions moves a range where everything that a node sends is two tenths of a second on its way and back: the range changes hands at the first
// try, for all that is asked while it is frozen.
func TestRangesMoveBetweenFarRegions(t *testing.T) {
	c := startMovable(t, func(cfg *Config) {
		cfg.Probe.Interval, cfg.Probe.Timeout = Duration{time.Second}, Duration{10 * time.Second}
		cfg.Lab = append(cfg.Lab, Lab{Net: "127.0.0.0/8", RTT: Duration{200 * time.Millisecond}})
	})
	c.accounts(t)
	n := c.follower(t)
	if _, err := n.connect(t).Exec(t.Context(), "/* rangefinder: shard=shard_2 */ INSERT INTO accounts (id, balance) SELECT g, 1 FROM generate_series(1500, 1549) AS g"); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := n.admin("move", "start", "app.accounts", "1500-1600", "--to", "shard_3", "--watch"); code != 0 || !strings.Contains(out, "over flipped") {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	v, err := n.History(t.Context(), HistoryQuery{Keyspace: "app.accounts", Limit: 20})
	if err != nil {
		t.Fatal(err)
	}
	var frozen, flipped time.Time
	for _, e := range v.Events {
		switch {
		case e.Kind == "move.thaw":
			t.Errorf("the range was frozen in vain: %s", e.Reason)
		case e.Phase == "frozen":
			frozen = *e.At
		case e.Phase == "flipped" && e.Kind == "move.advance":
			flipped = *e.At
		}
	}
	took := flipped.Sub(frozen)
	t.Logf("frozen for %v", took)
	if took <= 0 || took > 4*time.Second {
		t.Errorf("it was frozen for %v: %s", took, fmt.Sprint(v.Events))
	}
	if all, own := c.countOn(t, n.sees(t, "app.accounts"), "accounts", "id", 2); all != 50 || own != 50 {
		t.Errorf("shard_3 has %d rows and owns %d", all, own)
	}
}
