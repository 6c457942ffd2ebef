package drivers

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lib/pq"

	"rangefinder/internal/pgtest"
)

// pqDriver is lib/pq, by way of database/sql. It has no COPY TO.
type pqDriver struct{ *account }

func testPq(t *testing.T, a *account) {
	d := pqDriver{a}
	eachStep(t, map[string]func(*testing.T){
		"connect": d.connects, "rows by key": d.rows, "transactions": d.transactions, "a prepared statement": d.prepared,
		"many prepared statements": d.manyPrepared, "batches": d.batches, "copy in": d.copyIn,
		"cancel":                      func(t *testing.T) { d.cancel(t, d.open(t, d.nodes[0].postgres)) },
		"cancel through another node": func(t *testing.T) { d.cancel(t, d.open(t, "127.0.0.1:"+d.balance(t))) },
		"listen":                      d.listen, "errors": d.errors, "binary results": d.binary, "settings": d.settings,
		"large values": d.large, "eight connections": d.eight,
	}, "copy out", "types of one's own")
}

// open is a pool of one connection.
func (d pqDriver) open(t *testing.T, address string, options ...string) *sql.DB {
	t.Helper()
	db, err := sql.Open("postgres", d.dsn(address, options...))
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	return db
}

func (d pqDriver) connect(t *testing.T) *sql.DB { return d.open(t, d.nodes[0].postgres) }

// runs are what statements run on: a pool, a connection, a transaction.
type runs interface {
	ExecContext(context.Context, string, ...any) (sql.Result, error)
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
}

// must fails the test unless the statement works and concerns so many rows.
func (d pqDriver) must(t *testing.T, on runs, rows int64, query string, args ...any) {
	t.Helper()
	result, err := on.ExecContext(t.Context(), query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	if n, err := result.RowsAffected(); err != nil || n != rows {
		t.Fatalf("%s: %d rows (%v), want %d", query, n, err, rows)
	}
}

// want fails the test unless the query's one column is this.
func (d pqDriver) want(t *testing.T, on runs, want []string, query string, args ...any) {
	t.Helper()
	rows, err := on.QueryContext(t.Context(), query, args...)
	wantRows(t, rows, err, want, query)
}

func wantRows(t *testing.T, rows *sql.Rows, err error, want []string, query string) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	var got []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		got = append(got, s)
	}
	if err := rows.Err(); err != nil || !equal(got, want) {
		t.Fatalf("%s: %.500q (%v), want %.500q", query, got, err, want)
	}
}

func wantPqError(t *testing.T, err error, code string) *pq.Error {
	t.Helper()
	var e *pq.Error
	if !errors.As(err, &e) || string(e.Code) != code {
		t.Fatalf("error is %v, want SQLSTATE %s", err, code)
	}
	return e
}

func (d pqDriver) connects(t *testing.T) {
	for _, options := range []string{"", "max_protocol_version=3.2"} {
		d.want(t, d.open(t, d.nodes[0].postgres, options), []string{"42"}, "SELECT 42")
	}
	wrong, err := sql.Open("postgres", strings.Replace(d.dsn(d.nodes[0].postgres), "root.crt", "wrong.crt", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer wrong.Close()
	if err := wrong.PingContext(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate signed by unknown authority") {
		t.Errorf("under another authority: %v", err)
	}
	wantPqError(t, d.open(t, d.nodes[0].postgres, "password=wrong").PingContext(t.Context()), "28P01")
}

func (d pqDriver) rows(t *testing.T) {
	db, binary := d.connect(t), d.open(t, d.nodes[0].postgres, "binary_parameters=yes")
	d.must(t, db, 0, "CREATE TABLE things_pq (id int PRIMARY KEY, name text)")
	for k := d.base; k < d.base+40; k++ {
		d.must(t, db, 1, insertOrder, k, 1, fmt.Sprint("note ", k))
	}
	for k := d.base; k < d.base+40; k++ {
		want := []string{fmt.Sprint("note ", k)}
		d.want(t, db, want, "SELECT note FROM orders WHERE customer_id = $1", k)
		d.want(t, binary, want, "SELECT note FROM orders WHERE customer_id = $1", k)
		d.want(t, db, want, fmt.Sprint("SELECT note FROM orders WHERE customer_id = ", k))
	}
	d.must(t, db, 1, "UPDATE orders SET note = 'changed' WHERE customer_id = $1", d.base)
	d.must(t, db, 1, "DELETE FROM orders WHERE customer_id = $1", d.base+1)
	d.want(t, db, []string{"changed"}, "SELECT note FROM orders WHERE customer_id = $1", d.base)
	d.want(t, db, nil, "SELECT note FROM orders WHERE customer_id = $1", d.base+1)
}

func (d pqDriver) transactions(t *testing.T) {
	ctx, db, k := t.Context(), d.connect(t), d.base+100
	const notes = "SELECT note FROM orders WHERE customer_id = $1 ORDER BY id"
	begin := func(o *sql.TxOptions) *sql.Tx {
		t.Helper()
		tx, err := db.BeginTx(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		return tx
	}
	tx := begin(nil)
	d.must(t, tx, 1, insertOrder, k, 1, "committed")
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	tx = begin(&sql.TxOptions{Isolation: sql.LevelSerializable})
	d.must(t, tx, 1, insertOrder, k, 2, "rolled back")
	d.want(t, tx, []string{"committed", "rolled back"}, notes, k)
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	d.want(t, db, []string{"committed"}, notes, k)

	tx = begin(nil)
	d.must(t, tx, 1, insertOrder, k, 3, "before the error")
	_, err := tx.ExecContext(ctx, "SELECT 1 / (customer_id - customer_id) FROM orders WHERE customer_id = $1", k)
	wantPqError(t, err, "22012")
	_, err = tx.ExecContext(ctx, "SELECT 1")
	wantPqError(t, err, "25P02")
	if err := tx.Commit(); err == nil {
		t.Error("the commit of a failed transaction says nothing")
	}
	d.want(t, db, []string{"committed"}, notes, k)

	tx = begin(nil)
	d.must(t, tx, 1, insertOrder, k, 4, "kept")
	d.must(t, tx, 0, "SAVEPOINT sp")
	d.must(t, tx, 1, insertOrder, k, 5, "undone")
	_, err = tx.ExecContext(ctx, insertOrder, k, 4, "twice")
	wantPqError(t, err, "23505")
	d.must(t, tx, 0, "ROLLBACK TO SAVEPOINT sp")
	d.must(t, tx, 1, insertOrder, k, 6, "kept too")
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	d.want(t, db, []string{"committed", "kept", "kept too"}, notes, k)

	tx = begin(&sql.TxOptions{ReadOnly: true})
	_, err = tx.ExecContext(ctx, insertOrder, k, 7, "read only")
	wantPqError(t, err, "25006")
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
}

func (d pqDriver) prepared(t *testing.T) {
	db := d.connect(t)
	stmt, err := db.PrepareContext(t.Context(), "SELECT note FROM orders WHERE customer_id = $1")
	if err != nil {
		t.Fatal(err)
	}
	defer stmt.Close()
	for i := range 200 {
		k := d.base + 2 + i%38
		rows, err := stmt.QueryContext(t.Context(), k)
		wantRows(t, rows, err, []string{fmt.Sprint("note ", k)}, "the prepared statement")
	}
}

func (d pqDriver) manyPrepared(t *testing.T) {
	db := d.connect(t)
	var stmts []*sql.Stmt
	for i := range 30 {
		stmt, err := db.PrepareContext(t.Context(), fmt.Sprintf("SELECT note || ' %d' FROM orders WHERE customer_id = $1", i))
		if err != nil {
			t.Fatal(err)
		}
		stmts = append(stmts, stmt)
	}
	for turn := range 3 {
		for i, stmt := range stmts {
			k := d.base + 2 + (i+turn)%38
			rows, err := stmt.QueryContext(t.Context(), k)
			wantRows(t, rows, err, []string{fmt.Sprintf("note %d %d", k, i)}, "a prepared statement")
		}
	}
	for _, stmt := range stmts {
		if err := stmt.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Several statements in one query are the pipeline of lib/pq.
func (d pqDriver) batches(t *testing.T) {
	db := d.connect(t)
	var many strings.Builder
	for i := range 300 {
		fmt.Fprintf(&many, "INSERT INTO things_pq VALUES (%d, 'thing %d');", i, i)
	}
	d.must(t, db, 1, many.String())
	d.want(t, db, []string{"300"}, "SELECT count(*) FROM things_pq")
	_, err := db.ExecContext(t.Context(), "UPDATE things_pq SET name = 'lost' WHERE id = 1; INSERT INTO things_pq VALUES (1, 'twice'); UPDATE things_pq SET name = 'never' WHERE id = 1")
	wantPqError(t, err, "23505")
	d.want(t, db, []string{"thing 1"}, "SELECT name FROM things_pq WHERE id = 1")
	rows, err := db.QueryContext(t.Context(), "SELECT 'first'; SELECT 'second' UNION ALL SELECT 'third'")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var got []string
	for more := true; more; more = rows.NextResultSet() {
		for rows.Next() {
			var s string
			if err := rows.Scan(&s); err != nil {
				t.Fatal(err)
			}
			got = append(got, s)
		}
	}
	if err := rows.Err(); err != nil || !equal(got, []string{"first", "second", "third"}) {
		t.Errorf("%q %v", got, err)
	}
}

func (d pqDriver) copyIn(t *testing.T) {
	ctx, db := t.Context(), d.connect(t)
	d.must(t, db, 0, "TRUNCATE things_pq")
	// in copies rows in a transaction, and returns the first error.
	in := func(n int, row func(i int) []any) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		stmt, err := tx.PrepareContext(ctx, "COPY things_pq (id, name) FROM STDIN")
		if err != nil {
			return err
		}
		for i := range n {
			if _, err := stmt.ExecContext(ctx, row(i)...); err != nil {
				return err
			}
		}
		if _, err := stmt.ExecContext(ctx); err != nil {
			return err
		}
		if err := stmt.Close(); err != nil {
			return err
		}
		return tx.Commit()
	}
	if err := in(2000, func(i int) []any {
		if s := awkward(i); s != nil {
			return []any{i, *s}
		}
		return []any{i, nil}
	}); err != nil {
		t.Fatal(err)
	}
	wantPqError(t, in(2, func(i int) []any { return []any{3000 - 2999*i, "fine, and twice"} }), "23505")
	rows, err := db.QueryContext(ctx, "SELECT name FROM things_pq ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	n := 0
	for ; rows.Next(); n++ {
		var name *string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		if want := awkward(n); (name == nil) != (want == nil) || name != nil && *name != *want {
			t.Fatalf("row %d", n)
		}
	}
	if n != 2000 || rows.Err() != nil {
		t.Errorf("%d rows, %v", n, rows.Err())
	}
}

// cancel ends the context of a statement that runs.
func (d pqDriver) cancel(t *testing.T, db *sql.DB) {
	const slow = "SELECT pg_sleep(60) FROM one -- pq"
	other := d.connect(t)
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := conn.ExecContext(ctx, slow)
		ended <- err
	}()
	pgtest.Eventually(t, 20*time.Second, func() error {
		var n int
		if err := other.QueryRowContext(t.Context(), "SELECT count(*) FROM running WHERE query = $1", slow).Scan(&n); err != nil || n != 1 {
			return fmt.Errorf("%d run, %v", n, err)
		}
		return nil
	})
	cancel()
	select {
	case err := <-ended:
		wantPqError(t, err, "57014")
	case <-time.After(20 * time.Second):
		t.Fatal("it was not canceled")
	}
	conn.Close() // the driver itself will not use a connection again on which it has canceled something
	d.want(t, db, []string{fmt.Sprint("note ", d.base+2)}, "SELECT note FROM orders WHERE customer_id = $1", d.base+2)
}

func (d pqDriver) listen(t *testing.T) {
	listener := pq.NewListener(d.dsn(d.nodes[0].postgres), time.Second, time.Second, nil)
	defer listener.Close()
	if err := listener.Listen("pq"); err != nil {
		t.Fatal(err)
	}
	d.must(t, d.connect(t), 0, "NOTIFY pq, 'hello é'")
	select {
	case n := <-listener.Notify:
		if n == nil || n.Channel != "pq" || n.Extra != "hello é" {
			t.Errorf("%+v", n)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("no notification")
	}
	if err := listener.Ping(); err != nil {
		t.Error(err)
	}
	if err := listener.Unlisten("pq"); err != nil {
		t.Error(err)
	}
}

func (d pqDriver) errors(t *testing.T) {
	connector, err := pq.NewConnector(d.dsn(d.nodes[0].postgres))
	if err != nil {
		t.Fatal(err)
	}
	var notices []string
	db := sql.OpenDB(pq.ConnectorWithNoticeHandler(connector, func(n *pq.Error) { notices = append(notices, n.Severity+": "+n.Message) }))
	defer db.Close()
	of := func(code, query string, args ...any) *pq.Error {
		_, err := db.ExecContext(t.Context(), query, args...)
		return wantPqError(t, err, code)
	}
	if e := of("23505", insertOrder, d.base+2, 1, ""); e.Constraint != "orders_pkey" || e.Table != "orders" || e.Detail != fmt.Sprintf("Key (customer_id, id)=(%d, 1) already exists.", d.base+2) {
		t.Errorf("%+v", e)
	}
	if e := of("42601", "SELCT 1"); e.Message != `syntax error at or near "SELCT"` || e.Position != "1" {
		t.Errorf("%+v", e)
	}
	if e := of("42703", "SELECT nothing FROM one WHERE n = $1", 1); e.Position != "8" {
		t.Errorf("%+v", e)
	}
	if e := of("0A000", "UPDATE orders SET note = 'all' WHERE id = 0"); !strings.Contains(e.Hint, "customer_id") {
		t.Errorf("%+v", e)
	}
	d.must(t, db, 0, "DROP TABLE IF EXISTS not_there")
	if !equal(notices, []string{`NOTICE: table "not_there" does not exist, skipping`}) {
		t.Errorf("notices %q", notices)
	}
}

func (d pqDriver) binary(t *testing.T) {
	at := time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)
	for _, options := range []string{"binary_parameters=yes", "binary_parameters=no"} {
		var k, null any
		var f float64
		var b bool
		var when time.Time
		var id string
		var list []int64
		var blob []byte
		err := d.open(t, d.nodes[0].postgres, options).QueryRowContext(t.Context(),
			"SELECT customer_id, 1.5::float8, true, $2::timestamptz, $3::uuid, $4::int[], $5::bytea, NULL::text FROM orders WHERE customer_id = $1",
			d.base+2, at, "00000000-0000-0000-0000-000000000007", pq.Array([]int64{1, 2, 3}), []byte{0, 255}).Scan(&k, &f, &b, &when, &id, pq.Array(&list), &blob, &null)
		got := fmt.Sprint(k, f, b, when.UTC(), id, list, blob, null)
		if want := fmt.Sprint(d.base+2, 1.5, true, at, "00000000-0000-0000-0000-000000000007", []int64{1, 2, 3}, []byte{0, 255}, nil); err != nil || got != want {
			t.Errorf("%s: %s (%v), want %s", options, got, err, want)
		}
	}
}

func (d pqDriver) settings(t *testing.T) {
	db, other := d.open(t, d.nodes[0].postgres, "statement_timeout=12345"), d.connect(t)
	d.want(t, db, []string{"12345ms"}, "SHOW statement_timeout")
	d.must(t, db, 0, "CREATE SCHEMA pq_schema CREATE TABLE mine (v text)")
	d.must(t, db, 0, "SET search_path = pq_schema, public")
	d.must(t, db, 0, "SET TIME ZONE 'Asia/Tokyo'")
	d.must(t, db, 1, "INSERT INTO mine VALUES ('seen')")
	const settings = "SELECT current_setting('search_path') || ' ' || current_setting('TimeZone') FROM orders WHERE customer_id = $1"
	for k := d.base + 2; k < d.base+12; k++ {
		d.want(t, db, []string{"pq_schema, public Asia/Tokyo"}, settings, k)
		d.want(t, other, []string{`"$user", public UTC`}, settings, k)
	}
	d.want(t, db, []string{"seen"}, "SELECT v FROM mine")
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	d.must(t, tx, 0, "SET LOCAL TIME ZONE 'Europe/Paris'")
	d.want(t, tx, []string{"Europe/Paris"}, "SHOW TimeZone")
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	d.want(t, db, []string{"Asia/Tokyo"}, "SHOW TimeZone")
	d.must(t, db, 0, "RESET ALL")
	d.want(t, db, []string{`"$user", public`}, "SHOW search_path")
}

func (d pqDriver) large(t *testing.T) {
	text, blob := strings.Repeat("é", 1<<19), make([]byte, 1<<20)
	_, _ = rand.Read(blob)
	for i, options := range []string{"binary_parameters=yes", "binary_parameters=no"} {
		db, k := d.open(t, d.nodes[0].postgres, options), d.base+300+i
		d.must(t, db, 1, "INSERT INTO orders (customer_id, id, note, data) VALUES ($1, 1, $2, $3)", k, text, blob)
		var gotText string
		var gotBlob []byte
		if err := db.QueryRowContext(t.Context(), "SELECT note, data FROM orders WHERE customer_id = $1", k).Scan(&gotText, &gotBlob); err != nil || gotText != text || !bytes.Equal(gotBlob, blob) {
			t.Fatalf("%d: %d and %d bytes, %v", k, len(gotText), len(gotBlob), err)
		}
	}
}

// A pool of eight connections that twice as many goroutines share.
func (d pqDriver) eight(t *testing.T) {
	db := d.connect(t)
	db.SetMaxOpenConns(8)
	db.SetMaxIdleConns(8)
	var wg sync.WaitGroup
	for n := range 16 {
		wg.Go(func() {
			for k := d.base + 1000 + n*100; k < d.base+1025+n*100; k++ {
				var note string
				_, err := db.ExecContext(t.Context(), insertOrder, k, 1, fmt.Sprint("note ", k))
				if err == nil {
					err = db.QueryRowContext(t.Context(), "SELECT note FROM orders WHERE customer_id = $1", k).Scan(&note)
				}
				if err != nil || note != fmt.Sprint("note ", k) {
					t.Errorf("%d: %q %v", k, note, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := db.Stats().OpenConnections; n != 8 {
		t.Errorf("%d connections", n)
	}
}
