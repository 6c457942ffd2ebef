package wire_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pg"
)

// Every type of message that a client may send, cut short, with lengths that no message has, and where it does not belong: the client
// gets an answer that says so or the end of its connection, in time, and nobody else notices.
func TestEveryMessageBroken(t *testing.T) {
	bothTransports(t, func(t *testing.T, buffered bool) {
		r := newRig(t, rigOptions{tls: buffered, maxFrame: 1 << 20, startup: 5 * time.Second})
		other := r.connect(pgx.QueryExecModeCacheStatement)
		frame := func(typ byte, length uint32, body string) []byte {
			return append(binary.BigEndian.AppendUint32([]byte{typ}, length), body...)
		}
		for _, typ := range "QPBDECSHFXdcfp" {
			for name, bytes := range map[string][]byte{
				"negative": frame(byte(typ), 0xffffffff, ""),
				"2 GiB":    frame(byte(typ), 0x7fffffff, "x"),
				"length 0": frame(byte(typ), 0, ""),
				"length 3": frame(byte(typ), 3, ""),
				"garbage":  append(frame(byte(typ), 20, "\xff\xff\xff\xff\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff"), pg.AppendSync(nil)...),
				"cut":      frame(byte(typ), 100, "x"),
				"empty":    append(frame(byte(typ), 4, ""), pg.AppendSync(nil)...),
			} {
				conn := pgtest.Hijack(ctxOf(t), t, r.connect(pgx.QueryExecModeExec).PgConn())
				last := lastWords(t, conn, bytes)
				broken := name == "negative" || name == "length 0" || name == "length 3" || name == "2 GiB" && typ != 'd'
				if broken && !strings.Contains(last, "08P01") {
					t.Errorf("%c, %s: %q", typ, name, last)
				}
				// In a COPY, where most of them do not belong.
				conn = pgtest.Hijack(ctxOf(t), t, r.connect(pgx.QueryExecModeExec).PgConn())
				lastWords(t, conn, append(pg.AppendQuery(nil, "COPY notes FROM STDIN"), bytes...))
				// Before anybody has logged in there is no such message.
				if conn, err := net.Dial("tcp", r.addr); err != nil {
					t.Error(err)
				} else {
					lastWords(t, conn, bytes)
					conn.Close()
				}
			}
			if _, err := other.Exec(ctxOf(t), "SELECT $1::int", 1); err != nil {
				t.Fatalf("another session, after %c: %v", typ, err)
			}
		}
		r.busy(t, 0)
		if n := notes(t); n != 0 {
			t.Errorf("%d rows were stored", n)
		}
		other.Close(ctxOf(t))
		pgtest.Eventually(t, patience, func() error {
			if s := r.server.Stats(); s.Clients != 0 {
				return fmt.Errorf("%d connections are left", s.Clients)
			}
			return nil
		})
	})
}

// lastWords sends bytes, and nothing more, and returns all that is answered up to the end of the connection, which must come.
func lastWords(t *testing.T, conn net.Conn, bytes []byte) string {
	t.Helper()
	if _, err := conn.Write(bytes); err != nil {
		t.Fatal(err)
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
	conn.SetReadDeadline(time.Now().Add(patience))
	all, err := io.ReadAll(conn)
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		t.Errorf("after %q the connection stays open", bytes)
	}
	return string(all)
}
