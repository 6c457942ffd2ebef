package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// farm is three primaries that stand for three shards.
type farm map[string]*pgtest.Server

func newFarm(t *testing.T) farm {
	t.Helper()
	f := make(farm)
	for _, shard := range []string{"shard_1", "shard_2", "shard_3"} {
		f[shard] = pgtest.NewPrimary(t, pgtest.Options{Name: shard})
		f.exec(t, shard, "CREATE DATABASE app")
	}
	return f
}

func (f farm) exec(t *testing.T, shard string, sql ...string) {
	t.Helper()
	database := "app"
	if strings.HasPrefix(sql[0], "CREATE DATABASE") {
		database = ""
	}
	if err := f[shard].ExecIn(t.Context(), database, sql...); err != nil {
		t.Fatal(err)
	}
}

func (f farm) everywhere(t *testing.T, sql ...string) {
	t.Helper()
	for shard := range f {
		f.exec(t, shard, sql...)
	}
}

func (f farm) primary(ctx context.Context, shard string) (*pgx.Conn, error) {
	s, ok := f[shard]
	if !ok {
		return nil, fmt.Errorf("no primary of %s is known", shard)
	}
	return s.ConnTo(ctx, "app", "")
}

func (f farm) check(t *testing.T, spec KeyspaceSpec) error {
	t.Helper()
	ks, err := spec.Keyspace()
	if err != nil {
		t.Fatal(err)
	}
	return CheckKeyspace(t.Context(), ks, f.primary)
}

func keyedSpec(method string, types []string, table string, columns ...string) KeyspaceSpec {
	s := KeyspaceSpec{Name: "app." + table, Database: "app", Method: method, Types: types,
		Tables: []TableSpec{{Schema: "public", Name: table, Columns: columns}}, Shards: []string{"shard_1", "shard_2", "shard_3"}}
	if method == "range" {
		s.Splits = []string{"1000", "2000"}
	}
	return s
}

func TestCheckKeyspace(t *testing.T) {
	f := newFarm(t)
	obstacles := func(t *testing.T, err error, want ...string) {
		t.Helper()
		if len(want) == 0 {
			if err != nil {
				t.Errorf("refused: %v", err)
			}
			return
		}
		var check *CheckError
		if !errors.As(err, &check) {
			t.Fatalf("not a list of obstacles: %v", err)
		}
		for _, text := range want {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%q is missing in: %v", text, err)
			}
		}
		if len(check.Obstacles) < len(want) {
			t.Errorf("%d obstacles, want at least %d: %v", len(check.Obstacles), len(want), err)
		}
	}

	t.Run("good tables", func(t *testing.T) {
		f.everywhere(t,
			"CREATE TABLE good (id bigint, name varchar, u uuid, n int, s smallint, b bytea, d date, at timestamptz)",
			`CREATE SCHEMA "Odd ""one"`, `CREATE TABLE "Odd ""one"."T;--" ("Key ""x" text)`,
			"CREATE TABLE parted (id bigint) PARTITION BY HASH (id)",
			"CREATE TABLE parted_0 PARTITION OF parted FOR VALUES WITH (MODULUS 1, REMAINDER 0)")
		for _, method := range []string{"hash", "range"} {
			for column, typ := range map[string]string{"id": "bigint", "name": "text", "u": "uuid", "n": "int", "s": "smallint", "b": "bytea", "d": "date", "at": "timestamptz"} {
				s := keyedSpec(method, []string{typ}, "good", column)
				s.Shards, s.Splits = s.Shards[:1], nil
				obstacles(t, f.check(t, s))
			}
		}
		odd := keyedSpec("hash", []string{"text"}, "x", `Key "x`)
		odd.Tables[0].Schema, odd.Tables[0].Name = `Odd "one`, "T;--"
		obstacles(t, f.check(t, odd))
		obstacles(t, f.check(t, keyedSpec("range", []string{"bigint"}, "parted", "id")))
		obstacles(t, f.check(t, keyedSpec("hash", []string{"bigint", "text"}, "good", "id", "name")))
	})

	t.Run("every obstacle is listed", func(t *testing.T) {
		f.everywhere(t, "CREATE TABLE wrong (id int, flag boolean)", "CREATE TABLE cut (name varchar(40), at timestamptz(3))",
			"CREATE TABLE made (a bigint, id bigint GENERATED ALWAYS AS (a * 2) STORED)")
		obstacles(t, f.check(t, keyedSpec("hash", []string{"bigint"}, "made", "id")), "column id is made of other columns")
		obstacles(t, f.check(t, keyedSpec("hash", []string{"timestamptz"}, "cut", "at")), "column at is timestamp(3) with time zone, which rounds a key")
		obstacles(t, f.check(t, keyedSpec("hash", []string{"text"}, "cut", "name")), "column name is character varying(40), which cuts trailing blanks")
		f.exec(t, "shard_1", "CREATE TABLE half (id bigint)")
		s := keyedSpec("range", []string{"bigint"}, "wrong", "id")
		s.Tables = append(s.Tables, TableSpec{"public", "wrong_not", []string{"id"}}, TableSpec{"public", "half", []string{"id"}})
		err := f.check(t, s)
		obstacles(t, err,
			`on shard_1, shard_2, shard_3, table "public"."wrong": column id is integer, keyspace says bigint: use --type int`,
			`on shard_1, shard_2, shard_3, table "public"."wrong_not": it does not exist`,
			`on shard_2, shard_3, table "public"."half": it does not exist`)
		s = keyedSpec("hash", []string{"int"}, "wrong", "flag")
		obstacles(t, f.check(t, s), "column flag is boolean, which cannot be a key")
		s.Tables[0].Columns[0] = "Id"
		obstacles(t, f.check(t, s), `there is no column "Id"`)
	})

	t.Run("relations of other kinds", func(t *testing.T) {
		f.everywhere(t,
			"CREATE TABLE base (id bigint) PARTITION BY RANGE (id)",
			"CREATE TABLE base_1 PARTITION OF base FOR VALUES FROM (0) TO (10)",
			"CREATE VIEW seen AS SELECT 1::bigint AS id",
			"CREATE UNLOGGED TABLE fleeting (id bigint)",
			"CREATE EXTENSION postgres_fdw", "CREATE SERVER away FOREIGN DATA WRAPPER postgres_fdw",
			"CREATE FOREIGN TABLE remote (id bigint) SERVER away",
			"CREATE DOMAIN account AS bigint", "CREATE TABLE domained (id account)",
			"CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
			"CREATE TABLE loose (id text COLLATE blind)")
		for table, want := range map[string]string{
			"base_1":   "it is a partition: name its parent public.base instead",
			"seen":     "it is a view, not a table",
			"remote":   "it is a foreign table, not a table",
			"fleeting": "it is unlogged",
			"domained": "column id is of the domain public.account: no range of the table could be moved, for PostgreSQL replicates no part of a table by a column of a domain. " +
				"Make it bigint, and the domain's CHECK one of the table (ALTER COLUMN ... TYPE bigint, which rewrites nothing if the domain is made of that)",
		} {
			obstacles(t, f.check(t, keyedSpec("range", []string{"bigint"}, table, "id")), want)
		}
		obstacles(t, f.check(t, keyedSpec("hash", []string{"text"}, "loose", "id")), "nondeterministic collation blind")
	})

	t.Run("rows on the wrong shard", func(t *testing.T) {
		f.everywhere(t, "CREATE TABLE placed (id bigint)")
		f.exec(t, "shard_1", "INSERT INTO placed SELECT generate_series(0, 999)", "INSERT INTO placed VALUES (1000), (1999), (2000), (NULL)")
		f.exec(t, "shard_3", "INSERT INTO placed SELECT generate_series(2000, 2999)", "INSERT INTO placed VALUES (-5)")
		spec := keyedSpec("range", []string{"bigint"}, "placed", "id")
		err := f.check(t, spec)
		obstacles(t, err,
			"on shard_1, table \"public\".\"placed\": 3 of its rows would belong to another shard (2 to shard_2, 1 to shard_3)",
			"1 row has NULL in the key",
			"on shard_3, table \"public\".\"placed\": 1 of its rows would belong to another shard (1 to shard_1)")
		var check *CheckError
		errors.As(err, &check)
		rows := map[string]int64{}
		for _, o := range check.Obstacles {
			rows[o.Shard] += o.Rows
		}
		if rows["shard_1"] != 4 || rows["shard_2"] != 0 || rows["shard_3"] != 1 {
			t.Errorf("rows by shard: %v", rows)
		}
		f.exec(t, "shard_1", "DELETE FROM placed WHERE id >= 1000 OR id IS NULL")
		f.exec(t, "shard_3", "DELETE FROM placed WHERE id < 2000")
		obstacles(t, f.check(t, spec))
	})

	t.Run("hash positions agree with the table of ranges", func(t *testing.T) {
		f.everywhere(t, "CREATE TABLE hashed (id bigint)")
		spec := keyedSpec("hash", []string{"bigint"}, "hashed", "id")
		ks, err := spec.Keyspace()
		if err != nil {
			t.Fatal(err)
		}
		m, _ := rib.MethodByName("hash")
		want := map[string]int{}
		values := map[string][]string{}
		for id := range int64(3000) {
			key, err := m.AppendKey(nil, rib.Value{Type: rib.TypeBigint, Int: id})
			if err != nil {
				t.Fatal(err)
			}
			owner := ks.Ranges[ks.Owner(key)].Shard
			want[owner]++
			values[owner] = append(values[owner], fmt.Sprintf("(%d)", id))
		}
		for shard, rows := range values {
			f.exec(t, shard, "INSERT INTO hashed VALUES "+strings.Join(rows, ","))
		}
		obstacles(t, f.check(t, spec)) // each row is where our hash says, and PostgreSQL's says the same
		f.exec(t, "shard_2", "INSERT INTO hashed SELECT generate_series(0, 2999)")
		obstacles(t, f.check(t, spec), fmt.Sprintf("%d of its rows would belong to another shard (%d to shard_1, %d to shard_3)",
			want["shard_1"]+want["shard_3"], want["shard_1"], want["shard_3"]))
	})

	t.Run("positions of dates, times, bytes and small numbers agree too", func(t *testing.T) {
		f.everywhere(t, "CREATE TABLE kinds (d date, at timestamptz, b bytea, s smallint)")
		m, _ := rib.MethodByName("hash")
		for column, kind := range map[string]struct{ typ, value string }{
			"d": {"date", "'2000-01-01'::date + %d"}, "at": {"timestamptz", "'2000-01-01 00:00:00+00'::timestamptz + %d * interval '1 second'"},
			"b": {"bytea", "decode(to_hex(%d + 4096), 'hex')"}, "s": {"smallint", "%d"},
		} {
			spec := keyedSpec("hash", []string{kind.typ}, "kinds", column)
			ks, err := spec.Keyspace()
			if err != nil {
				t.Fatal(err)
			}
			f.everywhere(t, "TRUNCATE kinds")
			for n := range 200 {
				v := rib.Value{Type: ks.Types[0], Int: int64(n)}
				switch kind.typ {
				case "timestamptz":
					v.Int *= 1e6
				case "bytea":
					v = rib.Value{Type: rib.TypeBytea, Bytes: []byte{byte((n + 4096) >> 8), byte(n)}}
				}
				key, err := m.AppendKey(nil, v)
				if err != nil {
					t.Fatal(err)
				}
				f.exec(t, ks.Ranges[ks.Owner(key)].Shard, fmt.Sprintf("INSERT INTO kinds (%s) VALUES (%s)", column, fmt.Sprintf(kind.value, n)))
			}
			obstacles(t, f.check(t, spec))
			f.exec(t, "shard_1", "INSERT INTO kinds DEFAULT VALUES")
			obstacles(t, f.check(t, spec), "1 row has NULL in the key")
		}
	})

	t.Run("rows hidden by a policy are an obstacle, not overlooked", func(t *testing.T) {
		f.everywhere(t, "CREATE TABLE guarded (id bigint)", "INSERT INTO guarded VALUES (-1)", "ALTER TABLE guarded ENABLE ROW LEVEL SECURITY")
		for _, s := range f {
			if err := s.CreateUser(t.Context(), "reader", "secret", ""); err != nil {
				t.Fatal(err)
			}
		}
		f.everywhere(t, "GRANT SELECT ON guarded TO reader", "CREATE TABLE closed (id bigint)")
		spec := keyedSpec("range", []string{"bigint"}, "guarded", "id")
		spec.Tables = append(spec.Tables, TableSpec{"public", "closed", []string{"id"}}, TableSpec{"public", "placed", []string{"nope"}})
		ks, err := spec.Keyspace()
		if err != nil {
			t.Fatal(err)
		}
		err = CheckKeyspace(t.Context(), ks, func(ctx context.Context, shard string) (*pgx.Conn, error) {
			return f[shard].ConnTo(ctx, "app", "reader")
		})
		// The failures of one table do not hide those of the next.
		obstacles(t, err, "row-level security policy", "permission denied for table closed", `there is no column "nope"`)
	})

	t.Run("a shard that cannot be asked", func(t *testing.T) {
		spec := keyedSpec("range", []string{"bigint"}, "placed", "id")
		spec.Shards[1] = "shard_9"
		obstacles(t, f.check(t, spec), "on shard_9: its primary cannot be asked: no primary of shard_9 is known")
	})

	t.Run("a canceled check ends", func(t *testing.T) {
		f.exec(t, "shard_1", "CREATE TABLE locked (id bigint)")
		blocker, err := f["shard_1"].ConnTo(t.Context(), "app", "")
		if err != nil {
			t.Fatal(err)
		}
		defer blocker.Close(context.Background())
		if _, err := blocker.Exec(t.Context(), "BEGIN; LOCK TABLE locked"); err != nil {
			t.Fatal(err)
		}
		spec := keyedSpec("range", []string{"bigint"}, "locked", "id")
		spec.Shards, spec.Splits = spec.Shards[:1], nil
		ks, err := spec.Keyspace()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		start := time.Now()
		if err := CheckKeyspace(ctx, ks, f.primary); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestCheckRefusesReplicas(t *testing.T) {
	p := pgtest.NewPrimary(t, pgtest.Options{})
	r := pgtest.NewReplica(t, p, pgtest.Options{})
	ks, err := func() (*rib.Keyspace, error) {
		s := keyedSpec("range", []string{"bigint"}, "x", "id")
		return s.Keyspace()
	}()
	if err != nil {
		t.Fatal(err)
	}
	err = CheckKeyspace(t.Context(), ks, func(ctx context.Context, _ string) (*pgx.Conn, error) { return r.Conn(ctx) })
	if err == nil || !strings.Contains(err.Error(), "the server that answered is a replica") {
		t.Errorf("%v", err)
	}
}
