package wire_test

import (
	"errors"
	"net"
	"testing"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pg"
)

// A client that vanishes while rows are written to it takes nothing with it.
func TestClientVanishesInTheMiddleOfRows(t *testing.T) {
	r := newRig(t, rigOptions{poolSize: 1})
	for range 3 {
		conn := r.connect(pgx.QueryExecModeSimpleProtocol)
		pid := conn.PgConn().PID()
		socket := pgtest.Hijack(ctxOf(t), t, conn.PgConn()).(*net.TCPConn)
		if _, err := socket.Write(pg.AppendQuery(nil, "INSERT INTO notes SELECT i, 'x' FROM generate_series(1, 300000) i RETURNING repeat(body, 100)")); err != nil {
			t.Fatal(err)
		}
		var b [1]byte
		if _, err := socket.Read(b[:]); err != nil { // rows have begun to come
			t.Fatal(err)
		}
		socket.SetLinger(0) // a reset, as after a crash
		socket.Close()
		pgtest.Eventually(t, patience, func() error {
			s := r.server.Snapshot()
			for _, c := range s.Clients {
				if c.ID == pid {
					return errors.New("the session is still there")
				}
			}
			for _, v := range s.Servers {
				if !v.Idle {
					return errors.New("its server connection is still there")
				}
			}
			return nil
		})
		if _, err := r.connect(pgx.QueryExecModeSimpleProtocol).Exec(ctxOf(t), "TRUNCATE notes"); err != nil {
			t.Fatal(err)
		}
	}
}
