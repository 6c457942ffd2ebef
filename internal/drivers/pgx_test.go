package drivers

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
)

const insertOrder = "INSERT INTO orders (customer_id, id, note) VALUES ($1, $2, $3)"

// pgxDriver is jackc/pgx.
type pgxDriver struct{ *account }

func testPgx(t *testing.T, a *account) {
	d := pgxDriver{a}
	eachStep(t, map[string]func(*testing.T){
		"connect": d.connects, "rows by key": d.rows, "transactions": d.transactions, "a prepared statement": d.prepared,
		"many prepared statements": d.manyPrepared, "batches": d.batches, "copy in": d.copyIn, "copy out": d.copyOut,
		"cancel":                      func(t *testing.T) { d.cancel(t, d.connect(t)) },
		"cancel through another node": func(t *testing.T) { d.cancel(t, d.connectTo(t, "127.0.0.1:"+d.balance(t))) },
		"listen":                      d.listen, "errors": d.errors, "binary results": d.binary, "types of one's own": d.ownTypes, "settings": d.settings,
		"large values": d.large, "eight connections": d.eight,
	})
}

func (d pgxDriver) connect(t *testing.T) *pgx.Conn { return d.connectTo(t, d.nodes[0].postgres) }

func (d pgxDriver) connectTo(t *testing.T, address string, options ...string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), d.dsn(address, options...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// must fails the test unless the statement works.
func (d pgxDriver) must(t *testing.T, conn *pgx.Conn, sql string, args ...any) pgconn.CommandTag {
	t.Helper()
	tag, err := conn.Exec(t.Context(), sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return tag
}

// want fails the test unless the query's first column is this.
func (d pgxDriver) want(t *testing.T, conn *pgx.Conn, want []string, sql string, args ...any) {
	t.Helper()
	rows, err := conn.Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	if got, err := pgx.CollectRows(rows, pgx.RowTo[string]); err != nil || !equal(got, want) {
		t.Fatalf("%s %v: %.500q (%v), want %.500q", sql, args, got, err, want)
	}
}

func equal(a, b []string) bool {
	return strings.Join(a, "\x00") == strings.Join(b, "\x00") && len(a) == len(b)
}

func wantPgError(t *testing.T, err error, code string) *pgconn.PgError {
	t.Helper()
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("error is %v, want SQLSTATE %s", err, code)
	}
	return e
}

func (d pgxDriver) connects(t *testing.T) {
	for _, options := range []string{"channel_binding=require", "sslnegotiation=direct", "max_protocol_version=3.2"} {
		conn := d.connectTo(t, d.nodes[0].postgres, options)
		d.want(t, conn, []string{"42"}, "SELECT '42'")
	}
	_, err := pgx.Connect(t.Context(), strings.Replace(d.dsn(d.nodes[0].postgres), "root.crt", "wrong.crt", 1))
	if err == nil || !strings.Contains(err.Error(), "certificate signed by unknown authority") {
		t.Errorf("under another authority: %v", err)
	}
	cfg, err := pgx.ParseConfig(d.dsn(d.nodes[0].postgres))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Password = "wrong"
	_, err = pgx.ConnectConfig(t.Context(), cfg)
	wantPgError(t, err, "28P01")
}

func (d pgxDriver) rows(t *testing.T) {
	conn := d.connect(t)
	d.must(t, conn, "CREATE TABLE things_pgx (id int PRIMARY KEY, name text)")
	for k := d.base; k < d.base+40; k++ {
		d.must(t, conn, insertOrder, k, 1, fmt.Sprint("note ", k))
	}
	for k := d.base; k < d.base+40; k++ {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
			d.want(t, conn, []string{fmt.Sprint("note ", k)}, "SELECT note FROM orders WHERE customer_id = $1", mode, int64(k))
		}
	}
	if tag := d.must(t, conn, "UPDATE orders SET note = 'changed' WHERE customer_id = $1", d.base); tag.String() != "UPDATE 1" {
		t.Error(tag)
	}
	if tag := d.must(t, conn, "DELETE FROM orders WHERE customer_id = $1", d.base+1); tag.String() != "DELETE 1" {
		t.Error(tag)
	}
	d.want(t, conn, []string{"changed"}, "SELECT note FROM orders WHERE customer_id = $1", d.base)
	d.want(t, conn, nil, "SELECT note FROM orders WHERE customer_id = $1", d.base+1)
}

func (d pgxDriver) transactions(t *testing.T) {
	ctx, conn, k := t.Context(), d.connect(t), d.base+100
	notes := "SELECT note FROM orders WHERE customer_id = $1 ORDER BY id"
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, insertOrder, k, 1, "committed")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.Serializable}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, insertOrder, k, 2, "rolled back"); err != nil {
			return err
		}
		d.want(t, conn, []string{"committed", "rolled back"}, notes, k)
		return stop
	})
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
	d.want(t, conn, []string{"committed"}, notes, k)

	tx, err := conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	d.must(t, conn, insertOrder, k, 3, "before the error")
	_, err = tx.Exec(ctx, "SELECT 1 / (customer_id - customer_id) FROM orders WHERE customer_id = $1", k)
	wantPgError(t, err, "22012")
	_, err = tx.Exec(ctx, "SELECT 1")
	wantPgError(t, err, "25P02")
	if err := tx.Commit(ctx); !errors.Is(err, pgx.ErrTxCommitRollback) {
		t.Errorf("the commit of a failed transaction: %v", err)
	}
	d.want(t, conn, []string{"committed"}, notes, k)

	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		d.must(t, conn, insertOrder, k, 4, "kept")
		err := pgx.BeginFunc(ctx, tx, func(savepoint pgx.Tx) error {
			d.must(t, conn, insertOrder, k, 5, "undone")
			_, err := savepoint.Exec(ctx, insertOrder, k, 4, "twice")
			return err
		})
		wantPgError(t, err, "23505")
		d.must(t, conn, insertOrder, k, 6, "kept too")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	d.want(t, conn, []string{"committed", "kept", "kept too"}, notes, k)
	if status := conn.PgConn().TxStatus(); status != 'I' {
		t.Errorf("the session says %q", status)
	}
}

func (d pgxDriver) prepared(t *testing.T) {
	conn := d.connect(t)
	if _, err := conn.Prepare(t.Context(), "by key", "SELECT note FROM orders WHERE customer_id = $1"); err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		k := d.base + 2 + i%38
		d.want(t, conn, []string{fmt.Sprint("note ", k)}, "by key", k)
	}
	if err := conn.Deallocate(t.Context(), "by key"); err != nil {
		t.Fatal(err)
	}
	_, err := conn.PgConn().ExecPrepared(t.Context(), "by key", [][]byte{[]byte("1")}, nil, nil).Close()
	wantPgError(t, err, "26000")
}

func (d pgxDriver) manyPrepared(t *testing.T) {
	conn := d.connect(t)
	for i := range 30 {
		if _, err := conn.Prepare(t.Context(), fmt.Sprint("s", i), fmt.Sprintf("SELECT note || ' %d' FROM orders WHERE customer_id = $1", i)); err != nil {
			t.Fatal(err)
		}
	}
	for turn := range 3 {
		for i := range 30 {
			k := d.base + 2 + (i+turn)%38
			d.want(t, conn, []string{fmt.Sprintf("note %d %d", k, i)}, fmt.Sprint("s", i), k)
		}
	}
	if err := conn.DeallocateAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Prepare(t.Context(), "s1", "SELECT '1'"); err != nil {
		t.Fatal(err)
	}
	d.want(t, conn, []string{"1"}, "s1")
}

func (d pgxDriver) batches(t *testing.T) {
	ctx, conn := t.Context(), d.connect(t)
	batch := new(pgx.Batch)
	for i := range 300 {
		batch.Queue("INSERT INTO things_pgx VALUES ($1, $2)", i, fmt.Sprint("thing ", i))
		batch.Queue("SELECT name FROM things_pgx WHERE id = $1", i).QueryRow(func(row pgx.Row) error {
			var name string
			if err := row.Scan(&name); err != nil || name != fmt.Sprint("thing ", i) {
				return fmt.Errorf("thing %d is %q, %w", i, name, err)
			}
			return nil
		})
	}
	if err := conn.SendBatch(ctx, batch).Close(); err != nil {
		t.Fatal(err)
	}
	failing := new(pgx.Batch)
	failing.Queue("UPDATE things_pgx SET name = 'lost' WHERE id = 1")
	failing.Queue("INSERT INTO things_pgx VALUES (1, 'twice')")
	failing.Queue("UPDATE things_pgx SET name = 'never' WHERE id = 1")
	wantPgError(t, conn.SendBatch(ctx, failing).Close(), "23505")
	d.want(t, conn, []string{"thing 1"}, "SELECT name FROM things_pgx WHERE id = 1")

	// A batch is one transaction up to its Sync: it cannot be on two shards. A pipeline with a Sync after each statement can.
	pipeline := conn.PgConn().StartPipeline(ctx)
	for k := d.base + 2; k < d.base+40; k++ {
		pipeline.SendQueryParams("SELECT note FROM orders WHERE customer_id = $1", [][]byte{fmt.Append(nil, k)}, nil, nil, nil)
		if err := pipeline.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	for k := d.base + 2; k < d.base+40; k++ {
		got, err := pipeline.GetResults()
		if err != nil {
			t.Fatal(err)
		}
		if r := got.(*pgconn.ResultReader).Read(); r.Err != nil || string(r.Rows[0][0]) != fmt.Sprint("note ", k) {
			t.Fatalf("%d: %q %v", k, r.Rows, r.Err)
		}
		if got, err := pipeline.GetResults(); err != nil || reflect.TypeOf(got) != reflect.TypeFor[*pgconn.PipelineSync]() {
			t.Fatalf("%T %v", got, err)
		}
	}
	if err := pipeline.Close(); err != nil {
		t.Fatal(err)
	}
	across := new(pgx.Batch)
	for k := d.base + 2; k < d.base+40; k++ {
		across.Queue("UPDATE orders SET note = 'lost' WHERE customer_id = $1", k)
	}
	if e := wantPgError(t, conn.SendBatch(ctx, across).Close(), "0A000"); e.Hint == "" {
		t.Errorf("no hint: %+v", e)
	}
	for k := d.base + 2; k < d.base+40; k++ {
		d.want(t, conn, []string{fmt.Sprint("note ", k)}, "SELECT note FROM orders WHERE customer_id = $1", k)
	}
}

func (d pgxDriver) copyIn(t *testing.T) {
	ctx, conn := t.Context(), d.connect(t)
	d.must(t, conn, "TRUNCATE things_pgx")
	n, err := conn.CopyFrom(ctx, pgx.Identifier{"things_pgx"}, []string{"id", "name"}, pgx.CopyFromSlice(2000, func(i int) ([]any, error) {
		return []any{i, awkward(i)}, nil
	}))
	if n != 2000 || err != nil {
		t.Fatal(n, err)
	}
	_, err = conn.CopyFrom(ctx, pgx.Identifier{"things_pgx"}, []string{"id", "name"}, pgx.CopyFromRows([][]any{{3000, "fine"}, {1, "twice"}}))
	wantPgError(t, err, "23505")
	_, err = conn.CopyFrom(ctx, pgx.Identifier{"things_pgx"}, []string{"id", "name"}, pgx.CopyFromSlice(2, func(i int) ([]any, error) {
		if i == 1 {
			return nil, errors.New("given up")
		}
		return []any{3001, nil}, nil
	}))
	if err == nil || !strings.Contains(err.Error(), "given up") {
		t.Errorf("a copy that was given up: %v", err)
	}
	d.want(t, conn, []string{"2000"}, "SELECT count(*)::text FROM things_pgx")
}

func (d pgxDriver) copyOut(t *testing.T) {
	conn := d.connect(t)
	var out bytes.Buffer
	tag, err := conn.PgConn().CopyTo(t.Context(), &out, "COPY (SELECT id, name FROM things_pgx ORDER BY id) TO STDOUT")
	if err != nil || tag.String() != "COPY 2000" {
		t.Fatal(tag, err)
	}
	escape := strings.NewReplacer("\\", `\\`, "\t", `\t`, "\r", `\r`, "\n", `\n`)
	for i, line := range strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n") {
		want := fmt.Sprintf("%d\t\\N", i)
		if text := awkward(i); text != nil {
			want = fmt.Sprintf("%d\t%s", i, escape.Replace(*text))
		}
		if line != want {
			t.Fatalf("line %d is %q, want %q", i, line, want)
		}
	}
	rows, err := conn.Query(t.Context(), "SELECT name FROM things_pgx ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[*string])
	if err != nil || len(names) != 2000 {
		t.Fatal(len(names), err)
	}
	for i, name := range names {
		if want := awkward(i); (name == nil) != (want == nil) || name != nil && *name != *want {
			t.Fatalf("row %d", i)
		}
	}
}

// cancel cancels a statement that runs, and shows that the session lives on.
func (d pgxDriver) cancel(t *testing.T, conn *pgx.Conn) {
	slow, other := "SELECT pg_sleep(60) FROM one -- pgx", d.connect(t)
	ended := make(chan error, 1)
	go func() {
		_, err := conn.Exec(t.Context(), slow)
		ended <- err
	}()
	pgtest.Eventually(t, 20*time.Second, func() error {
		var n int
		if err := other.QueryRow(t.Context(), "SELECT count(*) FROM running WHERE query = $1", slow).Scan(&n); err != nil || n != 1 {
			return fmt.Errorf("%d run, %v", n, err)
		}
		return nil
	})
	if err := conn.PgConn().CancelRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		wantPgError(t, err, "57014")
	case <-time.After(20 * time.Second):
		t.Fatal("it was not canceled")
	}
	d.want(t, conn, []string{fmt.Sprint("note ", d.base+2)}, "SELECT note FROM orders WHERE customer_id = $1", d.base+2)
}

func (d pgxDriver) listen(t *testing.T) {
	conn, other := d.connect(t), d.connect(t)
	d.must(t, conn, "LISTEN pgx")
	d.must(t, other, "NOTIFY pgx, 'hello é'")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if n, err := conn.WaitForNotification(ctx); err != nil || n.Channel != "pgx" || n.Payload != "hello é" {
		t.Fatal(n, err)
	}
	d.must(t, conn, "UNLISTEN pgx")
}

func (d pgxDriver) errors(t *testing.T) {
	cfg, err := pgx.ParseConfig(d.dsn(d.nodes[0].postgres))
	if err != nil {
		t.Fatal(err)
	}
	var notices []string
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices = append(notices, n.Severity+": "+n.Message) }
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	of := func(code, sql string, args ...any) *pgconn.PgError {
		_, err := conn.Exec(t.Context(), sql, args...)
		return wantPgError(t, err, code)
	}
	if e := of("23505", insertOrder, d.base+2, 1, ""); e.ConstraintName != "orders_pkey" || e.TableName != "orders" || e.Detail != fmt.Sprintf("Key (customer_id, id)=(%d, 1) already exists.", d.base+2) {
		t.Errorf("%+v", e)
	}
	if e := of("42601", "SELCT 1"); e.Message != `syntax error at or near "SELCT"` || e.Position != 1 {
		t.Errorf("%+v", e)
	}
	if e := of("42703", "SELECT nothing FROM one"); e.Position != 8 {
		t.Errorf("%+v", e)
	}
	if e := of("0A000", "UPDATE orders SET note = 'all' WHERE id = 0"); !strings.Contains(e.Hint, "customer_id") {
		t.Errorf("%+v", e)
	}
	d.must(t, conn, "DROP TABLE IF EXISTS not_there")
	if !equal(notices, []string{`NOTICE: table "not_there" does not exist, skipping`}) {
		t.Errorf("notices %q", notices)
	}
}

func (d pgxDriver) ownTypes(t *testing.T) {
	conn := d.connect(t)
	for _, name := range []string{"mood", "mood[]", "feeling"} {
		typ, err := conn.LoadType(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		conn.TypeMap().RegisterType(typ)
	}
	type feeling struct {
		M string
		N int32
	}
	for k := d.base + 400; k < d.base+420; k++ {
		d.must(t, conn, "INSERT INTO felt (customer_id, id, m, l, p) VALUES ($1, 1, $2, $3, $4)", k, "happy", []string{"sad", "happy"}, feeling{"ok", int32(k)})
	}
	for k := d.base + 400; k < d.base+420; k++ {
		var m string
		var l []string
		var p feeling
		err := conn.QueryRow(t.Context(), "SELECT m, l, p FROM felt WHERE customer_id = $1", k).Scan(&m, &l, &p)
		if err != nil || m != "happy" || !slices.Equal(l, []string{"sad", "happy"}) || p != (feeling{"ok", int32(k)}) {
			t.Errorf("%d: %v %v %v %v", k, m, l, p, err)
		}
	}
}

func (d pgxDriver) binary(t *testing.T) {
	conn, at := d.connect(t), time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)
	for range 2 {
		rows, err := conn.Query(t.Context(), "SELECT customer_id, 1.5::float8, true, $2::timestamptz, $3::uuid, $4::int[], $5::bytea, NULL::text FROM orders WHERE customer_id = $1",
			d.base+2, at, [16]byte{15: 7}, []int32{1, 2, 3}, []byte{0, 255})
		if err != nil {
			t.Fatal(err)
		}
		type record struct {
			K     int64
			F     float64
			B     bool
			At    time.Time
			ID    [16]byte
			List  []int32
			Bytes []byte
			Null  *string
		}
		got, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[record])
		if err != nil {
			t.Fatal(err)
		}
		got.At = got.At.UTC()
		if want := (record{int64(d.base + 2), 1.5, true, at, [16]byte{15: 7}, []int32{1, 2, 3}, []byte{0, 255}, nil}); !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		for _, f := range rows.FieldDescriptions()[:6] {
			if f.Format != pgx.BinaryFormatCode {
				t.Errorf("column %s came as text", f.Name)
			}
		}
	}
}

func (d pgxDriver) settings(t *testing.T) {
	conn, other := d.connectTo(t, d.nodes[0].postgres, "statement_timeout=12345"), d.connect(t)
	d.want(t, conn, []string{"12345ms"}, "SHOW statement_timeout")
	d.must(t, conn, "CREATE SCHEMA pgx_schema CREATE TABLE mine (v text)")
	d.must(t, conn, "SET search_path = pgx_schema, public; SET TIME ZONE 'Asia/Tokyo'")
	d.must(t, conn, "INSERT INTO mine VALUES ('seen')")
	const settings = "SELECT current_setting('search_path') || ' ' || current_setting('TimeZone') FROM orders WHERE customer_id = $1"
	for k := d.base + 2; k < d.base+12; k++ {
		d.want(t, conn, []string{"pgx_schema, public Asia/Tokyo"}, settings, k)
		d.want(t, other, []string{`"$user", public UTC`}, settings, k)
	}
	d.want(t, conn, []string{"seen"}, "SELECT v FROM mine")
	if got := conn.PgConn().ParameterStatus("TimeZone"); got != "Asia/Tokyo" {
		t.Errorf("the driver knows TimeZone %q", got)
	}
	err := pgx.BeginFunc(t.Context(), conn, func(pgx.Tx) error {
		d.must(t, conn, "SET LOCAL TIME ZONE 'Europe/Paris'")
		d.want(t, conn, []string{"Europe/Paris"}, "SHOW TimeZone")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	d.want(t, conn, []string{"Asia/Tokyo"}, "SHOW TimeZone")
	d.must(t, conn, "RESET ALL")
	d.want(t, conn, []string{`"$user", public`}, "SHOW search_path")
}

func (d pgxDriver) large(t *testing.T) {
	conn, text, blob := d.connect(t), strings.Repeat("é", 1<<19), make([]byte, 1<<20)
	_, _ = rand.Read(blob)
	for k := d.base + 300; k < d.base+303; k++ {
		d.must(t, conn, "INSERT INTO orders (customer_id, id, note, data) VALUES ($1, 1, $2, $3)", k, text, blob)
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeSimpleProtocol} {
			var gotText string
			var gotBlob []byte
			if err := conn.QueryRow(t.Context(), "SELECT note, data FROM orders WHERE customer_id = $1", mode, k).Scan(&gotText, &gotBlob); err != nil || gotText != text || !bytes.Equal(gotBlob, blob) {
				t.Fatalf("%d: %d and %d bytes, %v", k, len(gotText), len(gotBlob), err)
			}
		}
	}
}

func (d pgxDriver) eight(t *testing.T) {
	var wg sync.WaitGroup
	for n := range 8 {
		conn := d.connect(t)
		wg.Go(func() {
			for k := d.base + 1000 + n*100; k < d.base+1025+n*100; k++ {
				var note string
				_, err := conn.Exec(t.Context(), insertOrder, k, 1, fmt.Sprint("note ", k))
				if err == nil {
					err = conn.QueryRow(t.Context(), "SELECT note FROM orders WHERE customer_id = $1", k).Scan(&note)
				}
				if err != nil || note != fmt.Sprint("note ", k) {
					t.Errorf("%d: %q %v", k, note, err)
					return
				}
			}
		})
	}
	wg.Wait()
}
