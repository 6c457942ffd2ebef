package wire

import (
	"fmt"
	"strings"
	"testing"

	"rangefinder/wire/pg"
)

// What a client can make its session keep is bounded.
func TestCoreBounds(t *testing.T) {
	long := strings.Repeat("n", 900_000)
	for name, c := range map[string]struct {
		begin, again func(i int) []byte
		times        int
	}{
		"texts of statements": {times: 100, again: func(i int) []byte { return pg.AppendSync(pg.AppendParse(nil, fmt.Sprint(i), "SELECT '"+long+"'", nil)) }},
		"statements":          {times: maxStatements + 1, again: func(i int) []byte { return pg.AppendSync(pg.AppendParse(nil, fmt.Sprint(i), "SELECT 1", nil)) }},
		"parameters":          {times: maxSettings + 1, again: func(i int) []byte { return query(fmt.Sprintf("SET a.b%d = 'x'", i)) }},
		"portals": {times: maxPortals + 1,
			begin: func(int) []byte {
				return append(query("BEGIN"), pg.AppendParse(nil, "", "SELECT 1 FROM notes", nil)...)
			},
			again: func(i int) []byte { return pg.AppendFlush(bindFrame(fmt.Sprint(i), "")) }},
	} {
		t.Run(name, func(t *testing.T) {
			var client []byte
			if c.begin != nil {
				client = c.begin(0)
			}
			for i := range c.times {
				client = append(client, c.again(i)...)
			}
			d := newDrive(t, pg.AppendSync(client))
			d.run()
			if got := types(t, d.out); strings.Count(got, "E(54000)") != 1 && name != "texts of statements" || !strings.Contains(got, "E(54000)") {
				t.Errorf("%d errors of a limit; the end is %s", strings.Count(got, "E(54000)"), got[max(0, len(got)-100):])
			}
		})
	}
}

// However many messages come before a Sync, a bounded number of them is kept, and each is answered.
func TestManyMessagesBeforeSync(t *testing.T) {
	client := append(pg.AppendParse(nil, "", "SELECT 1 FROM notes", nil), bindFrame("", "")...)
	const n = 2*maxOps + 10
	for range n {
		client = pg.AppendDescribe(client, 'P', "")
	}
	d := newDrive(t, pg.AppendSync(client))
	d.run()
	got := types(t, d.out)
	if strings.Count(got, "T ") != n || strings.Contains(got, "E(") || !strings.HasSuffix(got, "ZI") || strings.Count(got, "ZI") != 1 {
		t.Errorf("%d messages have %d answers; the end is %s", n, strings.Count(got, "T "), got[max(0, len(got)-100):])
	}
	if cap(d.core.ops) > 2*maxOps {
		t.Errorf("room for %d messages was made", cap(d.core.ops))
	}
}
