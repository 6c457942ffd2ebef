package wire_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pg"
)

// step is what a client sends at once, and the types of the frames that end the answer, each awaited in turn.
type step struct {
	send  []byte
	until string
}

// story is one session, byte for byte, that must look the same through the router as on PostgreSQL itself.
type story struct {
	name  string
	steps []step
	// only names the places where the story is told; "" is everywhere. Each is a letter: (p)lain database, (o)ne shard, (t)wo.
	only string
}

// A session through the router is answered as PostgreSQL itself answers it, frame for frame.
func TestAnswersAreThoseOfPostgreSQL(t *testing.T) {
	for _, place := range append(places(t)[:2], place{"two shards and replicas", "app", servers(t)}) {
		t.Run(place.name, func(t *testing.T) {
			r := newRig(t, rigOptions{shards: place.shards})
			primary := place.shards[0].primary
			if place.database != "app" {
				plainDatabase(t, primary, place.database)
			}
			admin, err := primary.ConnTo(ctxOf(t), place.database, "postgres")
			if err != nil {
				t.Fatal(err)
			}
			defer admin.Close(context.Background())
			key := r.keyOn("shard_1", 1)
			if _, err := admin.Exec(ctxOf(t), "SET lock_timeout = '30s'"); err != nil {
				t.Fatal(err)
			}
			for _, s := range stories(key) {
				if s.only != "" && !strings.Contains(s.only, place.name[:1]) {
					continue
				}
				t.Run(s.name, func(t *testing.T) {
					var told [2][]string
					for i, addr := range []string{primary.Addr(), r.addr} {
						_, err := admin.Exec(ctxOf(t), "DROP TABLE IF EXISTS changing; TRUNCATE orders, notes; INSERT INTO notes SELECT i, 'note ' || i FROM generate_series(1, 20) i; "+
							fmt.Sprintf("INSERT INTO orders SELECT %d, i, 'item ' || i FROM generate_series(1, 20) i", key))
						if err != nil {
							t.Fatalf("an earlier story's session lives on: %v", err)
						}
						if place.shards[0].replica != nil {
							if err := place.shards[0].replica.CaughtUp(ctxOf(t)); err != nil {
								t.Fatal(err)
							}
						}
						told[i] = tell(t, addr, place.database, s.steps)
					}
					if !slices.Equal(told[0], told[1]) {
						t.Errorf("PostgreSQL and the router differ:\n%s", sideBySide(told[0], told[1]))
					}
				})
			}
		})
	}
}

// place is where a session is compared with one of PostgreSQL's own.
type place struct {
	name, database string
	shards         []shardServers
}

// places are a database that no keyspace knows, and one with a keyspace over one shard and over two, without replicas.
func places(t *testing.T) []place {
	own := []shardServers{{primary: servers(t)[0].primary}, {primary: servers(t)[1].primary}}
	return []place{{"plain", "plain", own[:1]}, {"one shard", "app", own[:1]}, {"two shards", "app", own}}
}

// plainDatabase makes a database like the test's own that no keyspace knows.
func plainDatabase(t *testing.T, server *pgtest.Server, name string) {
	t.Helper()
	ctx := ctxOf(t)
	if err := server.Exec(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)", "CREATE DATABASE "+name+" TEMPLATE app"); err != nil {
		t.Fatal(err)
	}
}

// tell plays a session and returns the frames of its answers, in words.
func tell(t *testing.T, addr, database string, steps []step) []string {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(patience))
	server, err := pg.Connect(ctxOf(t), nc, &pg.ConnectConfig{User: testUser, Credential: pg.Password(testPassword), Database: database})
	if err != nil {
		t.Fatal(err)
	}
	conn := server.Conn
	var words []string
	for name, value := range server.Params {
		words = append(words, fmt.Sprintf("%s is %q", name, value))
	}
	slices.Sort(words)
	var buf []byte
	for i, s := range steps {
		conn.SetDeadline(time.Now().Add(patience))
		sent := make(chan error, 1)
		go func() {
			_, err := conn.Write(s.send)
			sent <- err
		}()
		words = append(words, fmt.Sprintf("step %d", i+1))
		for until := s.until; until != ""; {
			typ, n, err := pg.Next(buf, 64<<20)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				if cap(buf)-len(buf) < 64<<10 {
					buf = slices.Grow(buf, max(64<<10, len(buf)))
				}
				m, err := conn.Read(buf[len(buf):cap(buf)])
				buf = buf[:len(buf)+m]
				switch {
				case errors.Is(err, os.ErrDeadlineExceeded):
					t.Fatalf("%s has said nothing for %s while %q was awaited in step %d; its last words: %q", addr, patience, until, i+1, words[max(0, len(words)-3):])
				case err != nil:
					words = append(words, fmt.Sprintf("nothing more while %q is awaited", until))
					<-sent
					return words
				}
				// A long answer may take its time, however busy the machine is; silence may not.
				conn.SetDeadline(time.Now().Add(patience))
				continue
			}
			words = append(words, inWords(typ, buf[pg.HeaderSize:n]))
			if typ == until[0] {
				until = until[1:]
			}
			buf = buf[n:]
		}
		if err := <-sent; err != nil {
			return append(words, "the connection is closed")
		}
	}
	return words
}

// temporary is the schema of a connection's temporary objects.
var temporary = regexp.MustCompile(`pg_temp_\d+`)

// inWords renders a frame as far as the two must be alike: where in its source a server raised an error is its own business.
func inWords(typ byte, body []byte) string {
	switch {
	case typ == 'E' || typ == 'N':
		e, err := pg.DecodeError(body)
		if err != nil {
			return err.Error()
		}
		e.File, e.Line, e.Routine = "", "", ""
		e.Where = temporary.ReplaceAllString(e.Where, "pg_temp")
		if len(e.Message) > 300 {
			e.Message = fmt.Sprintf("%d bytes, %x", len(e.Message), sha256.Sum256([]byte(e.Message)))
		}
		return fmt.Sprintf("%c %s %s %q detail %q hint %q at %q where %q %s", typ, e.Severity, e.Code, e.Message, e.Detail, e.Hint, e.Position, e.Where, e.Constraint)
	case typ == 'A': // the sender's process
		return fmt.Sprintf("A %q", body[4:])
	case typ == 'T': // the number of a table is its own business: some are made anew
		return fmt.Sprintf("T %q", withoutTables(body))
	case len(body) > 300:
		return fmt.Sprintf("%c %d bytes, %x", typ, len(body), sha256.Sum256(body))
	}
	return fmt.Sprintf("%c %q", typ, body)
}

// withoutTables takes the tables' numbers out of a RowDescription.
func withoutTables(body []byte) []byte {
	out := slices.Clone(body)
	for i := 2; i < len(out); i += 18 {
		for out[i] != 0 {
			i++
		}
		i++
		clear(out[i : i+4])
	}
	return out
}

// sideBySide shows where two transcripts differ, and a few lines before.
func sideBySide(a, b []string) string {
	const most, before = 40, 5
	var s strings.Builder
	shown, differ := 0, 0
	for i := range max(len(a), len(b)) {
		left, right := "(nothing)", "(nothing)"
		if i < len(a) {
			left = a[i]
		}
		if i < len(b) {
			right = b[i]
		}
		if left == right {
			continue
		}
		if differ++; differ > most {
			continue
		}
		end := min(i, len(a))
		for _, same := range a[min(max(shown, i-before), end):end] {
			fmt.Fprintf(&s, "  %.300s\n", same)
		}
		fmt.Fprintf(&s, "- %.300s\n+ %.300s\n", left, right)
		shown = i + 1
	}
	return s.String() + fmt.Sprintf("%d of %d and %d lines differ", differ, len(a), len(b))
}

// The messages that stories are made of.

func msg(parts ...[]byte) []byte { return slices.Concat(parts...) }

func simple(sql string) []byte                   { return pg.AppendQuery(nil, sql) }
func parse(name, sql string, o ...uint32) []byte { return pg.AppendParse(nil, name, sql, o) }
func describe(kind byte, name string) []byte     { return pg.AppendDescribe(nil, kind, name) }
func closing(kind byte, name string) []byte      { return pg.AppendClose(nil, kind, name) }
func run(portal string, rows uint32) []byte      { return pg.AppendExecute(nil, portal, rows) }
func syncs() []byte                              { return pg.AppendSync(nil) }
func flush() []byte                              { return pg.AppendFlush(nil) }
func copyData(data string) []byte                { return message('d', []byte(data)) }
func copyDone() []byte                           { return message('c', nil) }
func copyFail(why string) []byte                 { return message('f', append([]byte(why), 0)) }

func message(typ byte, body []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{typ}, uint32(len(body)+4)), body...)
}

// bind binds text arguments; "NULL" is none.
func bind(portal, statement string, args ...string) []byte {
	b := append([]byte(portal+"\x00"+statement), 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(args)))
	for _, a := range args {
		if a == "NULL" {
			b = binary.BigEndian.AppendUint32(b, 0xffffffff)
			continue
		}
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(a))), a...)
	}
	return message('B', append(b, 0, 0))
}

// extended is one statement in the extended protocol without its Sync.
func extended(sql string, args ...string) []byte {
	return msg(parse("", sql), bind("", "", args...), describe('P', ""), run("", 0))
}

// call calls a function by the FunctionCall message, with arguments and result as text.
func callFunction(oid uint32, args ...string) []byte {
	b := binary.BigEndian.AppendUint32(nil, oid)
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(args)))
	for _, a := range args {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(a))), a...)
	}
	return message('F', append(b, 0, 0))
}

// each sends simple queries one by one.
func each(sql ...string) []step {
	var out []step
	for _, q := range sql {
		out = append(out, step{simple(q), "Z"})
	}
	return out
}

// eachExtended does the same in the extended protocol.
func eachExtended(sql ...string) []step {
	var out []step
	for _, q := range sql {
		out = append(out, step{msg(extended(q), syncs()), "Z"})
	}
	return out
}
