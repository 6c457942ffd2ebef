package wire_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
	"rangefinder/wire"
	"rangefinder/wire/pg"
)

// ownShards starts servers for a test that harms them.
func ownShards(t *testing.T, n int) []shardServers {
	t.Helper()
	out := make([]shardServers, n)
	for i := range out {
		out[i].primary = pgtest.NewPrimary(t, pgtest.Options{})
		out[i].replica = pgtest.NewReplica(t, out[i].primary, pgtest.Options{})
	}
	return out
}

// The closest replica dies under load: plain reads that have not answered yet go on elsewhere, so nobody sees an error.
func TestClosestReplicaKilled(t *testing.T) {
	shards := ownShards(t, 1)
	r := newRig(t, rigOptions{shards: shards})
	ctx := ctxOf(t)
	load := r.connect(pgx.QueryExecModeExec)
	for k := range 50 {
		if _, err := load.Exec(ctx, "INSERT INTO orders (customer_id, id, item) VALUES ($1, 1, $2)", k, fmt.Sprint(k)); err != nil {
			t.Fatal(err)
		}
	}
	if err := shards[0].replica.CaughtUp(ctx); err != nil {
		t.Fatal(err)
	}
	var reads, wrong, failed, after atomic.Int64
	var killed atomic.Bool
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		conn := r.connect(pgx.QueryExecModeCacheStatement)
		if _, err := conn.Exec(ctx, "SET work_mem = '5MB'"); err != nil { // so the next backend has something to be told first
			t.Fatal(err)
		}
		wg.Go(func() {
			for k := 0; ; k = (k + 1) % 50 {
				select {
				case <-stop:
					return
				default:
				}
				var item string
				dead := killed.Load()
				err := conn.QueryRow(ctx, "SELECT item FROM orders WHERE customer_id = $1", k).Scan(&item)
				switch {
				case err != nil:
					failed.Add(1)
					t.Logf("read: %v", err)
				case item != fmt.Sprint(k):
					wrong.Add(1)
				case dead:
					after.Add(1)
				default:
					reads.Add(1)
				}
			}
		})
	}
	pgtest.Eventually(t, patience, func() error {
		if reads.Load() < 500 {
			return errors.New("too few reads")
		}
		return nil
	})
	if err := shards[0].replica.Kill(); err != nil {
		t.Fatal(err)
	}
	killed.Store(true)
	pgtest.Eventually(t, patience, func() error {
		if after.Load() < 500 {
			return errors.New("reads do not go on")
		}
		return nil
	})
	close(stop)
	wg.Wait()
	if wrong.Load() != 0 || failed.Load() != 0 {
		t.Errorf("%d wrong answers, %d errors; %d reads before, %d after", wrong.Load(), failed.Load(), reads.Load(), after.Load())
	}
}

// A write whose backend dies under it is answered by an error that says that its fate is unknown; it is never sent twice.
func TestWriteLost(t *testing.T) {
	shards := ownShards(t, 1)
	r := newRig(t, rigOptions{shards: shards})
	conn := r.connect(pgx.QueryExecModeExec)
	done := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "INSERT INTO notes SELECT 1, pg_sleep(20)::text")
		done <- err
	}()
	pgtest.Eventually(t, patience, func() error {
		c, err := shards[0].primary.Conn(ctxOf(t))
		if err != nil {
			return err
		}
		defer c.Close(context.Background())
		var n int
		if err := c.QueryRow(ctxOf(t), "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO notes%' AND state = 'active'").Scan(&n); err != nil || n == 1 {
			return err
		}
		return errors.New("the statement does not run yet")
	})
	if err := shards[0].primary.Kill(); err != nil {
		t.Fatal(err)
	}
	var pe *pgconn.PgError
	if err := <-done; !errors.As(err, &pe) || pe.Code != "08007" || !strings.Contains(pe.Message, "unknown") {
		t.Errorf("got %v", err)
	}
	// The session lives on. Its look whether the write took effect is for who may know; others find the replica, and so does who asks for any copy.
	const read = "SELECT count(*) FROM notes"
	if pe := pgErr(t, conn, read); pe.Code != "57P03" || !strings.Contains(pe.Hint, "has to see what the session wrote") {
		t.Errorf("a look while there is no primary: %s %s %s", pe.Code, pe.Message, pe.Hint)
	}
	pgtest.Eventually(t, patience, func() error {
		_, err := r.connect(pgx.QueryExecModeExec).Exec(ctxOf(t), read)
		return err
	})
	if _, err := conn.Exec(ctxOf(t), "SET rangefinder.read_consistency = 'eventual'"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(ctxOf(t), read); err != nil {
		t.Errorf("a read of any copy: %v", err)
	}
	if pe := pgErr(t, conn, "INSERT INTO notes VALUES (1, 'x')"); pe.Code != "57P03" || pe.Hint == "" {
		t.Errorf("a write without a primary: %s %s", pe.Code, pe.Message)
	}
}

// A transaction whose backend dies is over, and its client is told so as of any failed transaction.
func TestTransactionLost(t *testing.T) {
	shards := ownShards(t, 1)
	r := newRig(t, rigOptions{shards: shards})
	conn := r.connect(pgx.QueryExecModeExec)
	tx, err := conn.Begin(ctxOf(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctxOf(t), "INSERT INTO notes VALUES (1, 'x')"); err != nil {
		t.Fatal(err)
	}
	if err := shards[0].primary.Kill(); err != nil {
		t.Fatal(err)
	}
	// Who prepares nothing hears of it, or the next one does.
	var told *pgconn.PgError
	if _, err := conn.PgConn().Prepare(ctxOf(t), "", "", nil); !errors.As(err, &told) {
		told = pgErr(t, conn, "INSERT INTO notes VALUES (2, 'x')")
	}
	if told.Code != "08006" || !strings.Contains(told.Message, "rolled back") {
		t.Errorf("%s %s", told.Code, told.Message)
	}
	if pe := pgErr(t, conn, "SELECT 1"); pe.Code != "25P02" {
		t.Errorf("%s %s", pe.Code, pe.Message)
	}
	if tag, err := conn.Exec(ctxOf(t), "COMMIT"); err != nil || tag.String() != "ROLLBACK" {
		t.Errorf("COMMIT: %v %v", tag, err)
	}
	if s := conn.PgConn().TxStatus(); s != 'I' {
		t.Errorf("status %c", s)
	}
}

// A server is lost while it commits: whatever the COMMIT was sent with, nobody knows whether it took effect, and nobody says that it did not. Of a
// block that was to be rolled back, or that goes on, all is gone.
func TestLostWhileItCommits(t *testing.T) {
	r := newRig(t, rigOptions{})
	admin, err := servers(t)[0].primary.ConnTo(ctxOf(t), "app", "postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.Background())
	for _, sql := range []string{
		"CREATE TABLE slow (a int)", "GRANT ALL ON slow TO app",
		"CREATE FUNCTION sleepy() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(600); RETURN NULL; END'",
		"CREATE CONSTRAINT TRIGGER sleepy AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION sleepy()",
	} {
		if _, err := admin.Exec(ctxOf(t), sql); err != nil {
			t.Fatal(err)
		}
	}
	defer admin.Exec(context.Background(), "DROP TABLE slow; DROP FUNCTION sleepy")
	begin, insert, sleep := simple("BEGIN"), "INSERT INTO slow VALUES (1)", "SELECT pg_sleep(600)"
	for name, c := range map[string]struct {
		before []byte
		last   []byte
		code   string
	}{
		"a query":                        {msg(begin, simple(insert)), simple("COMMIT"), "08007"},
		"a text, last":                   {begin, simple(insert + "; COMMIT"), "08007"},
		"a text, first":                  {msg(begin, simple(insert)), simple("COMMIT; SELECT 1"), "08007"},
		"a text with a block in it":      {nil, simple("BEGIN; " + insert + "; COMMIT; SELECT 1"), "08007"},
		"a message":                      {msg(begin, simple(insert)), msg(extended("COMMIT"), syncs()), "08007"},
		"a pipeline, first":              {msg(begin, simple(insert)), msg(extended("COMMIT"), extended("SELECT 1"), syncs()), "08007"},
		"a pipeline with a block in it":  {nil, msg(extended("BEGIN"), extended(insert), extended("COMMIT"), extended("SELECT 1"), syncs()), "08007"},
		"a pipeline before it":           {begin, msg(extended(insert), extended(sleep), extended("COMMIT"), syncs()), "08007"},
		"no COMMIT, but a ROLLBACK":      {msg(begin, simple(insert)), msg(extended(sleep), extended("ROLLBACK"), syncs()), "08006"},
		"no COMMIT":                      {msg(begin, simple(insert)), simple(sleep), "08006"},
		"a COMMIT that was before":       {begin, msg(extended("COMMIT"), extended("BEGIN"), extended(insert), extended(sleep), syncs()), "08006"},
		"a COMMIT before in a text":      {begin, simple("COMMIT; BEGIN; " + insert + "; " + sleep), "08006"},
		"nothing but implicit ones":      {nil, simple(insert), "08007"},
		"a write behind a COMMIT":        {begin, msg(extended("SELECT 1"), extended("COMMIT"), extended(insert), syncs()), "08007"},
		"a query, behind a Flush":        {msg(begin, extended(insert), flush()), simple("COMMIT"), "08007"},
		"a message, all behind a Flush":  {msg(extended("BEGIN"), flush(), extended(insert), flush()), msg(extended("COMMIT"), flush(), syncs()), "08007"},
		"a ROLLBACK, then a lasting one": {msg(begin, simple(insert)), simple("ROLLBACK; " + sleep + "; COMMIT"), "08007"},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := inState(ctxOf(t), r.addr, "app", nil, sessionState{send: msg(c.before, c.last)})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			pgtest.Eventually(t, patience, func() error {
				var ended int
				err := admin.QueryRow(ctxOf(t), "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = 'app'").Scan(&ended)
				if err == nil && ended == 0 {
					err = errors.New("nobody sleeps")
				}
				return err
			})
			answers, code, status := pgproto3.NewFrontend(conn, conn), "", byte(0)
			for status == 0 {
				m, err := answers.Receive()
				if err != nil {
					t.Fatal(err)
				}
				switch m := m.(type) {
				case *pgproto3.ErrorResponse:
					code = m.Code
				case *pgproto3.ReadyForQuery:
					if code != "" {
						status = m.TxStatus
					}
				}
			}
			if code != c.code {
				t.Errorf("the client is told %s, not %s", code, c.code)
			}
			if want := map[bool]byte{true: 'I', false: 'E'}[code == "08007" || strings.Contains(name, "ROLLBACK")]; status != want {
				t.Errorf("the client's block has status %c, not %c", status, want)
			}
		})
	}
}

// A read that turns out to write meets a replica's refusal; nothing took effect, so the primary gets it.
func TestReadThatWrites(t *testing.T) {
	r := newRig(t, rigOptions{})
	ctx := ctxOf(t)
	admin, err := servers(t)[0].primary.ConnTo(ctx, "app", "postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.Background())
	for _, sql := range []string{
		"CREATE SEQUENCE s", "CREATE VIEW v AS SELECT nextval('s') AS n", "GRANT ALL ON s, v TO app",
	} {
		if _, err := admin.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	if err := servers(t)[0].replica.CaughtUp(ctx); err != nil {
		t.Fatal(err)
	}
	for name, mode := range allModes {
		t.Run(name, func(t *testing.T) {
			var n int
			if err := r.connect(mode).QueryRow(ctx, "SELECT n FROM v").Scan(&n); err != nil || n == 0 {
				t.Errorf("%d %v", n, err)
			}
		})
	}
}

// A server that answers with something else than PostgreSQL's protocol costs its client one error, and nobody else anything.
func TestGarbageFromTheServer(t *testing.T) {
	for name, answer := range map[string]string{
		"noise":             "\x00\x01\x02\x03\x04\x05\x06\x07",
		"negative length":   "C\xff\xff\xff\xff",
		"huge frame":        "C\x3f\xff\xff\xff",
		"closed mid-answer": "",
		"unasked ready":     "1\x00\x00\x00\x04Z\x00\x00\x00\x05I",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, rigOptions{backends: fakeAlone(fakeServer(t, fakeSystemID, firstRequest, pgtest.SendBytes([]byte(answer))))})
			conn := r.connect(pgx.QueryExecModeSimpleProtocol)
			var pe *pgconn.PgError
			_, err := conn.Exec(ctxOf(t), "INSERT INTO notes VALUES (1, 'x')")
			if !errors.As(err, &pe) || pe.Code != "08007" {
				t.Errorf("got %v", err)
			}
			if conn.IsClosed() {
				t.Error("the client's connection was closed")
			}
		})
	}
}

// A backend that takes connections and says nothing costs a new client some of its time to log in, not the login.
func TestLoginPastASilentBackend(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts: the kernel does, and nothing ever comes
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	r := newRig(t, rigOptions{startup: 9 * time.Second}) // a third of it is for one backend
	for i, s := range servers(t) {                       // as close as the replica, and before it by name
		shard := fmt.Sprintf("shard_%d", i+1)
		r.announce(rib.Backend{Name: shard + "-a-silent", Shard: shard, Region: "fra", Addr: silent.Addr().String(), SystemID: s.primary.SystemID()}, rib.Replica)
	}
	pgtest.Eventually(t, patience, func() error {
		for _, hop := range r.handle.Load().Slot("shard_1").Candidates().Reads {
			if hop.Backend.Name == "shard_1-a-silent" {
				return nil
			}
		}
		return errors.New("the silent backend is not known yet")
	})
	r.connect(pgx.QueryExecModeExec)
}

// A server that sends half a row and closes, or nothing more, takes its client's session along, or only its statement; others go on.
func TestServerStopsInTheMiddleOfARow(t *testing.T) {
	half := append(pg.AppendRowDescription(nil, []pg.Field{{Name: "x"}}), 'D', 0, 0, 0x40, 0, 0, 1, 0, 0, 0x3f, 0, 'x')
	for name, last := range map[string]pgtest.Step{"closes": pgtest.Close(), "resets": pgtest.Reset(), "hangs": pgtest.Hang()} {
		t.Run(name, func(t *testing.T) {
			fake := fakeServer(t, fakeSystemID, func(c *pgtest.FakeConn, sql string, status byte) error {
				if !strings.Contains(sql, "halves") {
					return answered(c, sql, status)
				}
				if err := pgtest.SendBytes(half)(c); err != nil {
					return err
				}
				return errStop
			}, last)
			r := newRig(t, rigOptions{limits: wire.Limits{Timeouts: wire.Timeouts{Statement: 300 * time.Millisecond}}, backends: fakeAlone(fake)})
			other := r.connect(pgx.QueryExecModeSimpleProtocol)
			conn := pgtest.Hijack(ctxOf(t), t, r.connect(pgx.QueryExecModeSimpleProtocol).PgConn())
			if _, err := conn.Write(pg.AppendQuery(nil, "SELECT x FROM halves")); err != nil {
				t.Fatal(err)
			}
			if name == "hangs" { // a cancel request is all that can be done for who waits
				pgtest.Eventually(t, patience, func() error {
					if fake.Cancels() == 0 {
						return errors.New("the server was not asked to cancel it")
					}
					return nil
				})
				conn.Close()
			} else {
				conn.SetReadDeadline(time.Now().Add(patience))
				if _, err := io.ReadAll(conn); err != nil {
					t.Errorf("it does not end: %v", err)
				}
			}
			r.busy(t, 0)
			if _, err := other.Exec(ctxOf(t), "SHOW something"); err != nil {
				t.Errorf("another session: %v", err)
			}
		})
	}
}
