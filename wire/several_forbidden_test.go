package wire_test

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// One of several shards whose server says what it may not say at that moment: the statement fails with who it was, nothing of that is believed, and the
// others go on.
func TestNothingForbiddenOfOneOfSeveralShards(t *testing.T) {
	frame := func(typ byte, body string) []byte { return pg.AppendFrame(nil, typ, []byte(body)) }
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	const copies = "\x00\x00\x01\x00\x00"
	var (
		begun   = join(frame('1', ""), frame('2', ""))
		columns = pg.AppendRowDescription(nil, []pg.Field{{Name: "x"}})
		row     = frame('D', "\x00\x01\x00\x00\x00\x01r")
		alien   = frame('D', "\x00\x01\x00\x00\x00\x05alien")
		done    = pg.AppendCommandComplete(nil, "SELECT 1")
	)
	fine := join(begun, columns, row, done)
	stories := map[string][]byte{ // up to ReadyForQuery
		"a row without columns": join(begun, alien, done),
		"columns twice":         join(begun, columns, columns, alien, done),
		"no columns, and a row": join(begun, frame('n', ""), alien, done),
		"a row behind the end":  join(begun, columns, row, done, alien),
		"two ends":              join(begun, columns, row, done, done),
		"no end":                join(begun, columns, row),
		"nothing":               nil,
		"parsed behind rows":    join(begun, columns, row, frame('1', ""), done),
		"COPY to take data":     join(begun, columns, row, frame('G', copies), done),
		"COPY to give data":     join(begun, frame('n', ""), frame('H', copies), frame('d', "alien"), frame('c', ""), done),
	}
	for _, typ := range []byte("KRGHWvVdcpQ\x00y\xff") {
		body := ""
		switch typ {
		case 'R':
			body = "\x00\x00\x00\x00"
		case 'K':
			body = "\x00\x00\x00\x01\x00\x00\x00\x02"
		case 'W', 'G', 'H':
			body = copies
		}
		stories[fmt.Sprint("within rows, type ", typ)] = join(begun, columns, row, frame(typ, body), row, done)
	}
	respond := func(odd bool) func(c *pgtest.FakeConn, sql string, status byte) error {
		return func(c *pgtest.FakeConn, sql string, status byte) error {
			if !strings.Contains(sql, "orders") {
				return answered(c, sql, status)
			}
			answer := fine
			if _, name, ok := strings.Cut(sql, "/* "); ok && odd {
				name, _, _ = strings.Cut(name, " */")
				answer = stories[name]
			}
			return pgtest.SendBytes(pg.AppendReady(bytes.Clone(answer), status))(c)
		}
	}
	gone := func(step pgtest.Step) pgtest.Step { // a node may have no use any more for a connection that it makes
		return func(c *pgtest.FakeConn) error {
			if step(c) != nil {
				return pgtest.Close()(c)
			}
			return nil
		}
	}
	serve := func(odd bool) *pgtest.Fake {
		return pgtest.NewFake(t, pgtest.Script{gone(pgtest.Login()), gone(pgtest.Identify(fakeSystemID)), eachRequest(respond(odd))})
	}
	right, wrong := serve(false), serve(true)
	bothAtOnce(t, func(t *testing.T, buffered bool) {
		r := newRig(t, rigOptions{buffered: buffered, backends: []rib.Backend{
			{Name: "shard_1-fake", Shard: "shard_1", Region: "fra", Addr: right.Addr()}, {Name: "shard_2-fake", Shard: "shard_2", Region: "fra", Addr: wrong.Addr()},
		}})
		there := r.keyOn("shard_2", 1)
		var all sync.WaitGroup
		for name := range stories {
			for how, sql := range map[string][]string{
				"of several":         {fmt.Sprintf("SELECT item FROM orders /* %s */", name)},
				"sorted":             {fmt.Sprintf("SELECT item FROM orders ORDER BY item /* %s */", name)},
				"of one, in a block": {"BEGIN", "SELECT item FROM orders", fmt.Sprintf("SELECT item FROM orders WHERE customer_id = %d /* %s */", there, name)},
			} {
				if name == "COPY to give data" && how == "of one, in a block" { // any one text may be answered with that
					continue
				}
				conn := pgtest.Hijack(ctxOf(t), t, r.connect(pgx.QueryExecModeSimpleProtocol).PgConn())
				all.Go(func() {
					defer conn.Close()
					conn.SetDeadline(time.Now().Add(patience))
					var seen bytes.Buffer
					for i, text := range sql {
						if _, err := conn.Write(pg.AppendQuery(nil, text)); err != nil {
							t.Error(err)
							return
						}
						got, failure, err := readFrames(&tapped{Conn: conn, seen: &seen})
						switch {
						case err != nil:
							t.Errorf("%s, %s: %q gets %q, %v", name, how, text, got, err)
							return
						case i < len(sql)-1 && failure != nil:
							t.Errorf("%s, %s: %q gets %v", name, how, text, failure)
						case i == len(sql)-1 && (failure == nil || failure.Code != pg.CodeConnectionFailure || !strings.Contains(failure.Message, "shard_2-fake")):
							t.Errorf("%s, %s: the client gets %q, %+v", name, how, got, failure)
						}
					}
					if strings.Contains(seen.String(), "alien") {
						t.Errorf("%s, %s: the client gets what no server may say: %q", name, how, seen.String())
					}
					for _, next := range [][2]string{{"ROLLBACK", "CZ"}, {"SELECT item FROM orders", "TDDCZ"}} {
						if _, err := conn.Write(pg.AppendQuery(nil, next[0])); err != nil {
							t.Error(err)
						}
						if got, failure, err := readFrames(conn); err != nil || failure != nil || got != next[1] {
							t.Errorf("%s, %s: afterwards %s gets %q, %v, %v", name, how, next[0], got, failure, err)
						}
					}
				})
			}
		}
		all.Wait()
	})
}

// tapped keeps what is read.
type tapped struct {
	net.Conn
	seen *bytes.Buffer
}

func (c *tapped) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.seen.Write(b[:n])
	return n, err
}
