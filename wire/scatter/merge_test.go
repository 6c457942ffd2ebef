package scatter

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// row is one of the tests' rows: two columns, of which the second is hidden.
type row struct {
	a, b  *int64
	shard int
}

func (r row) frame() []byte {
	text := func(v *int64) []byte {
		if v == nil {
			return nil
		}
		return strconv.AppendInt(nil, *v, 10)
	}
	return pg.AppendDataRow(nil, [][]byte{text(r.a), text(r.b)})
}

// Merging sorted shards gives what sorting all rows gives, with OFFSET and LIMIT, whatever the batches.
func TestMergeIsASort(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shards := rapid.IntRange(1, 9).Draw(t, "shards")
		order := []sqlkey.FanOrder{
			{Column: 1, Desc: rapid.Bool().Draw(t, "desc"), NullsFirst: rapid.Bool().Draw(t, "nulls first")},
			{Column: 0, Desc: rapid.Bool().Draw(t, "desc2"), NullsFirst: rapid.Bool().Draw(t, "nulls first2")},
		}
		value := rapid.Custom(func(t *rapid.T) *int64 {
			if rapid.IntRange(0, 4).Draw(t, "null") == 0 {
				return nil
			}
			v := rapid.Int64Range(-3, 3).Draw(t, "value")
			return &v
		})
		compare := func(x, y row) int {
			for i, pair := range [][2]*int64{{x.b, y.b}, {x.a, y.a}} {
				v, w := pair[0], pair[1]
				switch {
				case v == nil && w == nil:
					continue
				case v == nil || w == nil:
					if (v == nil) == order[i].NullsFirst {
						return -1
					}
					return 1
				}
				c := cmp.Compare(*v, *w)
				if order[i].Desc {
					c = -c
				}
				if c != 0 {
					return c
				}
			}
			return cmp.Compare(x.shard, y.shard)
		}
		var all []row
		c := &Coordinator{nc: discard{}, cfg: Config{Shared: new(Shared)}, ctx: context.Background()}
		f := &fanout{c: c, x: &execution{stmt: new(stmt), simple: true}, how: merged, fan: &sqlkey.Fan{Hidden: 1, Order: order}, stop: make(chan struct{}), limit: -1}
		f.ctx, f.cut = context.WithCancel(context.Background())
		defer f.cut()
		if rapid.Bool().Draw(t, "limited") {
			f.limit, f.offset = rapid.Int64Range(0, 12).Draw(t, "limit"), rapid.Int64Range(0, 5).Draw(t, "offset")
		}
		desc := pg.AppendRowDescription(nil, []pg.Field{{Name: "a", OID: oidInt8}, {Name: "b", OID: oidInt8}})[pg.HeaderSize:]
		for i := range shards {
			rows := make([]row, rapid.IntRange(0, 8).Draw(t, "rows"))
			for j := range rows {
				rows[j] = row{value.Draw(t, "a"), value.Draw(t, "b"), i}
			}
			slices.SortStableFunc(rows, compare)
			all = append(all, rows...)
			p := &part{f: f, rows: make(chan batch, len(rows)+1), described: make(chan struct{}), desc: desc}
			close(p.described)
			for len(rows) > 0 {
				n := rapid.IntRange(1, len(rows)).Draw(t, "batch")
				var b []byte
				for _, r := range rows[:n] {
					b = append(b, r.frame()...)
				}
				p.rows <- batch{p: p, rows: &b}
				rows = rows[n:]
			}
			p.rows <- batch{p: p, end: true}
			f.parts = append(f.parts, p)
		}
		f.home = f.parts[0]
		slices.SortStableFunc(all, compare)
		all = all[min(int(f.offset), len(all)):]
		if f.limit >= 0 {
			all = all[:min(int(f.limit), len(all))]
		}
		sink := new(capture)
		c.nc = sink
		if e := f.merge(); e != nil {
			t.Fatal(e)
		}
		if c.flush() != nil {
			t.Fatal(c.gone)
		}
		var want []byte
		for _, r := range all {
			want = append(want, visible(r.frame(), 1)...)
		}
		if string(sink.got) != string(want) {
			t.Fatalf("got %q, want %q", sink.got, want)
		}
		if f.sent != int64(len(all)) {
			t.Fatalf("%d rows counted, %d sent", f.sent, len(all))
		}
	})
}

func TestSum(t *testing.T) {
	for _, c := range [][3]string{{"", "UPDATE 2", "UPDATE 2"}, {"UPDATE 2", "UPDATE 3", "UPDATE 5"}, {"INSERT 0 9", "INSERT 0 1", "INSERT 0 10"}, {"DELETE 99", "DELETE 1", "DELETE 100"}, {"CREATE TABLE", "CREATE TABLE", "CREATE TABLE"}} {
		if got := sum(c[0], c[1]); got != c[2] {
			t.Errorf("%q + %q = %q, want %q", c[0], c[1], got, c[2])
		}
	}
}

func TestMentioned(t *testing.T) {
	if got := fmt.Sprint(mentioned("SELECT $1, '$3', $12 $", 4)); got != "[true false true false]" {
		t.Error(got)
	}
}
