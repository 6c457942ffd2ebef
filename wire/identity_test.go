package wire_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// forwarder passes connections on to a server, whichever it is at the time: an address whose server is another one of a sudden.
type forwarder struct {
	addr string
	to   atomic.Pointer[pgtest.Server]
	last atomic.Pointer[net.TCPConn] // the node's newest connection
}

// leadTo has new connections go to s.
func (f *forwarder) leadTo(s *pgtest.Server) { f.to.Store(s) }

func newForwarder(t *testing.T, to *pgtest.Server) *forwarder {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &forwarder{addr: ln.Addr().String()}
	f.leadTo(to)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", f.to.Load().Addr())
			if err != nil {
				near.Close()
				continue
			}
			f.last.Store(near.(*net.TCPConn))
			wg.Go(func() { io.Copy(far, near); far.Close() })
			wg.Go(func() { io.Copy(near, far); near.Close() })
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return f
}

// An address that leads to another shard's server all of a sudden serves nothing: reads go to the next candidate, writes are refused.
func TestAnotherServerAnswers(t *testing.T) {
	all := servers(t)
	primary, replica := newForwarder(t, all[0].primary), newForwarder(t, all[0].replica)
	r := newRig(t, rigOptions{})
	id := all[0].primary.SystemID()
	ctx := ctxOf(t)
	for _, x := range []struct {
		name string
		f    *forwarder
		role rib.Role
	}{{"shard_1-primary", primary, rib.Primary}, {"shard_1-replica", replica, rib.Replica}} {
		region := map[rib.Role]string{rib.Primary: "far", rib.Replica: "fra"}[x.role]
		r.announce(rib.Backend{Name: x.name, Shard: "shard_1", Region: region, Addr: x.f.addr, SystemID: id}, x.role)
	}
	pgtest.Eventually(t, patience, func() error {
		c := r.handle.Load().Slot("shard_1").Candidates()
		if len(c.Writes) != 1 || c.Writes[0].Backend.Addr != primary.addr || len(c.Reads) == 0 || c.Reads[0].Backend.Addr != replica.addr {
			return errors.New("the new addresses are not known yet")
		}
		return nil
	})
	conn := r.connect(pgx.QueryExecModeExec)
	if _, err := conn.Exec(ctx, "INSERT INTO notes VALUES (1, 'right')"); err != nil {
		t.Fatal(err)
	}
	if err := all[1].primary.ExecIn(ctx, "app", "CREATE TABLE notes (id int PRIMARY KEY, body text)", "GRANT ALL ON notes TO app", "INSERT INTO notes VALUES (1, 'wrong')"); err != nil {
		t.Fatal(err)
	}
	if err := all[1].replica.CaughtUp(ctx); err != nil {
		t.Fatal(err)
	}
	replica.leadTo(all[1].replica)
	r.pools.Renew() // the connections that are there stay with the server they were made to
	reader := r.connect(pgx.QueryExecModeExec)
	var body string
	if err := reader.QueryRow(ctx, "SELECT body FROM notes WHERE id = 1").Scan(&body); err != nil || body != "right" {
		t.Errorf("a read: %q, %v", body, err)
	}
	pgtest.Eventually(t, patience, func() error { // the node has evidence, and goes elsewhere at once
		if c := r.handle.Load().Slot("shard_1").Candidates(); c.Reads[0].Backend.Addr == replica.addr {
			return errors.New("the replica still comes first")
		}
		return nil
	})
	primary.leadTo(all[1].primary)
	r.pools.Renew()
	var pe *pgconn.PgError
	if _, err := conn.Exec(ctx, "INSERT INTO notes VALUES (2, 'must not be stored')"); !errors.As(err, &pe) || pe.Code != pg.CodeCannotConnectNow || !strings.Contains(pe.Detail, "another server answers") {
		t.Errorf("a write: %v", err)
	} else {
		t.Log(pe.Message, pe.Detail, pe.Hint)
	}
	other, err := all[1].primary.ConnTo(ctx, "app", "")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(ctx)
	var n int
	if err := other.QueryRow(ctx, "SELECT count(*) FROM notes").Scan(&n); err != nil || n != 1 {
		t.Errorf("%d rows on the wrong server, %v", n, err)
	}
	primary.leadTo(all[0].primary)
	pgtest.Eventually(t, patience, func() error { // it is tried again with growing pauses
		_, err := conn.Exec(ctx, "INSERT INTO notes VALUES (2, 'right')")
		return err
	})
}
