package wire

import (
	"fmt"
	"strings"
	"testing"

	"rangefinder/rib"
)

// A session that cannot leave its connection does not write on a primary after which another one was promoted: that would be acknowledged
// and lost. One that is in no such case goes to the new one.
func TestCoreDeposedPrimary(t *testing.T) {
	e := testEnv(t)
	k := keyOf(t, e, "shard_1")
	write := query(fmt.Sprintf("UPDATE orders SET item = 'x' WHERE customer_id = %d", k))
	lock := query(fmt.Sprintf("SELECT pg_advisory_lock(1) FROM orders WHERE customer_id = %d", k))
	for name, c := range map[string]struct {
		first    []byte
		own      bool   // pool_mode = "session"
		timeline uint32 // of the one that says it is primary as well
		then     []byte
		want     string
		logged   bool // something is sent to a server
	}{
		"free":                              {timeline: 2, then: write, want: "T D C ZI", logged: true},
		"tied":                              {first: lock, timeline: 2, then: write, want: "E(57P01)"},
		"tied, a read":                      {first: lock, timeline: 2, then: query(fmt.Sprintf("SELECT item FROM orders WHERE customer_id = %d", k)), want: "E(57P01)"},
		"tied, extended":                    {first: lock, timeline: 2, then: ext("", fmt.Sprintf("UPDATE orders SET item = 'x' WHERE customer_id = %d", k)), want: "E(57P01)"},
		"a connection of its own":           {own: true, timeline: 2, then: write, want: "E(57P01)"},
		"tied, two primaries of a timeline": {first: lock, timeline: 1, then: write, want: "E(57P03) ZI"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDrive(t, append(append([]byte{}, c.first...), write...))
			d.core.ownConn = c.own
			table := e.fib.Load()
			list := table.Slot("shard_1").Candidates()
			old := list.Writes[0].Backend.Name
			d.then = func() []byte {
				d.log, d.out = nil, nil
				for i := range list.Reads {
					if b := list.Reads[i].Backend; b.Name != old {
						d.table.Health().Observe(rib.Route{Backend: b.Name, Observer: "n1", Stamp: rib.Stamp{Seq: 100}, State: rib.Up, Role: rib.Primary, Timeline: c.timeline})
						break
					}
				}
				if d.core.env.fib.Load().Flip(d.table.Snapshot()) == 0 {
					t.Error("nothing has changed")
				}
				return c.then
			}
			d.run()
			if got := strings.TrimSpace(types(t, d.out)); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if logged := len(d.log) > 0; logged != c.logged {
				t.Errorf("sent: %q", d.log)
			}
		})
	}
}
