package copysplit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/scatter/copysplit"
	"rangefinder/wire/sqlkey"
)

// trial is one COPY of random data.
type trial struct {
	config  copysplit.Config
	options string
	data    []byte
}

// random makes a trial: data that a table (a text, id of some type, b text) may take, and often, by one byte, may not.
func random(t testing.TB, r *rand.Rand, typ rib.Type) trial {
	c := &sqlkey.Copy{From: true, Schema: "public", Name: "t", Columns: []string{"a", "id", "b"}, Key: []string{"id"}, Types: []rib.Type{typ},
		Method: hash(t), Quote: '"', Escape: '"'}
	x := trial{config: copysplit.Config{Copy: c, Columns: c.Columns, UTF8: true, MarkerInCSV: true}}
	eol := []string{"\n", "\r\n", "\r"}[r.IntN(3)]
	c.Delimiter = "\t,|;^"[r.IntN(5)]
	c.Null = []string{`\N`, "", "nil", "-"}[r.IntN(4)]
	c.Header = r.IntN(3) == 0
	options := fmt.Sprintf("DELIMITER %s, NULL %s, HEADER %t", rib.QuoteLiteral(string(c.Delimiter)), rib.QuoteLiteral(c.Null), c.Header)
	quoted := func(s string) string { return s }
	if r.IntN(2) == 0 {
		c.Format = sqlkey.CopyCSV
		c.Quote, c.Escape = `"'`[r.IntN(2)], `"'\`[r.IntN(3)]
		options += fmt.Sprintf(", FORMAT csv, QUOTE %s, ESCAPE %s", rib.QuoteLiteral(string(c.Quote)), rib.QuoteLiteral(string(c.Escape)))
		if r.IntN(4) == 0 {
			c.ForceNull = []string{"b", "id"}[:1+r.IntN(2)]
			options += ", FORCE_NULL (" + strings.Join(c.ForceNull, ", ") + ")"
		}
		if r.IntN(4) == 0 {
			c.ForceNotNull = []string{"id"}
			options += ", FORCE_NOT_NULL (id)"
		}
		quoted = func(s string) string {
			e, q := string(c.Escape), string(c.Quote)
			s = strings.ReplaceAll(s, e, e+e)
			if e != q {
				s = strings.ReplaceAll(s, q, e+q)
			}
			return q + s + q
		}
	}
	x.options = options
	value := func(key bool) string {
		if !key {
			pieces := []string{"a", "bc", `\\`, `\n`, `\t`, "ä", " ", "x", c.Null, `\\.`}
			if c.Format == sqlkey.CopyCSV {
				pieces = append(pieces, "\n", "\r", "\r\n", `"`, `'`, `\`, string(c.Delimiter), "\\.\n")
			} else {
				pieces = append(pieces, `\`+"\n", `\`+"\r", `\`+string(c.Delimiter), `\x41`, `\101`, `\q`)
			}
			var b strings.Builder
			for range r.IntN(5) {
				b.WriteString(pieces[r.IntN(len(pieces))])
			}
			s := b.String()
			if c.Format == sqlkey.CopyCSV && (r.IntN(3) == 0 || strings.ContainsAny(s, "\r\n\"'"+string(c.Delimiter))) {
				return quoted(s)
			}
			return s
		}
		var s string
		switch typ {
		case rib.TypeText:
			s = strings.Repeat(string(rune('a'+r.IntN(26))), r.IntN(4))
			if c.Format == sqlkey.CopyText && r.IntN(3) == 0 {
				s += []string{`\x7a`, `\172\x`, `\\`, `\` + string(c.Delimiter), `\b`, "ö", `\x7`}[r.IntN(7)]
			}
		case rib.TypeUUID:
			s = fmt.Sprintf("%08x-0000-4000-8000-%012x", r.Uint32(), r.IntN(1000))
		default:
			s = fmt.Sprint(int64(r.Uint64()) >> r.IntN(64))
			if c.Format == sqlkey.CopyText && r.IntN(5) == 0 {
				s = strings.Replace(s, "1", `\x31`, 1)
			}
		}
		if c.Format == sqlkey.CopyCSV && r.IntN(3) == 0 {
			return quoted(s)
		}
		return s
	}
	var b bytes.Buffer
	line := func(columns ...string) {
		b.WriteString(strings.Join(columns, string(c.Delimiter)) + eol)
	}
	if c.Header {
		line("a", "id", "b")
	}
	for range r.IntN(8) {
		line(value(false), value(true), value(false))
	}
	if r.IntN(5) == 0 {
		b.WriteString(`\.` + eol)
	}
	x.data = b.Bytes()
	switch n := len(x.data); {
	case n == 0:
	case r.IntN(4) == 0:
		x.data = x.data[:n-1]
	case r.IntN(3) == 0:
		signs := "\n\r\t,\\.\"'x1N|"
		x.data[r.IntN(n)] = signs[r.IntN(len(signs))]
	case r.IntN(8) == 0:
		at := r.IntN(n)
		x.data = append(x.data[:at:at], x.data[min(at+1+r.IntN(3), n):]...)
	}
	return x
}

// What a table gets by COPY of the whole is what the shards get together, each the rows whose keys it owns; and what PostgreSQL refuses
// of the whole is refused here or by a shard.
func TestPostgresAgrees(t *testing.T) {
	conn, err := pgtest.NewPrimary(t, pgtest.Options{}).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	taken, refused, otherwise := 0, 0, 0
	for _, typ := range []rib.Type{rib.TypeBigint, rib.TypeText, rib.TypeUUID, rib.TypeSmallint} {
		tables := "DROP TABLE IF EXISTS t, t0, t1, t2"
		for _, name := range []string{"t", "t0", "t1", "t2"} {
			tables += fmt.Sprintf("; CREATE UNLOGGED TABLE %s (a text, id %s NOT NULL, b text)", name, typ)
		}
		exec(t, conn, tables)
		for seed := range uint64(1500) {
			r := rand.New(rand.NewPCG(seed, uint64(typ)))
			x := random(t, r, typ)
			exec(t, conn, "BEGIN; SAVEPOINT s")
			wholeErr := copyInto(t, conn, "t", x, x.data)
			if wholeErr != nil {
				exec(t, conn, "ROLLBACK TO s")
			}
			g, splitErr := run(t, x.config, x.data, func() int { return 1 + r.IntN(20) })
			for i := range g.rows {
				if splitErr == nil && g.rows[i] != nil {
					splitErr = copyInto(t, conn, fmt.Sprint("t", i), x, g.rows[i])
				}
			}
			describe := fmt.Sprintf("seed %d, type %s, COPY WITH (%s) of %q: PostgreSQL says %v, split it is %v", seed, typ, x.options, x.data, wholeErr, splitErr)
			switch {
			case (wholeErr == nil) != (splitErr == nil):
				t.Fatal(describe)
			case wholeErr != nil:
				refused++
				if codeOf(wholeErr) != codeOf(splitErr) {
					otherwise++
					t.Log(describe)
				}
			default:
				taken++
				check(t, conn, x, describe)
			}
			exec(t, conn, "ROLLBACK")
		}
	}
	// Of several things that are wrong with a row, or of several rows, each may name another.
	if taken < 2000 || refused < 1000 || otherwise > refused/20 {
		t.Fatalf("%d taken, %d refused, of these %d for another reason", taken, refused, otherwise)
	}
}

// check compares the tables.
func check(t *testing.T, conn *pgx.Conn, x trial, describe string) {
	t.Helper()
	var lacking, over, wrong int
	misplaced := "false"
	ranges := rib.EvenRanges([]string{"t0", "t1", "t2"})
	for i := range ranges {
		p := x.config.Copy.Method.Predicate([]string{"id"}, x.config.Copy.Types, ranges[i].From, ranges[i].To)
		misplaced += fmt.Sprintf(" OR shard = %d AND NOT %s", i, p)
	}
	const union = "(SELECT 0 AS shard, * FROM t0 UNION ALL SELECT 1, * FROM t1 UNION ALL SELECT 2, * FROM t2) AS u"
	err := conn.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM (SELECT * FROM t EXCEPT ALL SELECT a, id, b FROM `+union+`) AS x),
		(SELECT count(*) FROM (SELECT a, id, b FROM `+union+` EXCEPT ALL SELECT * FROM t) AS x),
		(SELECT count(*) FROM `+union+` WHERE `+misplaced+`)`).Scan(&lacking, &over, &wrong)
	if err != nil {
		t.Fatal(err)
	}
	if lacking != 0 || over != 0 || wrong != 0 {
		t.Fatalf("%s: %d rows lack, %d are over, %d are misplaced", describe, lacking, over, wrong)
	}
}

func exec(t testing.TB, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func copyInto(t testing.TB, conn *pgx.Conn, table string, x trial, data []byte) error {
	_, err := conn.PgConn().CopyFrom(t.Context(), bytes.NewReader(data), "COPY "+table+" (a, id, b) FROM STDIN WITH ("+x.options+")")
	return err
}

// codeOf is an error's SQLSTATE.
func codeOf(err error) string {
	var ours *pg.Error
	var theirs *pgconn.PgError
	switch {
	case errors.As(err, &ours):
		return ours.Code
	case errors.As(err, &theirs):
		return theirs.Code
	}
	return ""
}
