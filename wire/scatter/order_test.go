package scatter

import (
	"context"
	"fmt"
	"testing"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pg"
)

// Values are compared as PostgreSQL orders them, in both formats.
func TestOrderIsPostgreSQLs(t *testing.T) {
	server, err := pgtest.Shared(t).Primary(t.Context(), pgtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := server.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, c := range []struct {
		oid    uint32
		values string
		bytes  bool
	}{
		{oidBool, "(true), (false)", false},
		{oidInt2, "(0::int2), (-32768), (32767), (1), (-1), (10), (9)", false},
		{oidInt4, "(0::int4), (-2147483648), (2147483647), (100), (99), (-99)", false},
		{oidInt8, "(0::int8), (-9223372036854775808), (9223372036854775807), (1), (-1), (10), (9), (1000000000000)", false},
		{oidOID, "(0::oid), (4294967295::oid), (2147483648::oid), (7::oid)", false},
		{oidFloat4, "('NaN'::float4), ('-Infinity'), ('Infinity'), (0), ('-0'), (1.5), (-1.5), (1e-40), (3e38)", false},
		{oidFloat8, "('NaN'::float8), ('-Infinity'), ('Infinity'), (0), ('-0'), (1.5), (-1.5), (1e-310), (1e300), (1e-9), (12), (9)", false},
		{oidNumeric, "('NaN'::numeric), ('Infinity'), ('-Infinity'), (0), (0.000), (1), (1.0), (-1), (12345678901234567890.5), (12345678901234567890.49), (0.0001), (0.00010), (-0.0001), (0.01), (10000), (9999), (10000.1), (1e50), (-1e50), (1e-50), (120), (12), (99990000)", false},
		{oidDate, "('2024-02-29'::date), ('2024-03-01'), ('2023-12-31'), ('0044-03-15 BC'), ('0001-01-01 BC'), ('0001-01-01'), ('infinity'), ('-infinity'), ('10000-01-01'), ('1999-12-31')", false},
		{oidTimestamp, "('2024-02-29 23:59:59.5'::timestamp), ('2024-02-29 23:59:59.25'), ('2024-02-29 23:59:59'), ('0044-03-15 12:00 BC'), ('0044-03-15 11:00 BC'), ('infinity'), ('-infinity'), ('12024-01-01 00:00:00.000001')", false},
		{oidTimestamptz, "('2024-10-27 02:30:00+02'::timestamptz), ('2024-10-27 02:30:00+01'), ('2024-10-27 01:00:00+00'), ('1890-01-01 00:00:00+00'), ('1900-06-01 00:00+00'), ('0044-03-15 12:00+00 BC'), ('infinity'), ('-infinity'), ('2024-07-01 00:00:00.125+05:30')", false},
		{oidUUID, "('00000000-0000-0000-0000-000000000000'::uuid), ('ffffffff-ffff-ffff-ffff-ffffffffffff'), ('0fffffff-ffff-ffff-ffff-ffffffffffff'), ('a0000000-0000-0000-0000-000000000000'), ('90000000-0000-0000-0000-000000000000')", false},
		{oidBytea, `(''::bytea), ('\x00'), ('\x0000'), ('\xff'), ('\x5c'), ('\x5c00'), ('\x61'), ('\x6162'), ('\x7f'), ('\x20')`, false},
		{oidText, `('' COLLATE "C"), ('a'), ('A'), ('aa'), ('B'), ('é'), ('ä'), (' '), ('_')`, true},
	} {
		for _, setting := range []string{"", "SET bytea_output = 'escape'", "SET TimeZone = 'Europe/Berlin'", "SET TimeZone = 'Asia/Kolkata'", "SET extra_float_digits = 0"} {
			if _, err := conn.Exec(t.Context(), "RESET ALL; "+setting); err != nil {
				t.Fatal(err)
			}
			for _, format := range []int16{pg.FormatText, pg.FormatBinary} {
				name := fmt.Sprintf("type %d, format %d, %s", c.oid, format, setting)
				compare := comparer(c.oid, format, c.bytes, true)
				if compare == nil {
					t.Errorf("%s is not compared", name)
					continue
				}
				sql := "WITH v(x) AS (VALUES " + c.values + ") SELECT a.x, b.x, CASE WHEN a.x < b.x THEN -1 WHEN a.x > b.x THEN 1 ELSE 0 END FROM v a, v b"
				rows := conn.PgConn().ExecParams(t.Context(), sql, nil, nil, nil, []int16{format, format, 0})
				n := 0
				for rows.NextRow() {
					n++
					v := rows.Values()
					got := compare(v[0], v[1])
					if want := string(v[2]); fmt.Sprint(got) != want {
						t.Errorf("%s: %q and %q compare as %d, want %s", name, v[0], v[1], got, want)
					}
				}
				if _, err := rows.Close(); err != nil || n == 0 {
					t.Fatalf("%s: %d rows, %v", name, n, err)
				}
			}
		}
	}
	for _, c := range []struct {
		oid    uint32
		format int16
		iso    bool
	}{{oidText, 0, true}, {oidDate, 0, false}, {3802, 1, true}, {99999, 0, true}, {oidBpchar, 1, true}} {
		if comparer(c.oid, c.format, false, c.iso) != nil {
			t.Errorf("type %d is compared", c.oid)
		}
	}
}
