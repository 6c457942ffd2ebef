package rib_test

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// samples is how many random values of each type are compared with the server's.
const samples = 12_000

// The types under test, each with random values in PostgreSQL's text format.
var keyTypes = []struct {
	key    rib.Type
	sql    string
	hash   string
	random func(*rand.Rand) string
}{
	{rib.TypeBigint, "bigint", "hashint8extended(%s, 0)", func(r *rand.Rand) string { return fmt.Sprint(randomInt(r, 64)) }},
	{rib.TypeInt, "int", "hashint4extended(%s, 0)", func(r *rand.Rand) string { return fmt.Sprint(randomInt(r, 32)) }},
	{rib.TypeText, "text", "hashtextextended(%s, 0)", randomText},
	{rib.TypeUUID, "uuid", "uuid_hash_extended(%s, 0)", randomUUID},
	{rib.TypeSmallint, "smallint", "hashint2extended(%s, 0)", func(r *rand.Rand) string { return fmt.Sprint(randomInt(r, 16)) }},
	{rib.TypeBytea, "bytea", "hash_record_extended(ROW(%s), 0)", randomBytea},
	{rib.TypeDate, "date", "hash_record_extended(ROW(%s), 0)", randomDate},
	{rib.TypeTimestamptz, "timestamptz", "timestamp_hash_extended(%s AT TIME ZONE 'UTC', 0)", randomInstant},
}

// randomInt has all magnitudes and both signs, and now and then an extreme.
func randomInt(r *rand.Rand, size uint) int64 {
	switch r.IntN(100) {
	case 0:
		return math.MinInt64 >> (64 - size)
	case 1:
		return math.MaxInt64 >> (64 - size)
	}
	return int64(r.Uint64()) >> (64 - size) >> r.UintN(size)
}

// randomText has 0 to 300 characters: mostly of one script, so that common prefixes and every length of UTF-8 occur.
func randomText(r *rand.Rand) string {
	var b strings.Builder
	script := [][2]rune{{'a', 3}, {' ', 95}, {0xa0, 0x700}, {0x4e00, 0x5000}, {0x1f300, 0x300}, {1, 31}}[r.IntN(6)] // from, how many
	for range r.IntN(301) >> r.UintN(6) {
		b.WriteRune(script[0] + r.Int32N(script[1]))
	}
	return b.String()
}

func randomUUID(r *rand.Rand) string {
	s := fmt.Sprintf("%016x%016x", r.Uint64()>>(r.UintN(2)*48), r.Uint64())
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// randomBytea has NULs, and common prefixes that end in some.
func randomBytea(r *rand.Rand) string {
	b := make([]byte, r.IntN(40)>>r.UintN(4))
	for i := range b {
		b[i] = byte(r.UintN(256)) & (0xff >> r.UintN(9))
	}
	return `\x` + hex.EncodeToString(b)
}

// asText is a value in the text format that PostgreSQL itself would give with DateStyle ISO and TimeZone UTC.
func asText(typ rib.Type, sent []byte) string {
	v, err := rib.ParseBinary(typ, sent)
	if err != nil {
		panic(err)
	}
	m, _ := rib.MethodByName("range")
	k, err := m.AppendKey(nil, v)
	if err != nil {
		panic(err)
	}
	return m.FormatKey([]rib.Type{typ}, k)
}

func randomDate(r *rand.Rand) string {
	const low, high = -2451545, 2145031949 // PostgreSQL's first date, and the one after its last
	n := low + r.Int64N(high-low)
	switch r.IntN(10) {
	case 0:
		n = []int64{math.MinInt32, math.MaxInt32, low, high - 1}[r.IntN(4)]
	case 1, 2, 3, 4, 5:
		n = r.Int64N(40_000) - 20_000
	case 6, 7:
		n = low + r.Int64N(-low)
	}
	return asText(rib.TypeDate, binary.BigEndian.AppendUint32(nil, uint32(n)))
}

func randomInstant(r *rand.Rand) string {
	const low, high = -211813488000000000, 9223371331200000000
	n := r.Int64N(high)
	switch r.IntN(10) {
	case 0:
		n = []int64{math.MinInt64, math.MaxInt64, low, high - 1}[r.IntN(4)]
	case 1, 2, 3, 4, 5:
		n = r.Int64N(2e15) - 1e15
	case 6, 7:
		n = low + r.Int64N(-low)
	}
	if r.IntN(2) == 0 && n > low && n < high {
		n -= n % 1_000_000
	}
	return asText(rib.TypeTimestamptz, binary.BigEndian.AppendUint64(nil, uint64(n)))
}

// connect starts a server for the test and logs in to it.
func connect(t *testing.T) *pgx.Conn {
	t.Helper()
	conn, err := pgtest.NewPrimary(t, pgtest.Options{}).Conn(t.Context())
	check(t, err)
	_, err = conn.Exec(t.Context(), "SET TimeZone = 'UTC'")
	check(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// column returns the one column that a query gives.
func column[T any](t *testing.T, conn *pgx.Conn, sql string, args ...any) []T {
	t.Helper()
	rows, err := conn.Query(t.Context(), sql, args...)
	check(t, err)
	values, err := pgx.CollectRows(rows, pgx.RowTo[T])
	check(t, err)
	return values
}

// keyOf is the key of one row, given in text format.
func keyOf(t *testing.T, m rib.Method, types []rib.Type, values ...string) (k rib.Key) {
	t.Helper()
	for i, s := range values {
		v, err := rib.ParseText(types[i], []byte(s))
		check(t, err)
		k, err = m.AppendKey(k, v)
		check(t, err)
	}
	return m.Join(k, 0)
}

func method(t *testing.T, name string) rib.Method {
	t.Helper()
	m, err := rib.MethodByName(name)
	check(t, err)
	return m
}

// The server computes every position as we do, and sorts every type as the range method does.
func TestPostgresAgrees(t *testing.T) {
	conn := connect(t)
	r := rand.New(rand.NewPCG(1, 2))
	for _, typ := range keyTypes {
		t.Run(typ.sql, func(t *testing.T) {
			values := make([]string, samples)
			for i := range values {
				values[i] = typ.random(r)
			}
			types := []rib.Type{typ.key}

			positions := column[int64](t, conn, "SELECT "+fmt.Sprintf(typ.hash, "v::"+typ.sql)+" FROM unnest($1::text[]) WITH ORDINALITY AS u (v, i) ORDER BY i", values)
			hash := method(t, "hash")
			for i, v := range values {
				if k := keyOf(t, hash, types, v); binary.BigEndian.Uint64(k) != uint64(positions[i]) {
					t.Fatalf("%s(%q) is %#x, the server's is %#x", typ.hash, v, []byte(k), uint64(positions[i]))
				}
			}

			collate := ""
			if typ.key == rib.TypeText {
				collate = ` COLLATE "C"`
			}
			sorted := column[string](t, conn, "SELECT (v::"+typ.sql+")::text FROM unnest($1::text[]) AS u (v) ORDER BY v::"+typ.sql+collate, values)
			ordered := method(t, "range")
			slices.SortFunc(values, func(a, b string) int {
				return keyOf(t, ordered, types, a).Compare(keyOf(t, ordered, types, b))
			})
			for i := range values {
				if values[i] != sorted[i] {
					t.Fatalf("value %d in order is %q, the server's is %q", i, values[i], sorted[i])
				}
			}
		})
	}
}

// A key of several columns has the position that PostgreSQL's hash of the row is.
func TestPostgresAgreesOnRows(t *testing.T) {
	conn := connect(t)
	r, hash := rand.New(rand.NewPCG(9, 10)), method(t, "hash")
	for range 8 {
		var types []rib.Type
		var casts []string
		var args []any
		for i := range 2 + r.IntN(3) {
			typ := keyTypes[r.IntN(len(keyTypes))]
			types = append(types, typ.key)
			name := typ.sql
			if typ.key == rib.TypeText && r.IntN(2) == 0 {
				name = "varchar"
			}
			casts = append(casts, fmt.Sprintf("c%d::%s", i, name))
			values := make([]string, samples/8)
			for j := range values {
				values[j] = typ.random(r)
			}
			args = append(args, values)
		}
		var from, names []string
		for i := range types {
			from, names = append(from, fmt.Sprintf("$%d::text[]", i+1)), append(names, fmt.Sprintf("c%d", i))
		}
		got := column[int64](t, conn, "SELECT hash_record_extended(ROW("+strings.Join(casts, ", ")+"), 0) FROM unnest("+strings.Join(from, ", ")+") WITH ORDINALITY AS u ("+strings.Join(names, ", ")+", i) ORDER BY i", args...)
		for j := range got {
			var row []string
			for i := range types {
				row = append(row, args[i].([]string)[j])
			}
			if k := keyOf(t, hash, types, row...); len(k) != 8 || binary.BigEndian.Uint64(k) != uint64(got[j]) {
				t.Fatalf("%v of %v is %#x, the server's is %#x", row, types, []byte(k), uint64(got[j]))
			}
		}
	}
}

// A range's SQL condition selects the rows that its bounds hold, no matter where they lie; and PostgreSQL takes it as a
// publication's row filter and as a trigger's condition, which a move needs.
func TestPostgresPredicate(t *testing.T) {
	conn := connect(t)
	r := rand.New(rand.NewPCG(3, 4))
	for _, name := range []string{"hash", "range"} {
		for n, typ := range keyTypes {
			t.Run(name+"/"+typ.sql, func(t *testing.T) { testPredicate(t, conn, r, name, n) })
			t.Run(name+"/"+typ.sql+" and another", func(t *testing.T) { testPredicate(t, conn, r, name, n, r.IntN(len(keyTypes))) })
		}
	}
}

func testPredicate(t *testing.T, conn *pgx.Conn, r *rand.Rand, methodName string, chosen ...int) {
	const rows, ranges = 500, 150
	m := method(t, methodName)
	var types []rib.Type
	var defs, columns, casts []string
	args := make([]any, len(chosen))
	for i, n := range chosen {
		types = append(types, keyTypes[n].key)
		name := fmt.Sprintf(`Key "%d"`, i)
		columns = append(columns, rib.QuoteIdent(name))
		defs = append(defs, rib.QuoteIdent(name)+" "+keyTypes[n].sql)
		casts = append(casts, fmt.Sprintf("$%d::text[]::%s[]", i+1, keyTypes[n].sql))
		values := make([]string, rows)
		for j := range values {
			values[j] = keyTypes[n].random(r)
			if i == 0 && j > 0 && r.IntN(2) == 0 {
				values[j] = values[j-1] // so that the second column decides
			}
		}
		args[i] = values
	}
	keys := make([]rib.Key, rows)
	for j := range keys {
		for i := range chosen {
			keys[j] = append(keys[j], keyOf(t, m, types[i:], args[i].([]string)[j])...)
		}
		keys[j] = m.Join(keys[j], 0)
	}

	exec := func(sql string, args ...any) {
		t.Helper()
		_, err := conn.Exec(t.Context(), sql, args...)
		check(t, err)
	}
	exec("DROP TABLE IF EXISTS t; DROP PUBLICATION IF EXISTS p")
	exec("CREATE TABLE t (" + strings.Join(defs, ", ") + ")")
	exec("ALTER TABLE t REPLICA IDENTITY FULL")
	exec("INSERT INTO t SELECT * FROM unnest("+strings.Join(casts, ", ")+")", args...)
	// Rows without a key are in no range.
	exec("INSERT INTO t DEFAULT VALUES")
	if len(chosen) > 1 {
		exec("INSERT INTO t SELECT (" + "t)." + columns[0] + " FROM t LIMIT 3")
	}

	// Bounds are keys of rows (so that they are met exactly), keys of no row, one column's, or open.
	bound := func() rib.Key {
		k := keys[r.IntN(rows)]
		switch r.IntN(4) {
		case 0:
			return nil
		case 1:
			var b rib.Key
			for i, n := range chosen {
				b = append(b, keyOf(t, m, types[i:], keyTypes[n].random(r))...)
			}
			return m.Join(b, 0)
		case 2:
			first := keyOf(t, m, types, args[0].([]string)[r.IntN(rows)])
			return first
		}
		return k
	}
	var counts []string
	var want []int64
	for range ranges {
		from, to := bound(), bound()
		if len(to) > 0 && from.Compare(to) > 0 {
			from, to = to, from
		}
		n := int64(0)
		for _, k := range keys {
			if k.Compare(from) >= 0 && (len(to) == 0 || k.Compare(to) < 0) {
				n++
			}
		}
		counts = append(counts, "count(*) FILTER (WHERE "+m.Predicate(columns, types, from, to)+")")
		want = append(want, n)
		// What FormatInterval writes, ParseInterval reads, but for a bound that no key comes before.
		if from.Compare(to) < 0 {
			text := rib.FormatInterval(m, types, from, to)
			from2, to2, err := rib.ParseInterval(m, types, text)
			if rib.Lowest(m, types, to) {
				if err == nil || n > 0 {
					t.Fatalf("%s is read, and has %d rows", text, n)
				}
				continue
			}
			if rib.Lowest(m, types, from) {
				from = nil
			}
			if err != nil || from2.Compare(from) != 0 || to2.Compare(to) != 0 {
				t.Fatalf("%s is read as %x..%x (%v), not %x..%x", text, []byte(from2), []byte(to2), err, []byte(from), []byte(to))
			}
		}
	}
	got := column[[]int64](t, conn, "SELECT ARRAY["+strings.Join(counts, ", ")+"] FROM t")[0]
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("the server counts %d rows, not %d, by %s", got[i], want[i], counts[i])
		}
	}

	from, to := keys[0], keys[1]
	exec("CREATE PUBLICATION p FOR TABLE t WHERE " + m.Predicate(columns, types, from, to))
	news := make([]string, len(columns))
	for i, c := range columns {
		news[i] = "NEW." + c
	}
	exec("CREATE TRIGGER fence BEFORE INSERT ON t FOR EACH ROW WHEN " + m.Predicate(news, types, from, to) +
		" EXECUTE FUNCTION suppress_redundant_updates_trigger()")
}

// What the server's input functions take, refuse and call out of range, ParseText does too.
func TestPostgresInput(t *testing.T) {
	conn := connect(t)
	_, err := conn.Exec(t.Context(), `
		CREATE FUNCTION pg_temp.read(type text, value text) RETURNS text LANGUAGE plpgsql AS $$
		DECLARE result text;
		BEGIN
			EXECUTE format('SELECT (%L::%s)::text', value, type) INTO result;
			RETURN 'ok ' || result;
		EXCEPTION WHEN OTHERS THEN
			RETURN SQLSTATE;
		END $$`)
	check(t, err)
	r := rand.New(rand.NewPCG(5, 6))
	for _, typ := range keyTypes {
		if typ.key == rib.TypeText {
			continue // all text is text
		}
		settings := []string{"ISO, MDY/UTC"}
		if typ.key == rib.TypeDate || typ.key == rib.TypeTimestamptz {
			settings = []string{"ISO, MDY/UTC", "German, DMY/Europe/Berlin", "SQL, YMD/America/New_York", "Postgres, MDY/Asia/Kolkata"}
		}
		for _, setting := range settings {
			style, zone, _ := strings.Cut(setting, "/")
			_, err := conn.Exec(t.Context(), "SELECT set_config('DateStyle', $1, false), set_config('TimeZone', $2, false)", style, zone)
			check(t, err)
			t.Run(typ.sql+" "+setting, func(t *testing.T) { testInput(t, conn, r, typ.key, typ.sql, typ.random) })
		}
	}
}

func testInput(t *testing.T, conn *pgx.Conn, r *rand.Rand, typ rib.Type, name string, random func(*rand.Rand) string) {
	values := slices.Concat(oddInputs, oddTimes, oddBytes)
	for range 3000 {
		values = append(values, mutate(r, random(r)))
	}
	want := column[string](t, conn, "SELECT pg_temp.read($1, v) FROM unnest($2::text[]) WITH ORDINALITY AS u (v, i) ORDER BY i", name, values)
	ordered, read, unclear := method(t, "range"), 0, 0
	var theirs, ours []string
	for i, s := range values {
		v, err := rib.ParseText(typ, []byte(s))
		got := "?"
		switch {
		case err == nil:
			k, err := ordered.AppendKey(nil, v)
			check(t, err)
			got = "ok"
			theirs, ours = append(theirs, s), append(ours, ordered.FormatKey([]rib.Type{typ}, k))
			read++
		case errors.Is(err, rib.ErrKeyUnclear):
			unclear++
			continue // whatever the server says
		case errors.Is(err, rib.ErrKeySyntax):
			got = "22P02"
		case errors.Is(err, rib.ErrKeyRange):
			got = "22003"
		case errors.Is(err, rib.ErrKeyTime):
			got = "22008"
		case errors.Is(err, rib.ErrKeyHex):
			got = "22023"
		}
		if status, _, _ := strings.Cut(want[i], " "); got != status {
			t.Errorf("%s %q: we read %s (%v), the server %s", name, s, got, err, want[i])
		}
	}
	if t.Failed() {
		return
	}
	if read < 500 {
		t.Errorf("only %d of %d values were read, %d were unclear", read, len(values), unclear)
	}
	equal := column[bool](t, conn, "SELECT a::"+name+" = b::"+name+" FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS u (a, b, i) ORDER BY i", theirs, ours)
	for i := range equal {
		if !equal[i] {
			t.Errorf("%s %q: we read %s, the server another value", name, theirs[i], ours[i])
		}
	}
}

var oddInputs = []string{
	"", " ", "0", "-0", "+0", "+-1", "--1", "- 1", " 12 ", "\t\n\v\f\r7\r", "7\u00a0", "1 2", "1_000", "0x10", "1e3", "1.0", "００", "00000000000000000000000000000012",
	"9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "92233720368547758070",
	"2147483647", "2147483648", "-2147483648", "-2147483649", "99999999999999999999999999",
	"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
	"a0eebc999c0b4ef8bb6d6bb9bd380a11", "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11", "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}",
	"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a111", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11-",
	"-a0eebc999c0b4ef8bb6d6bb9bd380a11", "a0-eebc999c0b4ef8bb6d6bb9bd380a11", "a0ee--bc999c0b4ef8bb6d6bb9bd380a11", "{", "{}", "}",
	"{a0eebc999c0b4ef8bb6d6bb9bd380a11", "a0eebc999c0b4ef8bb6d6bb9bd380a11}", "{{a0eebc999c0b4ef8bb6d6bb9bd380a11}}", " a0eebc999c0b4ef8bb6d6bb9bd380a11",
	"g0eebc999c0b4ef8bb6d6bb9bd380a11",
}

var oddTimes = []string{
	"2024-01-01", "2024-02-29", "2023-02-29", "1900-02-29", "2000-02-29", "2024-13-01", "2024-00-01", "2024-01-32", "2024-04-31", "2024-01-00", "0000-01-01",
	"0001-01-01", "0001-01-01 BC", "0044-03-15 BC", "0044-03-15 bc", "0005-02-29 BC", "0004-02-29 BC", "4714-11-24 BC", "4714-11-23 BC", "5874897-12-31", "5874898-01-01", "9999999-01-01", "12345-06-07", "012345-06-07",
	"infinity", "-infinity", "Infinity", "INFINITY", "+infinity", "inf", "epoch", "now", "today", "tomorrow", "allballs",
	"01/02/2024", "1.2.2024", "20240102", "2024.01.02", "2024-Jan-02", "Jan 2 2024", "2024-1-2", "24-01-02", "J2460312", "2024-001", " 2024-01-02 ",
	"2024-01-02 +01", "2024-01-02 +01:00", "2024-01-02Z", "2024-01-02 Z", "2024-01-02+14", "2024-01-02 10:00:00", "2024-01-02 10:00:00+02", "2024-01-02T10:00:00Z", "2024-01-02t10:00:00z",
	"2024-01-02 10:00+02", "2024-01-02 10:00:00.5-05:30", "2024-01-02 10:00:00.123456+0530", "2024-01-02 10:00:00.1234567+00", "2024-01-02 10:00:00.+00", "2024-01-02 10:00:00+15:59:59",
	"2024-01-02 10:00:00+16", "2024-01-02 24:00:00+00", "2024-01-02 23:59:60+00", "2024-01-02 25:00:00+00", "2024-01-02 10:60:00+00", "2024-01-02 10:00:00 +02", "2024-01-02 10:00:00 UTC",
	"2024-01-02 10:00:00 Europe/Berlin", "2024-01-02 10:00:00+02 BC", "0001-01-01 00:00:00+00 BC", "2024-01-02 10:00:00-00:00:01", "2024-01-02 10:00:00+5", "2024-01-02 10:00:00+053",
	"4714-11-24 00:00:00+00 BC", "4714-11-23 23:59:59.999999+00 BC", "4714-11-24 00:00:00+01 BC", "4714-11-23 23:00:00-02 BC", "294276-12-31 23:59:59.999999+00", "294277-01-01 00:00:00+00", "294277-01-01 01:00:00+02",
	"294277-01-01 00:00:00-01", "5874897-12-31 00:00:00+00", "2024-02-30 00:00:00+00", "2024-03-31 02:30:00+01:00",
}

var oddBytes = []string{
	`\x`, `\x00`, `\x0`, `\x0g`, `\xDEADbeef`, `\x de ad`, `\xd e`, `\X00`, `\`, `\\`, `\000`, `\377`, `\400`, `\37`, `\8`, `a\\b`, `a\b`, `abc`, "a\nb", "é", `\xé`, ` \x00`, `\x00 `, "\\x\t00\n", "\\x\v00",
}

// mutate changes a valid value a little, or not at all.
func mutate(r *rand.Rand, s string) string {
	const alphabet = " \t+-0123456789abcDEF{}._x\\:TZBC"
	b := []byte(s)
	for range r.IntN(4) {
		i := r.IntN(len(b) + 1)
		switch c := alphabet[r.IntN(len(alphabet))]; r.IntN(3) {
		case 0:
			b = slices.Insert(b, i, c)
		case 1:
			if i < len(b) {
				b = slices.Delete(b, i, i+1)
			}
		case 2:
			if i < len(b) {
				b[i] = c
			}
		}
	}
	return string(b)
}
