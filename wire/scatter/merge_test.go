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

// What the shards return of an INSERT comes in the order of its rows; and if some are left out, every row that is returned comes once, each shard's in its own order.
func TestRowsComeBackAsTheyWereWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shards := rapid.IntRange(1, 5).Draw(t, "shards")
		numbers := make([][]int, shards) // of the rows that each is given
		for i := range rapid.IntRange(0, 20).Draw(t, "rows") {
			at := rapid.IntRange(0, shards-1).Draw(t, "shard")
			numbers[at] = append(numbers[at], i)
		}
		skips := rapid.Bool().Draw(t, "skips")
		sink := new(capture)
		c := &Coordinator{nc: sink, cfg: Config{Shared: new(Shared)}, ctx: context.Background()}
		f := &fanout{c: c, x: &execution{stmt: new(stmt), simple: true}, how: asWritten, fan: &sqlkey.Fan{Writes: true}, stop: make(chan struct{}), limit: -1}
		desc := pg.AppendRowDescription(nil, []pg.Field{{Name: "a", OID: oidInt8}})[pg.HeaderSize:]
		frame := func(n int) []byte { return pg.AppendDataRow(nil, [][]byte{strconv.AppendInt(nil, int64(n), 10)}) }
		came := make(map[string]int) // by its frame, the shard that returns it
		var all []int
		for i, given := range numbers {
			p := &part{f: f, given: given, rows: make(chan batch, len(given)+1), described: make(chan struct{}), desc: desc}
			close(p.described)
			for _, n := range given {
				if skips && rapid.Bool().Draw(t, "left out") {
					continue
				}
				b := frame(n)
				came[string(b)] = i
				all = append(all, n)
				p.rows <- batch{p: p, rows: &b}
			}
			p.rows <- batch{p: p, end: true}
			f.parts = append(f.parts, p)
		}
		f.home = f.parts[0]
		if e := f.merge(); e != nil {
			t.Fatal(e)
		}
		if c.flush() != nil {
			t.Fatal(c.gone)
		}
		slices.Sort(all)
		var want, got [][]byte
		for _, n := range all {
			want = append(want, frame(n))
		}
		for row := range rowsIn(sink.got) {
			got = append(got, row)
		}
		if skips { // of each shard by itself
			byShard := func(a, b []byte) int { return cmp.Compare(came[string(a)], came[string(b)]) }
			slices.SortStableFunc(want, byShard)
			slices.SortStableFunc(got, byShard)
		}
		if !slices.EqualFunc(got, want, func(a, b []byte) bool { return string(a) == string(b) }) {
			t.Fatalf("got %q, want %q", got, want)
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
