package node

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// TestCutsBySize: a range whose load tells nothing is cut where its rows are, of all methods, and by the rows of its own alone.
func TestCutsBySize(t *testing.T) {
	server := pgtest.NewPrimary(t, pgtest.Options{})
	if err := server.Exec(t.Context(), "CREATE TABLE few (k bigint, s text)", "INSERT INTO few SELECT 1, 'x'", "CREATE TABLE t (k bigint, s text, at date) PARTITION BY RANGE (at)",
		"CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')", "CREATE TABLE t_2 PARTITION OF t DEFAULT",
		"INSERT INTO t SELECT g, 'a''' || lpad(g::text, 6, '0'), '2020-01-01'::date + (g % 500) FROM generate_series(1, 4000) AS g",
		"INSERT INTO t SELECT 5000, 'z', '2020-01-01' FROM generate_series(1, 4000) AS g", "ANALYZE t_1", "ANALYZE t_2"); err != nil {
		t.Fatal(err)
	}
	conn, err := server.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	rows, size, err := sizeOf(t.Context(), conn, &rib.KeyedTable{Schema: "public", Name: "t", Columns: []string{"k"}})
	if err != nil || rows != 8000 || size < 8000*20 {
		t.Errorf("%d rows of %d bytes, %v", rows, size, err)
	}
	tables := func(columns ...string) []rib.KeyedTable {
		return []rib.KeyedTable{{Schema: "public", Name: "few", Columns: columns}, {Schema: "public", Name: "t", Columns: columns}}
	}
	// keys are those of an interval.
	keys := func(t *testing.T, ks *rib.Keyspace, interval string) (m rib.Method, from rib.Key, keys []rib.Key) {
		t.Helper()
		m, err := rib.MethodByName(ks.Method)
		if err != nil {
			t.Fatal(err)
		}
		from, to, err := rib.ParseInterval(m, ks.Types, interval)
		if err == nil {
			keys, err = sampleKeys(t.Context(), conn, ks, m, from, to)
		}
		if err != nil {
			t.Fatal(err)
		}
		return m, from, keys
	}
	bigint := []rib.Type{rib.TypeBigint}
	for _, c := range []struct {
		name     string
		ks       rib.Keyspace
		interval string
		parts    int
		want     []string
	}{
		{"numbers", rib.Keyspace{Method: "range", Types: bigint, Tables: tables("k")}, "1001..3001", 4, []string{"1501", "2001", "2501"}},
		{"a key with half of all", rib.Keyspace{Method: "range", Types: bigint, Tables: tables("k")}, "..", 4, []string{"2001", "5000"}},
		{"texts", rib.Keyspace{Method: "range", Types: []rib.Type{rib.TypeText}, Tables: tables("s")}, "..z", 2, []string{"'a''002001'"}},
		{"two columns", rib.Keyspace{Method: "range", Types: []rib.Type{rib.TypeBigint, rib.TypeText}, Tables: tables("k", "s")}, "..5000", 2, []string{"2001,'a''002001'"}},
		{"nothing there", rib.Keyspace{Method: "range", Types: bigint, Tables: tables("k")}, "6000..", 4, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, from, list := keys(t, &c.ks, c.interval)
			if got := quantiles(m, c.ks.Types, from, list, c.parts); !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	t.Run("positions", func(t *testing.T) {
		m, from, list := keys(t, &rib.Keyspace{Method: "hash", Types: bigint, Tables: tables("k")}, "..0x8000000000000000")
		list = slices.CompactFunc(list, func(a, b rib.Key) bool { return a.Compare(b) == 0 }) // whether the key with half of all is among them is chance
		got := quantiles(m, bigint, from, list, 2)
		if len(list) < 1500 || len(got) != 1 {
			t.Fatalf("%d keys, %q", len(list), got)
		}
		var at uint64
		if _, err := fmt.Sscanf(got[0], "0x%x", &at); err != nil || math.Abs(float64(at)/math.MaxUint64-0.25) > 0.03 {
			t.Errorf("%q, %v", got, err)
		}
	})
}
