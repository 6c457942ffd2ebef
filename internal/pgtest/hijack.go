package pgtest

import (
	"context"
	"net"

	"github.com/jackc/pgx/v5/pgconn"
)

// Hijack takes the socket from under a connection that pgx has made, for what pgx would not send. Nobody else reads from it any
// more: where a write took long, as on a busy machine, pgx reads in the background, and would take the first answer away. The socket
// is closed when ctx ends: who waits for an answer that does not come is let go.
func Hijack(ctx context.Context, t TB, conn *pgconn.PgConn) net.Conn {
	t.Helper()
	if err := conn.SyncConn(ctx); err != nil {
		t.Fatal(err)
	}
	h, err := conn.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	context.AfterFunc(ctx, func() { h.Conn.Close() })
	t.Cleanup(func() { h.Conn.Close() })
	return h.Conn
}
