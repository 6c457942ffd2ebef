package copysplit_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/scatter/copysplit"
	"rangefinder/wire/sqlkey"
)

const shards = 3

// gathered is a Sink that keeps all rows. Shards own even ranges of positions.
type gathered struct {
	split *copysplit.Splitter
	rows  [shards][]byte
	all   []byte   // all shards' rows as they came
	lines []uint64 // of whole rows
	open  int      // the shard whose row has begun, -1 if none has
	err   error    // for Row to return
}

func (g *gathered) Owner(key rib.Key) (int, error) {
	return int(binary.BigEndian.Uint64(key) / (^uint64(0)/shards + 1)), nil
}

func (g *gathered) Row(shard int, b []byte, line uint64, lines int) error {
	if g.open >= 0 && g.open != shard {
		return errors.New("a row goes on elsewhere than where it began")
	}
	if g.rows[shard] == nil {
		g.rows[shard] = bytes.Clone(g.split.Header())
	}
	if g.all == nil {
		g.all = bytes.Clone(g.split.Header())
	}
	g.rows[shard], g.all = append(g.rows[shard], b...), append(g.all, b...)
	if g.open = shard; lines > 0 {
		g.open = -1
		g.lines = append(g.lines, line)
	}
	return g.err
}

// run splits data that come in pieces whose sizes next gives.
func run(t testing.TB, c copysplit.Config, data []byte, next func() int) (*gathered, error) {
	t.Helper()
	g := &gathered{open: -1}
	var err error
	if g.split, err = copysplit.New(c, g); err != nil {
		return g, err
	}
	for rest := data; len(rest) > 0; {
		n := min(max(next(), 1), len(rest))
		piece := bytes.Clone(rest[:n]) // of its own, so that who keeps it is found out
		if err := g.split.Write(piece); err != nil {
			return g, err
		}
		for i := range piece {
			piece[i] = 0xdb
		}
		rest = rest[n:]
	}
	if err := g.split.Close(); err != nil {
		return g, err
	}
	if g.open >= 0 {
		t.Fatal("the last row has no end")
	}
	for i := range g.rows {
		if g.rows[i] != nil {
			g.rows[i] = append(g.rows[i], g.split.Trailer()...)
		}
	}
	return g, nil
}

func whole(data []byte) func() int { return func() int { return len(data) } }

func hash(t testing.TB) rib.Method {
	t.Helper()
	m, err := rib.MethodByName("hash")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// text is COPY t (id, note) in text format, keyed by id.
func text(t testing.TB, change func(*sqlkey.Copy)) copysplit.Config {
	t.Helper()
	c := &sqlkey.Copy{From: true, Schema: "public", Name: "t", Columns: []string{"id", "note"}, Key: []string{"id"}, Types: []rib.Type{rib.TypeBigint},
		Method: hash(t), Delimiter: '\t', Null: `\N`, Quote: '"', Escape: '"'}
	if change != nil {
		change(c)
	}
	return copysplit.Config{Copy: c, Columns: c.Columns, UTF8: true, MarkerInCSV: true}
}

func csv(t testing.TB, change func(*sqlkey.Copy)) copysplit.Config {
	t.Helper()
	return text(t, func(c *sqlkey.Copy) {
		c.Format, c.Delimiter, c.Null = sqlkey.CopyCSV, ',', ""
		if change != nil {
			change(c)
		}
	})
}

func bin(t testing.TB, change func(*sqlkey.Copy)) copysplit.Config {
	t.Helper()
	return text(t, func(c *sqlkey.Copy) {
		c.Format = sqlkey.CopyBinary
		if change != nil {
			change(c)
		}
	})
}

// binaryHeader is a header with an extension.
func binaryHeader(extension string) []byte {
	b := append([]byte("PGCOPY\n\xff\r\n\x00"), 0, 0, 0, 0)
	return append(binary.BigEndian.AppendUint32(b, uint32(len(extension))), extension...)
}

// tuple appends a tuple of (id bigint, note text); a nil note is NULL.
func tuple(b []byte, id int64, note []byte) []byte {
	b = append(b, 0, 2, 0, 0, 0, 8)
	b = binary.BigEndian.AppendUint64(b, uint64(id))
	if note == nil {
		return append(b, 0xff, 0xff, 0xff, 0xff)
	}
	return append(binary.BigEndian.AppendUint32(b, uint32(len(note))), note...)
}

// Each row goes to the shard that owns its key, whole, however the pieces are cut; and their sum is what came.
func TestRows(t *testing.T) {
	several := func(c *sqlkey.Copy) {
		c.Columns, c.Key, c.Types = []string{"x", "b", "y", "a"}, []string{"a", "b"}, []rib.Type{rib.TypeText, rib.TypeInt}
	}
	long := strings.Repeat("long, \\\\ and 'quoted' ", 10_000)
	header := func(c *sqlkey.Copy) { c.Header = true }
	cases := []struct {
		name   string
		config copysplit.Config
		data   string
		rows   []string // "" in data: the sum of these
		keys   [][]string
	}{
		{"text", text(t, nil), "", []string{"1\tone\n", "2\ttwo\\nlines\\\nin two\n", "-3\t\\N\n"}, [][]string{{"1"}, {"2"}, {"-3"}}},
		{"text, escapes in the key", text(t, nil), "", []string{"\\x31\\062\tone\n", "7\tx\n"}, [][]string{{"12"}, {"7"}}},
		{"text, no newline at the end", text(t, nil), "", []string{"1\tone\n", "2\ttwo"}, [][]string{{"1"}, {"2"}}},
		{"text, CR NL", text(t, nil), "", []string{"1\tone\r\n", "2\t\\\rtwo\r\n"}, [][]string{{"1"}, {"2"}}},
		{"text, CR", text(t, nil), "", []string{"1\tone\r", "2\ttwo\r"}, [][]string{{"1"}, {"2"}}},
		{"text, end marker", text(t, nil), "1\tone\n\\.\nrubbish\tbehind it\n", []string{"1\tone\n"}, [][]string{{"1"}}},
		{"text, end marker behind a row", text(t, nil), "1\tone\n2\ttwo\\.\nrubbish", []string{"1\tone\n", "2\ttwo\\.\n"}, [][]string{{"1"}, {"2"}}},
		{"text, header", text(t, header), "id\tnote\n1\tone\n", []string{"1\tone\n"}, [][]string{{"1"}}},
		{"text, several columns", text(t, several), "", []string{"x\t2\ty\tz\\tz\n", "x\t2\t\\\t\tz\n"}, [][]string{{"z\tz", "2"}, {"z", "2"}}},
		{"text, a delimiter of its own", text(t, func(c *sqlkey.Copy) { c.Delimiter, c.Null = '|', "" }), "", []string{"5|a\\|b\n"}, [][]string{{"5"}}},
		{"csv", csv(t, nil), "", []string{"1,one\n", "\"2\",\"two\nlines, \"\"quoted\"\"\"\n", "3\"3\",\n"}, [][]string{{"1"}, {"2"}, {"33"}}},
		{"csv, header in two lines", csv(t, header), "id,\"no\nte\"\n1,one\n", []string{"1,one\n"}, [][]string{{"1"}}},
		{"csv, escape", csv(t, func(c *sqlkey.Copy) { c.Escape = '\\' }), "", []string{"1,\"a\\\"\n\\\\\"\n", "2,\\\n"}, [][]string{{"1"}, {"2"}}},
		{"csv, CR NL", csv(t, nil), "", []string{"1,\"a\r\nb\n\r\"\r\n", "2,b\r\n"}, [][]string{{"1"}, {"2"}}},
		{"csv, end marker", csv(t, nil), "1,\\.\n\\.\nrubbish", []string{"1,\\.\n"}, [][]string{{"1"}}},
		{"csv, key in quotes only", csv(t, func(c *sqlkey.Copy) { c.Types = []rib.Type{rib.TypeText} }), "", []string{"\"\",x\n", "\"a,b\",\n", "\\.x,\n"},
			[][]string{{""}, {"a,b"}, {`\.x`}}},
		{"csv, no end marker", func() copysplit.Config {
			c := csv(t, func(c *sqlkey.Copy) { c.Types, c.Columns = []rib.Type{rib.TypeText}, []string{"id"} })
			c.MarkerInCSV = false
			return c
		}(), "", []string{"\\.\n", "a\n"}, [][]string{{`\.`}, {"a"}}},
		{"csv, FORCE_NOT_NULL", csv(t, func(c *sqlkey.Copy) {
			c.Types, c.Null, c.ForceNotNull = []rib.Type{rib.TypeText}, "nil", []string{"id"}
		}), "",
			[]string{"nil,x\n"}, [][]string{{"nil"}}},
		{"long rows", text(t, nil), "", []string{"1\tone\n", "2\t" + long + "\n", "3\t\n", "4\t" + long + "\n"}, [][]string{{"1"}, {"2"}, {"3"}, {"4"}}},
		{"long rows, csv", csv(t, nil), "", []string{"1,one\n", "2,\"" + long + "\"\"\n\"\n", "3,\n"}, [][]string{{"1"}, {"2"}, {"3"}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			data := c.data
			if data == "" {
				data = strings.Join(c.rows, "")
			}
			for _, piece := range []int{1 << 30, 1, 2, 3, 7, 4096} {
				if len(data) > 1<<16 && piece < 7 {
					continue
				}
				g, err := run(t, c.config, []byte(data), func() int { return piece })
				if err != nil {
					t.Fatalf("in pieces of %d: %v", piece, err)
				}
				var want [shards][]byte
				for i, row := range c.rows {
					var key rib.Key
					for j, v := range c.keys[i] {
						value, err := rib.ParseText(c.config.Copy.Types[j], []byte(v))
						if err == nil {
							key, err = c.config.Copy.Method.AppendKey(key, value)
						}
						if err != nil {
							t.Fatal(err)
						}
					}
					shard, _ := g.Owner(c.config.Copy.Method.Join(key, 0))
					if want[shard] == nil {
						want[shard] = bytes.Clone(g.split.Header())
					}
					want[shard] = append(want[shard], row...)
				}
				for i := range want {
					if !bytes.Equal(g.rows[i], want[i]) {
						t.Fatalf("in pieces of %d: shard %d has %.200q, want %.200q", piece, i, g.rows[i], want[i])
					}
				}
			}
		})
	}
}

// The same of the binary format, in which header and trailer are every shard's.
func TestBinary(t *testing.T) {
	long := bytes.Repeat([]byte{0, 1, 2, 0xff}, 100_000)
	data := binaryHeader("ext")
	var want [shards][]byte
	c := bin(t, nil)
	for i, note := range [][]byte{[]byte("one"), nil, {}, long, []byte("last")} {
		row := tuple(nil, int64(i), note)
		data = append(data, row...)
		key, err := c.Copy.Method.AppendKey(nil, rib.Value{Type: rib.TypeBigint, Int: int64(i)})
		if err != nil {
			t.Fatal(err)
		}
		shard, _ := (&gathered{}).Owner(key)
		if want[shard] == nil {
			want[shard] = binaryHeader("ext")
		}
		want[shard] = append(want[shard], row...)
	}
	for _, trailer := range []string{"\xff\xff", ""} {
		for _, piece := range []int{1 << 30, 1, 2, 3, 7, 4096} {
			g, err := run(t, c, append(bytes.Clone(data), trailer...), func() int { return piece })
			if err != nil {
				t.Fatalf("in pieces of %d: %v", piece, err)
			}
			for i := range want {
				if want[i] != nil && !bytes.Equal(g.rows[i], append(bytes.Clone(want[i]), trailer...)) {
					t.Fatalf("in pieces of %d: shard %d has %d bytes, want %d", piece, i, len(g.rows[i]), len(want[i])+len(trailer))
				}
			}
			if !slices.Equal(g.lines, []uint64{1, 2, 3, 4, 5}) {
				t.Fatalf("in pieces of %d: lines %v", piece, g.lines)
			}
		}
	}
}

// What is wrong is told with PostgreSQL's SQLSTATE, line and column.
func TestErrors(t *testing.T) {
	typed := func(typ rib.Type) func(*sqlkey.Copy) {
		return func(c *sqlkey.Copy) { c.Types = []rib.Type{typ} }
	}
	latin := csv(t, typed(rib.TypeText))
	latin.UTF8 = false
	short := text(t, func(c *sqlkey.Copy) { c.Columns = []string{"note", "id"} })
	short.MaxPrefix = 1000
	head := string(binaryHeader(""))
	cases := []struct {
		name        string
		config      copysplit.Config
		data        string
		code, where string
		message     string
	}{
		{"no number", text(t, nil), "1\tone\nx\ttwo\n", "22P02", `COPY t, line 2, column id: "x"`, `invalid input syntax for type bigint: "x"`},
		{"NULL", text(t, nil), "\\N\ttwo\n", "23502", `COPY t, line 1, column id: null input`, `null value in column "id"`},
		{"out of range", csv(t, typed(rib.TypeInt)), "0,x\n1,\"a\nb\"\n3000000000,x\n", "22003", `COPY t, line 4, column id: "3000000000"`, "does not fit type int"},
		{"no key", text(t, func(c *sqlkey.Copy) { c.Columns = []string{"note", "id"} }), "one\n", "22P04", `COPY t, line 1: "one"`, `missing data for column "id"`},
		{"too much, and no number", text(t, nil), "x\ty\tz\n", "22P04", "COPY t, line 1: \"x\ty\tz\"", "extra data after last expected column"},
		{"DEFAULT", text(t, func(c *sqlkey.Copy) { c.Default = new(`\D`) }), "\\D\tone\n", "0A000", "COPY t, line 1: \"\\D\tone\"", "default"},
		{"DEFAULT of no letters", text(t, func(c *sqlkey.Copy) { c.Default = new("") }), "\tone\n", "0A000", "COPY t, line 1: \"\tone\"", "default"},
		{"settings", text(t, typed(rib.TypeDate)), "01/02/2003\tone\n", "0A000", `COPY t, line 1, column id: "01/02/2003"`, "unclear"},
		{"no date", text(t, typed(rib.TypeDate)), "2003-02-30\tone\n", "22008", `COPY t, line 1, column id: "2003-02-30"`, "date"},
		{"beyond ASCII", latin, "\xe4,one\n", "0A000", "COPY t, line 1, column id: \"\xe4\"", "UTF-8"},
		{"no end of the key", short, "1\t1\n" + strings.Repeat("x", 2000), "54000", `COPY t, line 2`, "before the end of its sharding key"},
		{"CR in NL", text(t, nil), "1\tone\n2\ttwo\r\n", "22P04", `COPY t, line 2`, "literal carriage return found in data"},
		{"NL in CR NL", csv(t, nil), "1,one\r\n2,two\n", "22P04", `COPY t, line 2`, "unquoted newline found in data"},
		{"CR in CR NL", text(t, nil), "1\tone\r\n2\ttwo\r", "22P04", `COPY t, line 2`, "literal carriage return found in data"},
		{"marker", text(t, nil), "1\tone\n\\.x\n", "22P04", `COPY t, line 2`, "end-of-copy marker corrupt"},
		{"marker of other lines", text(t, nil), "1\tone\r\n\\.\n", "22P04", `COPY t, line 2`, "end-of-copy marker does not match previous newline style"},
		{"quotes", csv(t, nil), "1,one\n2\"2,two\n", "22P04", "COPY t, line 3: \"2\"2,two\n\"", "unterminated CSV quoted field"},
		{"signature", bin(t, nil), "1\tone\n", "22P04", "COPY t, line 1", "COPY file signature not recognized"},
		{"nothing", bin(t, nil), "", "22P04", "COPY t, line 1", "COPY file signature not recognized"},
		{"OIDs", bin(t, nil), head[:12] + "\x01\x00\x00" + head[15:], "22P04", "COPY t, line 1", "invalid COPY file header (WITH OIDS)"},
		{"half a header", bin(t, nil), head[:15], "22P04", "COPY t, line 1", "invalid COPY file header"},
		{"fields", bin(t, nil), head + "\x00\x03", "22P04", "COPY t, line 1", "row field count is 3, expected 2"},
		{"size", bin(t, nil), head + "\x00\x02\xff\xff\xff\xfe", "22P04", "COPY t, line 1", "invalid field size"},
		{"a huge size", bin(t, nil), head + "\x00\x02\x7f\xff\xff\xff", "54000", "COPY t, line 1", "a field of 2147483647 bytes"},
		{"half a tuple", bin(t, nil), head + string(tuple(tuple(nil, 1, nil), 2, []byte("xyz")))[:35], "22P04", "COPY t, line 2", "unexpected EOF in COPY data"},
		{"behind the end", bin(t, nil), head + "\xff\xff\x00", "22P04", "COPY t, line 1", "received copy data after EOF marker"},
		{"NULL, binary", bin(t, nil), head + "\x00\x02\xff\xff\xff\xff\xff\xff\xff\xff", "23502", "COPY t, line 1, column id", "null value"},
		{"three bytes of bigint", bin(t, nil), head + "\x00\x02\x00\x00\x00\x03abc\xff\xff\xff\xff", "08P01", "COPY t, line 1, column id", "3 bytes"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for _, piece := range []int{1 << 30, 1} {
				_, err := run(t, c.config, []byte(c.data), func() int { return piece })
				if c.code == "" {
					if err != nil {
						t.Fatal(err)
					}
					continue
				}
				var e *pg.Error
				if !errors.As(err, &e) || e.Code != c.code || e.Where != c.where || !strings.Contains(e.Message, c.message) {
					t.Fatalf("in pieces of %d: %+v, want %s, %q, %q", piece, err, c.code, c.message, c.where)
				}
			}
		})
	}
}

// A key that is not among the columns is refused before any data.
func TestNoKeyColumn(t *testing.T) {
	c := text(t, nil)
	c.Columns = []string{"note"}
	var e *pg.Error
	if _, err := copysplit.New(c, &gathered{}); !errors.As(err, &e) || e.Code != pg.CodeFeatureNotSupported || e.Hint == "" {
		t.Fatal(err)
	}
}

// An error of the sink is the splitter's, with the line it belongs to.
func TestSinkFails(t *testing.T) {
	stop := errors.New("stop")
	g := &gathered{open: -1, err: stop}
	g.split, _ = copysplit.New(text(t, nil), g)
	if err := g.split.Write([]byte("1\tone\n")); !errors.Is(err, stop) {
		t.Fatal(err)
	}
}

// How the data are cut is no matter, and what is passed on is what came.
func FuzzSplit(f *testing.F) {
	f.Add(uint8(0), "1\tone\n2\t\\\n\\.x\n\\.\n", uint16(3))
	f.Add(uint8(1), "1,\"one\n\"\r\n\"2\",\"\"\"\r\n", uint16(1))
	f.Add(uint8(2), "a,1,\"one\\\"\n", uint16(5))
	f.Add(uint8(3), string(tuple(tuple(binaryHeader(""), 1, nil), 2, []byte("x"))), uint16(7))
	f.Fuzz(func(t *testing.T, kind uint8, data string, piece uint16) {
		configs := []copysplit.Config{
			text(t, func(c *sqlkey.Copy) { c.Types = []rib.Type{rib.TypeText} }),
			csv(t, func(c *sqlkey.Copy) { c.Types, c.Header = []rib.Type{rib.TypeText}, true }),
			csv(t, func(c *sqlkey.Copy) {
				c.Escape, c.Columns, c.Types = '\\', []string{"x", "id", "note"}, []rib.Type{rib.TypeText}
			}),
			bin(t, nil),
		}
		c := configs[int(kind)%len(configs)]
		one, err := run(t, c, []byte(data), whole([]byte(data)))
		cut, cutErr := run(t, c, []byte(data), func() int { return int(piece) })
		if fmt.Sprint(err) != fmt.Sprint(cutErr) {
			t.Fatalf("whole: %v; in pieces of %d: %v", err, piece, cutErr)
		}
		if !bytes.Equal(one.all, cut.all) || !slices.Equal(one.lines, cut.lines) {
			t.Fatalf("whole: %q; in pieces of %d: %q", one.all, piece, cut.all)
		}
		if !strings.HasPrefix(data, string(one.all)) {
			t.Fatalf("%q is not what came: %q", one.all, data)
		}
		if err == nil && c.Copy.Format != sqlkey.CopyBinary && !strings.Contains(data, `\.`) && len(one.split.Header())+len(one.all) > 0 &&
			len(one.all) != len(data) && len(one.lines) > 0 {
			t.Fatalf("of %d bytes %d were passed on", len(data), len(one.all))
		}
	})
}
