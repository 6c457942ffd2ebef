package wire_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
)

// Many sessions share two connections to each backend while backends' processes and clients die under them: no session ever
// sees anything of another's, no write is lost or done twice, and in the end nothing is left open.
func TestManySessionsOnFewConnections(t *testing.T) {
	shards := ownShards(t, 1)
	r := newRig(t, rigOptions{shards: shards, poolSize: 2})
	admin, err := shards[0].primary.ConnTo(ctxOf(t), "app", "postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.Background())
	const (
		sessions   = 12
		operations = 100 // of each session
		opsPerKill = 16  // of all sessions
	)
	for i := range sessions {
		if _, err := admin.Exec(ctxOf(t), "INSERT INTO orders VALUES ($1, 0, '0')", i); err != nil {
			t.Fatal(err)
		}
	}
	if err := shards[0].replica.CaughtUp(ctxOf(t)); err != nil {
		t.Fatal(err)
	}
	// Deaths come by the number of operations, so that a slow machine sees as many of them as a fast one.
	var kills atomic.Int64
	kill := func() {
		for _, s := range []*pgtest.Server{shards[0].primary, shards[0].replica} {
			conn, err := s.Conn(ctxOf(t))
			if err != nil {
				t.Error(err)
				continue
			}
			tag, err := conn.Exec(ctxOf(t), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' ORDER BY random() LIMIT 1")
			if err != nil {
				t.Error(err)
			}
			kills.Add(tag.RowsAffected())
			conn.Close(ctxOf(t))
		}
	}
	var wg sync.WaitGroup
	var ops, lost atomic.Int64
	tellers := make([]*teller, sessions)
	for i := range sessions {
		tl := &teller{t: t, r: r, id: i, rnd: rand.New(rand.NewPCG(1, uint64(i))), lost: &lost}
		tellers[i] = tl
		wg.Go(func() {
			for range operations {
				tl.operate()
				if ops.Add(1)%opsPerKill == 0 {
					kill() // while the others go on
				}
			}
		})
	}
	wg.Wait()
	for _, tl := range tellers {
		if tl.conn != nil {
			tl.conn.Close(context.Background())
		}
		var n int
		if err := admin.QueryRow(ctxOf(t), "SELECT item::int FROM orders WHERE customer_id = $1 AND id = 0", tl.id).Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n < tl.done || n > tl.done+tl.unknown {
			t.Errorf("session %d: the counter is %d after %d increments that were acknowledged and %d whose fate is unknown", tl.id, n, tl.done, tl.unknown)
		}
	}
	t.Logf("%d operations, %d of them lost by %d kills", ops.Load(), lost.Load(), kills.Load())
	if n := kills.Load(); n < sessions*operations/opsPerKill || lost.Load() > n {
		t.Errorf("%d operations were lost by %d kills", lost.Load(), n)
	}
	pgtest.Eventually(t, patience, func() error {
		if n := r.server.Stats().Clients; n != 0 {
			return fmt.Errorf("%d clients are left", n)
		}
		for _, s := range r.pools.Stats() {
			if s.InUse != 0 || s.Waiting != 0 {
				return fmt.Errorf("pool of %s: %d in use, %d waiting", s.Backend, s.InUse, s.Waiting)
			}
		}
		var open, all int
		err := admin.QueryRow(ctxOf(t), "SELECT count(*) FILTER (WHERE state <> 'idle'), count(*) FROM pg_stat_activity WHERE usename = 'app'").Scan(&open, &all)
		if err == nil && (open != 0 || all > 2) {
			err = fmt.Errorf("%d server connections, %d of them not idle", all, open)
		}
		return err
	})
}

// teller is one client of the stress test and what it knows of its own session.
type teller struct {
	t       *testing.T
	r       *rig
	id      int
	rnd     *rand.Rand
	lost    *atomic.Int64
	conn    *pgx.Conn
	style   string // DateStyle
	limit   string // statement_timeout
	done    int    // increments that were acknowledged
	unknown int    // increments that may have been done
}

// operate does one thing, as a client that connects anew when it has lost its connection.
func (tl *teller) operate() {
	for tries := 0; tl.conn == nil || tl.conn.IsClosed(); tries++ {
		if tries == 200 { // more often than backends are killed
			tl.t.Errorf("session %d cannot connect", tl.id)
			return
		}
		tl.connect()
	}
	err := tl.step(context.Background(), tl.rnd.IntN(9))
	var pe *pgconn.PgError
	switch {
	case err == nil:
	case tl.conn.IsClosed():
		tl.lost.Add(1)
	case errors.As(err, &pe) && (pe.Code == "57P01" || pe.Code == "08006" || pe.Code == "08007" || pe.Code == "57P03"):
		tl.lost.Add(1)
		if tl.conn.PgConn().TxStatus() != 'I' {
			if _, err := tl.conn.Exec(context.Background(), "ROLLBACK"); err != nil {
				tl.t.Errorf("session %d: ROLLBACK: %v", tl.id, err)
			}
		}
	default:
		tl.t.Errorf("session %d: %v", tl.id, err)
	}
	if s := tl.conn.PgConn().TxStatus(); !tl.conn.IsClosed() && s != 'I' {
		tl.t.Errorf("session %d is left in status %c", tl.id, s)
		tl.conn.Close(context.Background())
	}
}

func (tl *teller) connect() {
	cfg, err := pgx.ParseConfig(tl.r.dsn())
	if err != nil {
		tl.t.Error(err)
		return
	}
	tl.style, tl.limit = [...]string{"ISO, MDY", "ISO, DMY"}[tl.id%2], fmt.Sprintf("%ds", 100+tl.id)
	cfg.RuntimeParams["datestyle"] = tl.style
	conn, err := pgx.ConnectConfig(context.Background(), cfg)
	if err != nil {
		return // a backend was killed while the node asked it what a client finds there
	}
	if _, err := conn.Exec(context.Background(), "SET statement_timeout = '"+tl.limit+"'"); err != nil {
		conn.Close(context.Background())
		return
	}
	tl.conn = conn
}

// step does one thing and checks the answer. A wrong answer is the test's error; the error returned is the server's.
func (tl *teller) step(ctx context.Context, what int) error {
	is := func(what, want string, sql string, args ...any) error {
		var got string
		err := tl.conn.QueryRow(ctx, sql, args...).Scan(&got)
		if err == nil && got != want {
			tl.t.Errorf("session %d: %s is %q, want %q", tl.id, what, got, want)
		}
		return err
	}
	switch what {
	case 0:
		return is("the setting", tl.limit, "SELECT current_setting('statement_timeout')")
	case 1: // one text, two meanings
		want := "2020-01-02"
		if tl.id%2 == 1 {
			want = "2020-02-01"
		}
		return is("the date", want, "SELECT '01/02/2020'::date::text")
	case 2: // texts that few sessions share, more of them than a connection has use for
		n := tl.rnd.IntN(50)
		return is("the sum", fmt.Sprint(n+7), fmt.Sprintf("SELECT ($1::int + %d)::text", n), 7)
	case 3:
		_, err := tl.conn.Exec(ctx, "SELECT 1/(customer_id - $1) FROM orders WHERE customer_id = $1", tl.id)
		var pe *pgconn.PgError
		if errors.As(err, &pe) && pe.Code == "22012" {
			return nil
		}
		if err == nil {
			tl.t.Errorf("session %d: no error", tl.id)
		}
		return err
	case 4:
		return tl.increment(ctx)
	case 5: // a transaction that sets something, and takes it back
		tx, err := tl.conn.Begin(ctx)
		if err != nil {
			return err
		}
		for _, sql := range []string{"SET statement_timeout = '1h'", "UPDATE orders SET item = 'wrong' WHERE customer_id = " + fmt.Sprint(tl.id), "SET LOCAL datestyle = 'German'"} {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		if err := is("the setting in a transaction", "1h", "SELECT current_setting('statement_timeout')"); err != nil {
			return err
		}
		return tx.Rollback(ctx)
	case 6: // a pipeline whose second statement fails
		var b pgx.Batch
		b.Queue("SET work_mem = '77MB'")
		b.Queue("UPDATE orders SET item = 'wrong' WHERE customer_id = $1", tl.id)
		b.Queue("SELECT 1/$1::int", 0)
		err := tl.conn.SendBatch(ctx, &b).Close()
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Code != "22012" {
			return err
		}
		if err := is("a setting that was taken back", "4MB", "SELECT current_setting('work_mem')"); err != nil {
			return err
		}
	case 7:
		var out strings.Builder
		if _, err := tl.conn.PgConn().CopyTo(ctx, &out, fmt.Sprintf("COPY (SELECT customer_id FROM orders WHERE customer_id = %d) TO STDOUT", tl.id)); err != nil {
			return err
		}
		if out.String() != fmt.Sprintf("%d\n", tl.id) {
			tl.t.Errorf("session %d: COPY gave %q", tl.id, out.String())
		}
	case 8: // the client vanishes in the middle of something
		if tl.rnd.IntN(5) > 0 {
			return nil
		}
		if tl.rnd.IntN(2) == 0 {
			if _, err := tl.conn.PgConn().Exec(ctx, "BEGIN; UPDATE orders SET item = 'wrong' WHERE customer_id = "+fmt.Sprint(tl.id)).ReadAll(); err != nil {
				return err
			}
		}
		raw := tl.conn.PgConn().Conn()
		raw.Write(simple("UPDATE orders SET item = 'wrong' WHERE pg_sleep(0.05) IS NULL AND customer_id = " + fmt.Sprint(tl.id)))
		raw.Close()
		tl.conn.Close(ctx)
	}
	return nil
}

// increment adds one to the session's counter, in a transaction or without.
func (tl *teller) increment(ctx context.Context) error {
	const sql = "UPDATE orders SET item = (item::int + 1)::text WHERE customer_id = $1 AND id = 0"
	if tl.rnd.IntN(2) == 0 {
		_, err := tl.conn.Exec(ctx, sql, tl.id)
		return tl.counted(err)
	}
	tx, err := tl.conn.Begin(ctx)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, sql, tl.id); err != nil {
		return err
	}
	return tl.counted(tx.Commit(ctx))
}

func (tl *teller) counted(err error) error {
	var pe *pgconn.PgError
	switch {
	case err == nil:
		tl.done++
	case !errors.As(err, &pe) || pe.Code == "08007":
		tl.unknown++
	}
	return err
}
