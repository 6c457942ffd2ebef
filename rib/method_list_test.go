package rib_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"rangefinder/rib"
)

// listOf makes a keyspace of the list method.
func listOf(t testing.TB, types []rib.Type, values []rib.ListedValue, others string) *rib.Keyspace {
	t.Helper()
	ranges, err := rib.ListRanges(values, others)
	if err != nil {
		t.Fatal(err)
	}
	columns := []string{"a", "b", "c"}[:len(types)]
	k := &rib.Keyspace{ID: 1, Name: "k", Database: "d", Method: "list", Types: types, Tables: []rib.KeyedTable{{Schema: "public", Name: "t", Columns: columns}}, Ranges: ranges}
	if err := k.Validate(); err != nil {
		t.Fatal(err)
	}
	return k
}

// A value belongs to whom the list gives it, and any other to the default, however the list came to be.
func TestListOwners(t *testing.T) {
	m := method(t, "list")
	rapid.Check(t, func(rt *rapid.T) {
		types := []rib.Type{rib.TypeText, rib.TypeInt}[:rapid.IntRange(1, 2).Draw(rt, "columns")]
		key := func(s string, n int) (k rib.Key) {
			for i, v := range []rib.Value{{Type: rib.TypeText, Bytes: []byte(s)}, {Type: rib.TypeInt, Int: int64(n)}}[:len(types)] {
				var err error
				if k, err = m.AppendKey(k, v); err != nil {
					rt.Fatal(i, err)
				}
			}
			return k
		}
		draw := func() rib.Key {
			return key(rapid.StringOfN(rapid.RuneFrom([]rune("ab\x01")), 0, 3, -1).Draw(rt, "s"), rapid.IntRange(-2, 2).Draw(rt, "n"))
		}
		want := map[string]string{}
		var values []rib.ListedValue
		for range rapid.IntRange(0, 8).Draw(rt, "values") {
			v := rib.ListedValue{Key: draw(), Shard: rapid.SampledFrom([]string{"x", "y"}).Draw(rt, "shard")}
			if want[string(v.Key)] == "" {
				want[string(v.Key)] = v.Shard
				values = append(values, v)
			}
		}
		others := rapid.SampledFrom([]string{"", "x", "z"}).Draw(rt, "others")
		k := listOf(t, types, values, others)
		for range 20 {
			v := draw()
			owner := others
			if shard := want[string(v)]; shard != "" {
				owner = shard
			}
			if got := k.Ranges[k.Owner(v)].Shard; got != owner {
				rt.Fatalf("%q belongs to %q, not %q: %+v", v, got, owner, k.Ranges)
			}
		}
		step := listOf(t, types, nil, others)
		for i := range values {
			ranges, err := step.WithValues(values[i:i+1], rib.Epoch{})
			if err != nil {
				rt.Fatal(err)
			}
			step.Ranges = ranges
			if err := step.Validate(); err != nil {
				rt.Fatal(err)
			}
		}
		if !reflect.DeepEqual(step.Ranges, k.Ranges) {
			rt.Fatalf("one by one %+v\nat once %+v", step.Ranges, k.Ranges)
		}
		for i := range values {
			var listed *rib.ListedError
			if _, err := k.WithValues(values[i:i+1], rib.Epoch{}); !errors.As(err, &listed) || listed.Shard != values[i].Shard {
				rt.Fatalf("%q again: %v", values[i].Key, err)
			}
		}
		for i, r := range k.Ranges {
			text := rib.FormatInterval(m, types, r.From, r.To)
			if i%2 == 0 {
				if text != "other values" {
					rt.Fatalf("a gap is %s", text)
				}
				continue
			}
			if back, err := m.ParseBound(types, text); err != nil || back.Compare(r.From) != 0 {
				rt.Fatalf("%s is read as %q, %v", text, back, err)
			}
		}
	})
}

func TestListEpochs(t *testing.T) {
	m := method(t, "list")
	key := func(s string) rib.Key { return keyOf(t, m, []rib.Type{rib.TypeText}, s) }
	k := listOf(t, []rib.Type{rib.TypeText}, []rib.ListedValue{{key("m"), "x"}}, "z")
	for i := range k.Ranges {
		k.Ranges[i].Epoch.Index = 7
	}
	ranges, err := k.WithValues([]rib.ListedValue{{key("z"), "x"}, {key("a"), "y"}}, rib.Epoch{Index: 9})
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, r := range ranges {
		told = append(told, fmt.Sprintf("%s %s %d", rib.FormatInterval(m, k.Types, r.From, r.To), r.Shard, r.Epoch.Index))
	}
	want := "other values z 7; a y 9; other values z 7; m x 7; other values z 7; z x 9; other values z 7"
	if got := strings.Join(told, "; "); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

func TestListsThatAreNone(t *testing.T) {
	m, types := method(t, "list"), []rib.Type{rib.TypeText}
	a, b := keyOf(t, m, types, "a"), keyOf(t, m, types, "b")
	for _, c := range []struct {
		ranges []rib.Range
		want   string
	}{
		{[]rib.Range{{To: a, Shard: "x"}, {From: a, Shard: "y"}}, "odd number of ranges"},
		{[]rib.Range{{To: a, Shard: "x"}, {From: a, To: b, Shard: "y"}, {From: b, Shard: "x"}}, "is not one listed value"},
		{[]rib.Range{{To: a}, {From: a, To: append(slices.Clip(a), 0), Shard: "y"}, {From: append(slices.Clip(a), 0), Shard: "x"}}, "have the shards (none) and x"},
		{[]rib.Range{{To: a}, {From: a, To: append(slices.Clip(a), 0)}, {From: append(slices.Clip(a), 0)}}, "the value a has no shard"},
		{[]rib.Range{{To: rib.Key("a")}, {From: rib.Key("a"), To: rib.Key("a\x00"), Shard: "y"}, {From: rib.Key("a\x00")}}, "text without its end"},
	} {
		k := rib.Keyspace{Name: "k", Method: "list", Types: types, Ranges: c.ranges}
		if err := k.Validate(); !errors.Is(err, rib.ErrKeyspace) && !errors.Is(err, rib.ErrBound) || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%+v: %v, want %s", c.ranges, err, c.want)
		}
	}
	if _, err := m.ParseBound([]rib.Type{rib.TypeText, rib.TypeInt}, "a"); !errors.Is(err, rib.ErrBound) {
		t.Errorf("a value of one column out of two: %v", err)
	}
}

// PostgreSQL finds the rows of each value, and those of all others, by the conditions of their ranges.
func TestPostgresList(t *testing.T) {
	conn := connect(t)
	r, m := rand.New(rand.NewPCG(7, 8)), method(t, "list")
	for n := range keyTypes {
		for _, chosen := range [][]int{{n}, {n, r.IntN(len(keyTypes))}} {
			var types []rib.Type
			var defs, columns []string
			for i, c := range chosen {
				types = append(types, keyTypes[c].key)
				columns = append(columns, fmt.Sprintf("c%d", i))
				defs = append(defs, columns[i]+" "+keyTypes[c].sql)
			}
			t.Run(strings.Join(defs, ","), func(t *testing.T) {
				_, err := conn.Exec(t.Context(), "DROP TABLE IF EXISTS t; DROP PUBLICATION IF EXISTS p; CREATE TABLE t ("+strings.Join(defs, ", ")+"); ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t DEFAULT VALUES")
				check(t, err)
				rows := map[string]int64{}
				var values []rib.ListedValue
				for i := range 60 {
					row, args, marks := make([]string, len(chosen)), make([]any, len(chosen)), make([]string, len(chosen))
					for j, c := range chosen {
						row[j] = keyTypes[c].random(r)
						args[j], marks[j] = row[j], fmt.Sprintf("$%d::text::%s", j+1, keyTypes[c].sql)
					}
					key := keyOf(t, m, types, row...)
					if rows[string(key)] == 0 && i%2 == 0 {
						values = append(values, rib.ListedValue{Key: key, Shard: "s"})
					}
					rows[string(key)]++
					_, err := conn.Exec(t.Context(), "INSERT INTO t VALUES ("+strings.Join(marks, ", ")+")", args...)
					check(t, err)
				}
				k := listOf(t, types, values, "others")
				for _, ranged := range k.Ranges {
					want := int64(0)
					for key, n := range rows {
						if rib.Key(key).Compare(ranged.From) >= 0 && (len(ranged.To) == 0 || rib.Key(key).Compare(ranged.To) < 0) {
							want += n
						}
					}
					condition := m.Predicate(columns, types, ranged.From, ranged.To)
					if got := column[int64](t, conn, "SELECT count(*) FROM t WHERE "+condition)[0]; got != want {
						t.Fatalf("%d rows, not %d, by %s", got, want, condition)
					}
				}
				for _, i := range []int{0, 1} {
					_, err = conn.Exec(t.Context(), "DROP PUBLICATION IF EXISTS p; CREATE PUBLICATION p FOR TABLE t WHERE "+m.Predicate(columns, types, k.Ranges[i].From, k.Ranges[i].To))
					check(t, err)
				}
			})
		}
	}
}
