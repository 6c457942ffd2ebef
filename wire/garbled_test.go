package wire_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgproto3/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pg"
)

// Whoever is not PostgreSQL, or not in order, is the backend: its clients hear which one it is, and not that they have broken the protocol.
func TestGarbageWhileTheNodeLogsIn(t *testing.T) {
	says := func(b string) pgtest.Script {
		return pgtest.Script{pgtest.ExpectStartup(nil), pgtest.SendBytes([]byte(b)), pgtest.Hang()}
	}
	const ok = "R\x00\x00\x00\x08\x00\x00\x00\x00"
	behind := func(b string, before ...pgtest.Step) pgtest.Script {
		return append(before, pgtest.ExpectThat(func(pgproto3.FrontendMessage) error { return nil }), pgtest.SendBytes([]byte(b)), pgtest.Hang())
	}
	for name, script := range map[string]pgtest.Script{
		"noise":                        says("\x00\x01\x02\x03\x04\x05\x06\x07"),
		"another protocol":             says("HTTP/1.1 400 Bad Request\r\n\r\n"),
		"a negative length":            says("R\xff\xff\xff\xff"),
		"a huge frame":                 says("R\x3f\xff\xff\xff"),
		"an unknown request":           says("R\x00\x00\x00\x08\x00\x00\x00\x63"),
		"a request without its number": says("R\x00\x00\x00\x05\x00"),
		"MD5 without salt":             says("R\x00\x00\x00\x08\x00\x00\x00\x05"),
		"a row":                        says(ok + "D\x00\x00\x00\x06\x00\x00"),
		"an unknown status":            says(ok + "Z\x00\x00\x00\x05X"),
		"a short key":                  says(ok + "K\x00\x00\x00\x08\x00\x00\x00\x01"),
		"an error that is none":        says("E\x00\x00\x00\x05S"),
		"its own complaint":            says(string(pg.AppendError(nil, pg.NewError(pg.CodeProtocolViolation, "I do not understand").Fatal()))),
		"as the answer to who it is":   behind("\x00\x01\x02\x03\x04\x05\x06\x07", pgtest.Login()),
		"a row that is none":           behind("T\x00\x00\x00\x06\x00\x00D\x00\x00\x00\x05\x00", pgtest.Login()),
	} {
		t.Run(name, func(t *testing.T) {
			blamed := func(err error, when string) {
				t.Helper()
				var pe *pgconn.PgError
				if !errors.As(err, &pe) || pe.Code != pg.CodeConnectionFailure || !strings.Contains(pe.Message, "shard_1-fake") || pe.Detail == "" {
					t.Errorf("%s: %v (%+v)", when, err, pe)
				}
			}
			r := newRig(t, rigOptions{backends: fakeAlone(pgtest.NewFake(t, script))})
			_, err := pgconn.Connect(ctxOf(t), r.dsn())
			blamed(err, "a client that logs in")

			// The first connection is in order, so the client gets in.
			fine := pgtest.Script{pgtest.Login(), pgtest.Identify(fakeSystemID), eachRequest(answered)}
			r = newRig(t, rigOptions{backends: fakeAlone(pgtest.NewFake(t, fine, script))})
			conn := r.connect(pgx.QueryExecModeSimpleProtocol)
			_, err = conn.Exec(ctxOf(t), "INSERT INTO notes VALUES (1, 'x')")
			blamed(err, "a write")
			_, err = conn.Exec(ctxOf(t), "SELECT * FROM notes")
			blamed(err, "a read")
			if conn.IsClosed() {
				t.Error("the client's connection was closed")
			}
		})
	}
}

// The same for what the node asks a server right after its login.
func TestGarbageForTheNodesFirstQuestion(t *testing.T) {
	for name, answer := range map[string]string{
		"noise":                 "\x00\x01\x02\x03\x04\x05\x06\x07",
		"a negative length":     "T\xff\xff\xff\xff",
		"a huge frame":          "D\x3f\xff\xff\xff",
		"an error that is none": "E\x00\x00\x00\x05S",
		"a bad parameter":       "S\x00\x00\x00\x05S",
	} {
		t.Run(name, func(t *testing.T) {
			script := pgtest.Script{pgtest.Login(), pgtest.Identify(fakeSystemID), pgtest.ExpectThat(func(pgproto3.FrontendMessage) error { return nil }), pgtest.SendBytes([]byte(answer)), pgtest.Hang()}
			r := newRig(t, rigOptions{backends: fakeAlone(pgtest.NewFake(t, script))})
			_, err := pgconn.Connect(ctxOf(t), r.dsn())
			var pe *pgconn.PgError
			if !errors.As(err, &pe) || pe.Code != pg.CodeConnectionFailure || !strings.Contains(pe.Message, "shard_1-fake") {
				t.Errorf("%v", err)
			}
		})
	}
}

// A server that answers a request for TLS with anything but TLS is told nothing, and nothing that it says in clear is believed: whoever is between the two may have said it.
func TestGarbageInsteadOfTLS(t *testing.T) {
	const alone = "R\x00\x00\x00\x08\x00\x00\x00\x00Z\x00\x00\x00\x05I" // a login, in clear
	for name, c := range map[string]struct{ answer, code string }{
		"an error":                      {string(pg.AppendError(nil, pg.NewError("0A000", "what is TLS").Fatal())), pg.CodeConnectionFailure},
		"noise":                         {"\x00\x01\x02\x03", pg.CodeConnectionFailure},
		"another protocol":              {"HTTP/1.1 400 Bad Request\r\n\r\n", pg.CodeConnectionFailure},
		"a yes of somebody else":        {"s", pg.CodeConnectionFailure},
		"a login at once":               {alone, pg.CodeConnectionFailure},
		"yes, and a login in clear":     {"S" + alone, pg.CodeConnectionFailure},
		"yes, and another protocol":     {"SHTTP/1.1 400 Bad Request\r\n\r\n", pg.CodeConnectionFailure},
		"yes twice, and a login":        {"SS" + alone, pg.CodeConnectionFailure},
		"yes, and a refusal by TLS":     {"S\x15\x03\x01\x00\x02\x02\x28", pg.CodeCannotConnectNow},
		"no":                            {"N", pg.CodeCannotConnectNow},
		"no, and a login in clear":      {"N" + alone, pg.CodeCannotConnectNow},
		"nothing, and it hangs up then": {"", pg.CodeCannotConnectNow},
	} {
		t.Run(name, func(t *testing.T) {
			heard := make(chan string, 100)
			fake := pgtest.NewFake(t, pgtest.Script{
				pgtest.ExpectStartup(func(m pgproto3.FrontendMessage) error {
					if _, ok := m.(*pgproto3.SSLRequest); !ok {
						return fmt.Errorf("the node begins with %#v", m)
					}
					return nil
				}),
				func(conn *pgtest.FakeConn) error {
					if c.answer == "" {
						return pgtest.Close()(conn)
					}
					if err := pgtest.SendBytes([]byte(c.answer))(conn); err != nil {
						return err
					}
					conn.SetDeadline(time.Now().Add(patience))
					all, err := io.ReadAll(conn)
					if errors.Is(err, os.ErrDeadlineExceeded) {
						return errors.New("the node keeps the connection")
					}
					heard <- string(all)
					return nil
				},
			})
			r := newRig(t, rigOptions{backends: fakeAlone(fake), demands: &tls.Config{InsecureSkipVerify: true}})
			_, err := pgconn.Connect(ctxOf(t), r.dsn())
			var pe *pgconn.PgError
			if !errors.As(err, &pe) || pe.Code != c.code || !strings.Contains(pe.Message+pe.Detail, "shard_1-fake") {
				t.Errorf("the client hears %v (%+v)", err, pe)
			}
			if c.answer == "" {
				return
			}
			if said := <-heard; strings.Contains(said, testUser) || said != "" && said[0] != 0x16 && said[0] != 0x15 {
				t.Errorf("it hears %q", said)
			}
			for _, p := range r.pools.Stats() {
				if p.InUse+p.Idle != 0 {
					t.Errorf("a connection is kept: %+v", p)
				}
			}
		})
	}
}
