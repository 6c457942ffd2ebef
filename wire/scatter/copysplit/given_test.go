package copysplit_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"rangefinder/rib"
	"rangefinder/wire/scatter/copysplit"
	"rangefinder/wire/sqlkey"
)

// given has the rows be given the columns a and b, the key among them if key says so. The numbers are 1, 2, ...
func given(c copysplit.Config, key string) copysplit.Config {
	made := int64(0)
	c.Given, c.Next = []string{"a", "b"}, func() (int64, error) { made++; return made, nil }
	c.Copy.Key = []string{key}
	return c
}

// tuples are data in binary format.
func tuples(rows ...[]string) (b []byte) {
	b = append(b, "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"...)
	for _, row := range rows {
		b = binary.BigEndian.AppendUint16(b, uint16(len(row)))
		for _, v := range row {
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...)
		}
	}
	return append(b, 0xff, 0xff)
}

func eight(n uint64) string { return string(binary.BigEndian.AppendUint64(nil, n)) }

// Each row gets its numbers, once, behind its own values, however it comes; and goes where its key belongs, also if that is one of them.
func TestGiven(t *testing.T) {
	long := strings.Repeat("x", 100<<10)
	for name, x := range map[string]struct {
		config func() copysplit.Config
		data   string
		want   string // of all shards
	}{
		"text": {func() copysplit.Config { return text(t, nil) },
			"7\tx\n8\ty\\\nz\n9\t" + long + "\n10\tend", "7\tx\t1\t2\n8\ty\\\nz\t3\t4\n9\t" + long + "\t5\t6\n10\tend\t7\t8"},
		"text, CRNL and a marker": {func() copysplit.Config { return text(t, nil) }, "7\tx\r\n8\ty\r\n\\.\r\n", "7\tx\t1\t2\r\n8\ty\t3\t4\r\n"},
		"text, where numbers would be NULL or a default": {func() copysplit.Config {
			three := "3"
			return text(t, func(c *sqlkey.Copy) { c.Null, c.Default = "2", &three })
		}, "7\tx\n", "7\tx\t1\t4\n"},
		"text with a header": {func() copysplit.Config { return text(t, func(c *sqlkey.Copy) { c.Header = true }) }, "id\tnote\n7\tx\n", "id\tnote\ta\tb\n7\tx\t1\t2\n"},
		"CSV": {func() copysplit.Config { return csv(t, func(c *sqlkey.Copy) { c.Header = true }) },
			"id,note\n7,\"x\n\"\"y\"\n8," + long + "\n9,", "id,note,a,b\n7,\"x\n\"\"y\",\"1\",\"2\"\n8," + long + ",\"3\",\"4\"\n9,,\"5\",\"6\""},
		"binary": {func() copysplit.Config {
			return text(t, func(c *sqlkey.Copy) { c.Format = sqlkey.CopyBinary })
		}, string(tuples([]string{eight(7), "x"}, []string{eight(8), long})),
			strings.TrimSuffix(string(tuples([]string{eight(7), "x", eight(1), eight(2)}, []string{eight(8), long, eight(3), eight(4)})), "\xff\xff")},
	} {
		for _, key := range []string{"id", "a", "b"} {
			for _, piece := range []int{1, 7, 50_000, len(x.data)} {
				g, err := run(t, given(x.config(), key), []byte(x.data), func() int { return max(piece, len(x.data)/5000) })
				if err != nil || string(g.all) != x.want {
					t.Fatalf("%s by %s: %v\n%.300q\nwant\n%.300q", name, key, err, g.all, x.want)
				}
			}
		}
	}
}

func TestGivenGoesToItsOwner(t *testing.T) {
	var data strings.Builder
	for i := range 300 {
		fmt.Fprintf(&data, "5\tn%d\n", i)
	}
	g, err := run(t, given(text(t, nil), "b"), []byte(data.String()), whole([]byte(data.String())))
	if err != nil {
		t.Fatal(err)
	}
	for shard, rows := range g.rows {
		if len(rows) == 0 {
			t.Errorf("shard %d has none of 300 rows", shard)
		}
		for _, row := range strings.Split(strings.TrimSpace(string(rows)), "\n") {
			var id, a, b int64
			var note string
			if _, err := fmt.Sscanf(row, "%d\t%s\t%d\t%d", &id, &note, &a, &b); err != nil {
				t.Fatal(err)
			}
			key, err := hash(t).AppendKey(nil, rib.Value{Type: rib.TypeBigint, Int: b})
			if owner, _ := g.Owner(key); err != nil || owner != shard {
				t.Errorf("%q is on shard %d, and its key is shard %d's", row, shard, owner)
			}
		}
	}
}

// What could not be written so that a server reads it back is refused.
func TestGivenRefused(t *testing.T) {
	for name, change := range map[string]func(*copysplit.Config){
		"a digit as delimiter":         func(c *copysplit.Config) { c.Copy.Delimiter = '7' },
		"a digit as quote":             func(c *copysplit.Config) { c.Copy.Quote = '7' },
		"a name beyond plain letters":  func(c *copysplit.Config) { c.Copy.Header, c.Given = true, []string{"a", "b,"} },
		"the key is no bigint":         func(c *copysplit.Config) { c.Copy.Types = []rib.Type{rib.TypeText} },
		"the key is none of the given": func(c *copysplit.Config) { c.Copy.Key = []string{"c"} },
	} {
		c := given(csv(t, nil), "a")
		change(&c)
		if _, err := copysplit.New(c, &gathered{}); err == nil || !strings.Contains(err.Error(), "COPY") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
