package pg

import (
	"context"
	"net"
	"time"
)

// Knock finds out over a fresh connection whether there is anybody to answer: a request for TLS is the one question that a server
// answers whoever asks, also while it starts or stops. The error is nil if there was an answer, whatever it says, and also if the
// connection was ended from there. ctx bounds all of it. conn is always closed.
func Knock(ctx context.Context, conn net.Conn) error {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if _, err := conn.Write(AppendSSLRequest(nil)); err == nil {
		var b [1]byte
		_, _ = conn.Read(b[:])
	}
	return ctx.Err()
}
