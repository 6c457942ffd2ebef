package wire_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
	"rangefinder/wire"
	"rangefinder/wire/console"
	"rangefinder/wire/pg"
)

func TestConnecting(t *testing.T) {
	r := newRig(t, rigOptions{})
	for name, c := range map[string]struct{ from, to, code string }{
		"wrong password":   {"password='s3cret \\'pass\\' \\\\ word'", "password=wrong", "28P01"},
		"unknown user":     {"user=app", "user=nobody", "28P01"},
		"unknown database": {"dbname=app", "dbname=missing", "3D000"},
		"not on backends":  {"dbname=app", "dbname=other", "3D000"},
	} {
		t.Run(name, func(t *testing.T) {
			dsn := strings.Replace(r.dsn(), c.from, c.to, 1)
			if dsn == r.dsn() {
				t.Fatal("the case changes nothing")
			}
			_, err := pgconn.Connect(ctxOf(t), dsn)
			var pe *pgconn.PgError
			if !errors.As(err, &pe) || pe.Code != c.code {
				t.Errorf("got %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Error("the error shows the password")
			}
		})
	}
	if _, err := pgconn.Connect(ctxOf(t), r.dsn()+" replication=database"); err == nil || !strings.Contains(err.Error(), "0A000") {
		t.Errorf("a replication connection: %v", err)
	}
	conn, err := pgconn.Connect(ctxOf(t), r.dsn()+" application_name=mine options='-c search_path=a,b -c work_mem=3MB'")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	res, err := conn.Exec(ctxOf(t), "SELECT concat_ws(' ', current_setting('application_name'), current_setting('search_path'), current_setting('work_mem'))").ReadAll()
	if err != nil || string(res[0].Rows[0][0]) != "mine a,b 3MB" {
		t.Errorf("startup parameters: %v %v", res, err)
	}
}

// What a stranger sends before and after it is known: bounded time, a clear last word, and everybody else goes on.
func TestHostileBytes(t *testing.T) {
	r := newRig(t, rigOptions{maxFrame: 1 << 20, startup: 5 * time.Second})
	frame := func(typ byte, length uint32, body string) []byte {
		b := binary.BigEndian.AppendUint32([]byte{typ}, length)
		return append(b, body...)
	}
	for name, c := range map[string]struct {
		login bool
		send  []byte
		want  string // in the last words; "" if there need be none
	}{
		"1 GiB startup":            {false, []byte{0x40, 0, 0, 0, 0, 3, 0, 0}, "invalid length of startup packet"},
		"negative startup":         {false, []byte{0xff, 0xff, 0xff, 0xff, 0, 3, 0, 0}, "invalid length of startup packet"},
		"http":                     {false, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), ""},
		"protocol 2":               {false, []byte{0, 0, 0, 8, 0, 2, 0, 0}, "unsupported frontend protocol"},
		"silence":                  {false, nil, ""},
		"huge frame":               {true, frame('Q', 1<<30, ""), "08P01"},
		"negative length":          {true, frame('Q', 0xffffffff, ""), "08P01"},
		"length 3":                 {true, frame('Q', 3, ""), "08P01"},
		"unknown type":             {true, frame(0x01, 4, ""), "08P01"},
		"query without a NUL":      {true, frame('Q', 8, "abcd"), "08P01"},
		"bind with a bad count":    {true, append(frame('B', 12, "\x00\x00\x00\x00\x7f\xff\x00\x00"), frame('S', 4, "")...), "08P01"},
		"parse without a NUL":      {true, append(frame('P', 8, "abcd"), frame('S', 4, "")...), "08P01"},
		"execute of no portal":     {true, append(frame('E', 9, "\x00\x00\x00\x00\x00"), frame('S', 4, "")...), "34000"},
		"bind of no statement":     {true, append(frame('B', 13, "\x00x\x00\x00\x00\x00\x00\x00\x00"), frame('S', 4, "")...), "26000"},
		"sync with a body":         {true, frame('S', 5, "x"), "08P01"},
		"password in mid-session":  {true, frame('p', 5, "\x00"), "08P01"},
		"half a frame, then gone":  {true, frame('Q', 100, "SELECT"), ""},
		"describe of a wrong kind": {true, append(frame('D', 6, "Q\x00"), frame('S', 4, "")...), "08P01"},
	} {
		t.Run(name, func(t *testing.T) {
			var conn net.Conn
			if c.login {
				pc, err := pgconn.Connect(ctxOf(t), r.dsn())
				if err != nil {
					t.Fatal(err)
				}
				conn = pgtest.Hijack(ctxOf(t), t, pc)
			} else {
				var err error
				if conn, err = net.Dial("tcp", r.addr); err != nil {
					t.Fatal(err)
				}
			}
			defer conn.Close()
			if _, err := conn.Write(c.send); err != nil {
				t.Fatal(err)
			}
			if c.login { // those that end in a Sync leave the session open: our end of it closes
				conn.(*net.TCPConn).CloseWrite()
			}
			conn.SetReadDeadline(time.Now().Add(patience))
			last, err := io.ReadAll(conn)
			if err != nil && errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("still open: %v", err)
			}
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				t.Fatal("the node keeps the connection open")
			}
			if !strings.Contains(string(last), c.want) {
				t.Errorf("last words %q, want %q in them", last, c.want)
			}
		})
	}
	conn := r.connect(pgx.QueryExecModeExec)
	if _, err := conn.Exec(ctxOf(t), "SELECT 1"); err != nil {
		t.Errorf("another session: %v", err)
	}
	conn.Close(context.Background())
	pgtest.Eventually(t, patience, func() error {
		if s := r.server.Stats(); s.Clients != 0 || s.Sessions != 0 {
			return errors.New("connections are left over")
		}
		return nil
	})
	pgtest.Eventually(t, patience, func() error {
		for _, s := range r.pools.Stats() {
			if s.InUse != 0 {
				return errors.New("server connections are left in use")
			}
		}
		return nil
	})
}

func TestTooManyClients(t *testing.T) {
	r := newRig(t, rigOptions{limits: wire.Limits{Clients: 2}})
	a := r.connect(pgx.QueryExecModeExec)
	r.connect(pgx.QueryExecModeExec)
	_, err := pgconn.Connect(ctxOf(t), r.dsn())
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != "53300" {
		t.Errorf("the third client: %v", err)
	}
	a.Close(ctxOf(t))
	pgtest.Eventually(t, patience, func() error {
		conn, err := pgconn.Connect(ctxOf(t), r.dsn())
		if err == nil {
			conn.Close(ctxOf(t))
		}
		return err
	})
}

// Shutdown lets an open transaction finish, and turns idle sessions away with a word.
func TestShutdown(t *testing.T) {
	r := newRig(t, rigOptions{})
	idle, busy := r.connect(pgx.QueryExecModeExec), r.connect(pgx.QueryExecModeExec)
	tx, err := busy.Begin(ctxOf(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctxOf(t), "INSERT INTO notes VALUES (1, 'x')"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		done <- r.server.Shutdown(ctx)
	}()
	pgtest.Eventually(t, patience, func() error {
		if conn, err := net.DialTimeout("tcp", r.addr, time.Second); err == nil {
			conn.Close() // Shutdown waits for logins that have begun
			return errors.New("the node still takes connections")
		}
		return nil
	})
	if _, err := tx.Exec(ctxOf(t), "INSERT INTO notes VALUES (2, 'x')"); err != nil {
		t.Errorf("in the open transaction: %v", err)
	}
	if err := tx.Commit(ctxOf(t)); err != nil {
		t.Errorf("commit: %v", err)
	}
	if err := <-done; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	_, err = idle.Exec(ctxOf(t), "SELECT 1")
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != "57P01" {
		t.Errorf("the idle session: %v", err)
	}
}

// A statement that runs on is cut off when the time to drain is over, and so is a client that does not read its answer. Who is in a transaction is told.
func TestShutdownCutsOff(t *testing.T) {
	r := newRig(t, rigOptions{})
	within := r.connect(pgx.QueryExecModeExec)
	for _, sql := range []string{"BEGIN", "INSERT INTO notes VALUES (1, 'x')"} {
		if _, err := within.Exec(ctxOf(t), sql); err != nil {
			t.Fatal(err)
		}
	}
	running := r.connect(pgx.QueryExecModeExec)
	done := make(chan error, 1)
	go func() {
		_, err := running.Exec(context.Background(), "SELECT pg_sleep(60)")
		done <- err
	}()
	deaf, err := pgconn.Connect(ctxOf(t), r.dsn())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pgtest.Hijack(ctxOf(t), t, deaf).Write(pg.AppendQuery(nil, "SELECT repeat('x', 1000) FROM generate_series(1, 1000000)")); err != nil {
		t.Fatal(err)
	}
	r.busy(t, 3)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := r.server.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: %v", err)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("Shutdown took %s", took)
	}
	if err := <-done; err == nil {
		t.Error("the statement has ended well")
	}
	if e := fate(t, within); e.Code != pg.CodeAdminShutdown || !strings.Contains(e.Detail, "drain_timeout") {
		t.Errorf("within a transaction: %+v", e)
	}
	if s := r.server.Stats(); s.Sessions != 0 || s.Clients != 0 {
		t.Errorf("left over: %+v", s)
	}
}

// A client that dies while its answer is being written leaves nothing behind.
func TestClientDiesInItsAnswer(t *testing.T) {
	r := newRig(t, rigOptions{})
	for range 3 {
		pc, err := pgconn.Connect(ctxOf(t), r.dsn())
		if err != nil {
			t.Fatal(err)
		}
		conn := pgtest.Hijack(ctxOf(t), t, pc)
		if _, err := conn.Write(pg.AppendQuery(nil, "SELECT repeat('x', 1000) FROM generate_series(1, 1000000)")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, conn, 1<<20); err != nil {
			t.Fatal(err)
		}
		conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	}
	pgtest.Eventually(t, patience, func() error {
		if s := r.server.Stats(); s.Sessions != 0 || s.Clients != 0 {
			return errors.New("sessions are left over")
		}
		for _, s := range r.pools.Stats() {
			if s.InUse != 0 {
				return errors.New("server connections are left in use")
			}
		}
		return nil
	})
}

// A server connection that is reset while its session does nothing is found out by the next write.
func TestServerResetsAnIdleTransaction(t *testing.T) {
	shard := servers(t)[0]
	f := newForwarder(t, shard.primary) // before the rig: its pool holds connections
	r := newRig(t, rigOptions{})
	b := rib.Backend{Name: "shard_1-primary", Shard: "shard_1", Region: "far", Addr: f.addr, SystemID: shard.primary.SystemID()}
	r.announce(b, rib.Primary)
	pgtest.Eventually(t, patience, func() error {
		if hops := r.handle.Load().Slot("shard_1").Candidates().Writes; len(hops) != 1 || hops[0].Backend.Addr != b.Addr {
			return errors.New("the new address is not known yet")
		}
		return nil
	})
	conn := r.connect(pgx.QueryExecModeExec)
	tx, err := conn.Begin(ctxOf(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctxOf(t), "INSERT INTO notes VALUES (1, 'x')"); err != nil {
		t.Fatal(err)
	}
	f.last.Load().SetLinger(0)
	f.last.Load().Close()
	for range 2 { // the first write may still go into the void, the second cannot
		if pe := pgErr(t, conn, "INSERT INTO notes VALUES (2, 'x')"); pe.Code != "08006" && pe.Code != "25P02" {
			t.Errorf("%s %s", pe.Code, pe.Message)
		}
	}
	if _, err := conn.Exec(ctxOf(t), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(ctxOf(t), "INSERT INTO notes VALUES (3, 'x')"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// Who breaks the protocol has often sent more than was read. It hears why, and then the end of the stream, not a reset: that may
// overtake the words, or destroy them where they wait to be read.
func TestLastWordsBeforeMoreThanWasRead(t *testing.T) {
	for name, buffered := range map[string]bool{"raw": false, "buffered": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, rigOptions{buffered: buffered})
			for _, database := range []string{"app", console.Name} {
				pc, err := pgconn.Connect(ctxOf(t), r.dsnOf(database))
				if err != nil {
					t.Fatal(err)
				}
				conn := pgtest.Hijack(ctxOf(t), t, pc)
				conn.SetDeadline(time.Now().Add(patience))
				// More than the sockets' buffers hold, and more than the node takes for one frame.
				if _, err := conn.Write(append([]byte{'Q', 0x40, 0, 0, 0}, make([]byte, 20<<20)...)); err != nil {
					t.Errorf("%s: written: %v", database, err)
				}
				last, err := io.ReadAll(conn)
				if !strings.Contains(string(last), "08P01") || err != nil {
					t.Errorf("%s: last words %q, %v", database, last, err)
				}
			}
		})
	}
}

// A client that goes on for ever after it has broken the protocol is cut off.
func TestLastWordsToWhoDoesNotListen(t *testing.T) {
	r := newRig(t, rigOptions{})
	pc, err := pgconn.Connect(ctxOf(t), r.dsn())
	if err != nil {
		t.Fatal(err)
	}
	conn := pgtest.Hijack(ctxOf(t), t, pc)
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write([]byte{'Q', 0x40, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	for chunk := make([]byte, 1<<20); err == nil; {
		_, err = conn.Write(chunk)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the node reads on and on")
	}
}
