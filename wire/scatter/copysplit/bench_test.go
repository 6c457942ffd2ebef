package copysplit_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"rangefinder/rib"
	"rangefinder/wire/scatter/copysplit"
	"rangefinder/wire/sqlkey"
)

// buffers is a Sink that does what one must: it copies rows into a buffer for each shard.
type buffers struct{ of [shards][]byte }

func (s *buffers) Owner(key rib.Key) (int, error) {
	return int(binary.BigEndian.Uint64(key) / (^uint64(0)/shards + 1)), nil
}

func (s *buffers) Row(shard int, b []byte, _ uint64, _ int) error {
	if len(s.of[shard])+len(b) > cap(s.of[shard]) {
		s.of[shard] = s.of[shard][:0]
	}
	s.of[shard] = append(s.of[shard], b...)
	return nil
}

// benchmarkData is some 4 MB of pgbench_accounts' rows, 97 bytes each in text, with the key in the first column.
func benchmarkData(format string) []byte {
	var b bytes.Buffer
	if format == "binary" {
		b.Write(binaryHeader(""))
	}
	filler := bytes.Repeat([]byte{' '}, 84)
	for i := range 40_000 {
		switch format {
		case "text":
			fmt.Fprintf(&b, "%d\t%d\t0\t%s\n", i, i/1000, filler)
		case "escapes":
			fmt.Fprintf(&b, "%d\t\\N\t0\t%s\n", i, filler)
		case "crlf":
			fmt.Fprintf(&b, "%d\t%d\t0\t%s\r\n", i, i/1000, filler)
		case "csv":
			fmt.Fprintf(&b, "%d,%d,0,%s\n", i, i/1000, filler)
		case "quotes":
			fmt.Fprintf(&b, "\"%d\",%d,0,\"%s\"\n", i, i/1000, filler)
		case "uuid":
			fmt.Fprintf(&b, "%08x-0000-4000-8000-000000000000\t%d\t0\t%s\n", i, i/1000, filler)
		case "binary":
			b.Write(tuple(nil, int64(i), filler))
		}
	}
	return b.Bytes()
}

// MB/s of the splitter with one core, in pieces of 64 KiB.
func BenchmarkSplit(b *testing.B) {
	four := func(c *sqlkey.Copy) { c.Columns, c.Key = []string{"aid", "bid", "abalance", "filler"}, []string{"aid"} }
	configs := map[string]copysplit.Config{
		"text": text(b, four), "escapes": text(b, four), "crlf": text(b, four), "csv": csv(b, four), "quotes": csv(b, four), "binary": bin(b, nil),
		"uuid": text(b, func(c *sqlkey.Copy) { four(c); c.Types = []rib.Type{rib.TypeUUID} }),
	}
	for _, format := range []string{"text", "escapes", "crlf", "csv", "quotes", "uuid", "binary"} {
		b.Run(format, func(b *testing.B) {
			data := benchmarkData(format)
			sink := &buffers{}
			for i := range sink.of {
				sink.of[i] = make([]byte, 0, 64<<10)
			}
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				s, err := copysplit.New(configs[format], sink)
				for rest := data; len(rest) > 0 && err == nil; {
					n := min(64<<10, len(rest))
					err = s.Write(rest[:n])
					rest = rest[n:]
				}
				if err == nil {
					err = s.Close()
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// No row costs an allocation: what a COPY needs is for the Splitter itself.
func TestNoAllocationPerRow(t *testing.T) {
	for format, c := range map[string]copysplit.Config{"text": text(t, nil), "csv": csv(t, nil), "binary": bin(t, nil)} {
		data := map[string][]byte{"text": []byte("1\tone\\n\n"), "csv": []byte("\"1\",one\n"), "binary": tuple(nil, 1, []byte("one"))}[format]
		sink := &buffers{}
		for i := range sink.of {
			sink.of[i] = make([]byte, 0, 64<<10)
		}
		s, err := copysplit.New(c, sink)
		if err == nil && format == "binary" {
			err = s.Write(binaryHeader(""))
		}
		if err == nil {
			err = s.Write(bytes.Repeat(data, 3)[:2*len(data)+1])
		}
		if err == nil {
			err = s.Write(data[1:])
		}
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() {
			if err := s.Write(data); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Fatalf("%s: %v allocations for a row", format, n)
		}
	}
}
