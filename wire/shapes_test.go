package wire_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A client that was told a statement's columns is not given other ones, on whatever connection the statement is prepared anew:
// it is told so in PostgreSQL's own words, and nothing has run.
func TestResultsDoNotChangeUnseen(t *testing.T) {
	for _, block := range []string{"", "BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ", "BEGIN; SET LOCAL work_mem = '5MB'"} {
		t.Run(block, func(t *testing.T) {
			r := newRig(t, rigOptions{poolSize: 3, shards: alone(t)})
			ctx := ctxOf(t)
			a, other := r.pgConn(t), r.pgConn(t)
			exec := func(conn *pgconn.PgConn, sql string) {
				t.Helper()
				if _, err := conn.Exec(ctx, sql).ReadAll(); err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
			}
			exec(other, "CREATE TABLE changing (a int, b text); INSERT INTO changing VALUES (1, 'x')")
			for name, sql := range map[string]string{"read": "SELECT * FROM changing WHERE a = $1", "write": "INSERT INTO changing VALUES ($1) RETURNING *", "same": "SELECT b FROM changing WHERE a = $1"} {
				if _, err := a.Prepare(ctx, name, sql, nil); err != nil {
					t.Fatal(err)
				}
			}
			exec(other, "ALTER TABLE changing ADD COLUMN c int")
			// A connection that has none of the statements, and one on which another session has prepared the same since.
			for _, prepared := range []bool{false, true} {
				r.pools.Reconnect("app")
				if prepared {
					if _, err := other.Prepare(ctx, "mine", "SELECT * FROM changing WHERE a = $1", nil); err != nil {
						t.Fatal(err)
					}
				}
				for _, name := range []string{"read", "write"} {
					if block != "" {
						exec(a, block)
					}
					res := a.ExecPrepared(ctx, name, [][]byte{[]byte("1")}, nil, nil).Read()
					var pe *pgconn.PgError
					if !errors.As(res.Err, &pe) || pe.Code != "0A000" || pe.Message != "cached plan must not change result type" {
						t.Errorf("%s gives %d rows, %v", name, len(res.Rows), res.Err)
					}
					if want := byte('I'); block == "" && a.TxStatus() != want || block != "" && a.TxStatus() != 'E' {
						t.Errorf("status %c", a.TxStatus())
					}
					if block != "" {
						exec(a, "ROLLBACK")
					}
				}
				if block != "" {
					exec(a, block)
				}
				if res := a.ExecPrepared(ctx, "same", [][]byte{[]byte("1")}, nil, nil).Read(); res.Err != nil || len(res.Rows) != 1 {
					t.Errorf("a statement whose columns are as they were: %d rows, %v", len(res.Rows), res.Err)
				}
				if block != "" {
					exec(a, "COMMIT")
				}
				if prepared {
					if res := other.ExecPrepared(ctx, "mine", [][]byte{[]byte("1")}, nil, nil).Read(); res.Err != nil || len(res.FieldDescriptions) != 3 {
						t.Errorf("who has prepared it since: %v", res.Err)
					}
				}
			}
			if got, err := other.Exec(ctx, "SELECT count(*) FROM changing").ReadAll(); err != nil || string(got[0].Rows[0][0]) != "1" {
				t.Errorf("refused statements have run: %v %v", got, err)
			}
			if err := a.Deallocate(ctx, "read"); err != nil {
				t.Fatal(err)
			}
			if _, err := a.Prepare(ctx, "read", "SELECT * FROM changing WHERE a = $1", nil); err != nil {
				t.Fatal(err)
			}
			if res := a.ExecPrepared(ctx, "read", [][]byte{[]byte("1")}, nil, nil).Read(); res.Err != nil || len(res.Rows) != 1 {
				t.Errorf("prepared again: %v", res.Err)
			}
		})
	}
}

// What is prepared unasked may fail, and the client learns why.
func TestWhatCannotBePreparedAgain(t *testing.T) {
	r := newRig(t, rigOptions{shards: alone(t)})
	ctx := ctxOf(t)
	a, other := r.pgConn(t), r.pgConn(t)
	exec := func(conn *pgconn.PgConn, sql string) error {
		_, err := conn.Exec(ctx, sql).ReadAll()
		return err
	}
	if err := exec(other, "CREATE TABLE changing (a int)"); err != nil {
		t.Fatal(err)
	}
	if err := exec(a, "PREPARE q AS SELECT a FROM changing"); err != nil {
		t.Fatal(err)
	}
	for name, describe := range map[string]bool{"told": true, "untold": false} {
		if describe {
			if _, err := a.Prepare(ctx, name, "SELECT a FROM changing", nil); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := exec(a, "SELECT 1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := exec(other, "DROP TABLE changing"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		r.pools.Reconnect("app")
		var pe *pgconn.PgError
		if res := a.ExecPrepared(ctx, "told", nil, nil, nil).Read(); !errors.As(res.Err, &pe) || pe.Code != "42P01" || a.TxStatus() != 'I' {
			t.Errorf("%v, status %c", res.Err, a.TxStatus())
		}
		if err := exec(a, "EXECUTE q"); !errors.As(err, &pe) || pe.Code != "42P01" || a.TxStatus() != 'I' {
			t.Errorf("%v, status %c", err, a.TxStatus())
		}
		if err := exec(a, "BEGIN; SET LOCAL work_mem = '5MB'"); err != nil {
			t.Fatal(err)
		}
		if res := a.ExecPrepared(ctx, "told", nil, nil, nil).Read(); !errors.As(res.Err, &pe) || pe.Code != "42P01" || a.TxStatus() != 'E' {
			t.Errorf("in a block: %v, status %c", res.Err, a.TxStatus())
		}
		if err := exec(a, "EXECUTE q"); !errors.As(err, &pe) || pe.Code != "25P02" || a.TxStatus() != 'E' {
			t.Errorf("in a failed block: %v, status %c", err, a.TxStatus())
		}
		if err := exec(a, "ROLLBACK"); err != nil {
			t.Fatal(err)
		}
		if err := exec(a, "SELECT 1"); err != nil {
			t.Error(err)
		}
	}
	r.busy(t, 0)
}

// A statement that was prepared under a SET LOCAL means what it meant then.
func TestPreparedUnderSetLocal(t *testing.T) {
	r := newRig(t, rigOptions{poolSize: 1, shards: alone(t)})
	ctx := ctxOf(t)
	a := r.connect(pgx.QueryExecModeExec)
	for i, want := range []string{"2020-01-02", "2020-02-01", "2020-01-02"} {
		tx, err := a.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if i != 1 {
			if _, err := tx.Exec(ctx, "SET LOCAL datestyle = 'ISO, DMY'"); err != nil {
				t.Fatal(err)
			}
		}
		name := fmt.Sprint("s", i)
		if _, err := tx.Prepare(ctx, name, "SELECT '2/1/2020'::date::text FROM (SELECT count(*) FROM notes) x"); err != nil {
			t.Fatal(err)
		}
		var day string
		if err := tx.QueryRow(ctx, name).Scan(&day); err != nil || day != want {
			t.Errorf("%q, %v; want %q", day, err, want)
		}
		if err := tx.Commit(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// alone is one primary without a replica, which could be behind.
func alone(t *testing.T) []shardServers { return []shardServers{{primary: servers(t)[0].primary}} }

func (r *rig) pgConn(t *testing.T) *pgconn.PgConn {
	t.Helper()
	conn, err := pgconn.Connect(ctxOf(t), r.dsn())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}
