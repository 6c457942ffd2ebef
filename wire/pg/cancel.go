package pg

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"time"
)

// Cancel asks a backend over a fresh connection to cancel what the session with that key runs, over TLS if cfg is not nil.
// It returns once the backend has taken the request, which it says by closing the connection: whether it found the session is not
// told. ctx bounds all of it. conn is always closed.
func Cancel(ctx context.Context, conn net.Conn, cfg *tls.Config, pid uint32, secret []byte) error {
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	talk := conn
	if cfg != nil {
		t, err := requestTLS(conn, cfg)
		if err != nil {
			return err
		}
		talk = t
	}
	if _, err := talk.Write(AppendCancelRequest(nil, pid, secret)); err != nil {
		return err
	}
	var b [1]byte
	if _, err := talk.Read(b[:]); errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}
