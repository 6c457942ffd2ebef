package wire_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/console"
	"rangefinder/wire/pg"
)

// sessionState is where in a session a message arrives.
type sessionState struct {
	name  string
	send  []byte // what brings a session that has just logged in there
	until byte   // the frame that tells that it is there; 0: it is there
}

func sessionStates() []sessionState {
	return []sessionState{
		{name: "idle"},
		{"in a failed transaction", simple("BEGIN; SELECT * FROM nothing"), 'Z'},
		{"in a pipeline", msg(parse("", "SELECT count(*) FROM notes"), bind("", ""), flush()), '2'},
		{"after an error before the Sync", msg(parse("", "SELECT * FROM nothing"), flush()), 'E'},
		{"in a COPY", simple("COPY notes FROM STDIN"), 'G'},
		{"in a COPY of the extended protocol", msg(parse("", "COPY notes FROM STDIN"), bind("", ""), run("", 0), flush()), 'G'},
	}
}

// messagesWhole are all messages that a client may send once it has sent its startup packet, as they should be.
func messagesWhole() map[byte][]byte {
	return map[byte][]byte{
		'Q': simple("SELECT 1"),
		'P': parse("", "SELECT 1"),
		'B': bind("", ""),
		'D': describe('S', ""),
		'E': run("", 0),
		'C': closing('S', ""),
		'S': syncs(),
		'H': flush(),
		'F': callFunction(1598), // random
		'X': pg.AppendTerminate(nil),
		'd': copyData("1\tone\n"),
		'c': copyDone(),
		'f': copyFail("no"),
		'p': message('p', []byte("SCRAM-SHA-256\x00\x00\x00\x00\x10n,,n=,r=abcdefgh")), // a password, or what SASL or GSSAPI has to say
	}
}

// messagesBroken are one message with all that can be wrong with its length and its body.
func messagesBroken(typ byte, maxFrame int) map[string][]byte {
	frame := func(length uint32, body string) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{typ}, length), body...)
	}
	all := map[string][]byte{
		"negative length":            frame(0xffffffff, ""),
		"most negative":              frame(0x80000000, ""),
		"2 GiB":                      frame(0x7fffffff, "x"),
		"more than a frame may have": frame(uint32(maxFrame+1), "x"),
		"length 0":                   frame(0, ""),
		"length 3":                   frame(3, ""),
		"empty":                      msg(frame(4, ""), syncs()),
		"garbage":                    msg(frame(20, "\xff\xff\xff\xff\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff"), syncs()),
		"text":                       msg(frame(12, "abcdefgh"), syncs()),
		"cut":                        frame(100, "x"),
		"half a header":              {typ, 0, 0},
	}
	if whole := messagesWhole()[typ]; whole != nil {
		all["whole"] = msg(whole, syncs())
		all["one byte more"] = msg(message(typ, append(whole[pg.HeaderSize:len(whole):len(whole)], 0)), syncs())
		if len(whole) > pg.HeaderSize {
			all["one byte less"] = msg(message(typ, whole[pg.HeaderSize:len(whole)-1]), syncs())
		}
	}
	return all
}

// lastFrames is what a server says from now on, in short, once the client says no more.
func lastFrames(conn net.Conn) string {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
	conn.SetReadDeadline(time.Now().Add(patience))
	all, err := io.ReadAll(conn)
	var words []string
	for len(all) > 0 {
		typ, n, broken := pg.Next(all, 64<<20)
		if broken != nil || n == 0 {
			return fmt.Sprintf("%v and then no frame: %q", words, all)
		}
		switch body := all[pg.HeaderSize:n]; typ {
		case 'E':
			e, err := pg.DecodeError(body)
			if err != nil {
				return err.Error()
			}
			words = append(words, e.Severity+" "+e.Code)
		case 'Z':
			words = append(words, "Z"+string(body))
		case 'N', 'S':
		default:
			words = append(words, string(typ))
		}
		all = all[n:]
	}
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		words = append(words, "it stays open")
	}
	return strings.Join(words, ", ")
}

// inState logs in and brings the session into a state.
func inState(ctx context.Context, addr, database string, secure *tls.Config, s sessionState) (net.Conn, error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	nc.SetDeadline(time.Now().Add(patience))
	server, err := pg.Connect(ctx, nc, &pg.ConnectConfig{User: testUser, Credential: pg.Password(testPassword), Database: database, TLS: secure})
	if err != nil {
		nc.Close()
		return nil, err
	}
	conn := server.Conn
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write(s.send); err != nil {
		return conn, err
	}
	for s.until != 0 {
		typ, err := readFrame(conn)
		if err != nil {
			return conn, fmt.Errorf("on the way to %s: %w", s.name, err)
		}
		if typ == s.until {
			break
		}
	}
	return conn, nil
}

// readFrame reads one frame and returns its type.
func readFrame(conn net.Conn) (typ byte, err error) {
	var head [pg.HeaderSize]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return 0, err
	}
	_, err = io.CopyN(io.Discard, conn, int64(pg.Want(head[:])-pg.HeaderSize))
	return head[0], err
}

// wanted is what the node is to say where PostgreSQL says something else; the same otherwise.
func wanted(typ byte, name string, s sessionState, postgres string) []string {
	const ends = "FATAL 08P01"
	copies, cut := s.until == 'G', name == "cut" || name == "half a header"
	switch {
	case impossible[name] && (name != "more than a frame may have" || typ != 'd'):
		return []string{ends} // PostgreSQL hangs up without a word
	case copies && cut, copies && postgres == "ERROR 08006, "+ends, copies && typ == 'X', copies && typ == 'd':
		// The client is gone in the middle of a COPY. PostgreSQL says goodbye to it twice, and the node not at all, or once, if it has
		// seen before that end what may not come.
		said := []string{"", ends}
		if typ == 'd' { // unless PostgreSQL has looked at the row before it heard of that
			said = append(said, postgres, "ERROR 22021", "ERROR 22021, ZI", "ERROR 22P04", "ERROR 22P04, ZI")
		}
		return said
	case copies && postgres == "ERROR 08P01, "+ends:
		return []string{ends}
	}
	mistakes := []string{postgres} // of several in one message any may be named
	if rest, found := strings.CutPrefix(postgres, "ERROR "); found {
		for _, code := range []string{"08P01", "22021", "25P02"} {
			mistakes = append(mistakes, "ERROR "+code+rest[len(code):])
		}
	}
	return mistakes
}

// impossible are lengths that PostgreSQL takes from nobody.
var impossible = map[string]bool{"negative length": true, "most negative": true, "2 GiB": true, "more than a frame may have": true, "length 0": true, "length 3": true}

// Every type of message that a client may send, and some that none may, whole and broken in every way, wherever in a session and on both
// transports: the node says what PostgreSQL says. Nobody else notices, and nothing is left of it.
func TestEveryMessageEverywhere(t *testing.T) {
	const maxFrame = 1 << 20
	secure := &tls.Config{InsecureSkipVerify: true}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute) // some thousand connections, to servers that fork for each
	defer cancel()
	plain, encrypted := newRig(t, rigOptions{maxFrame: maxFrame}), newRig(t, rigOptions{maxFrame: maxFrame, tls: true})
	others := []*pgx.Conn{plain.connect(pgx.QueryExecModeCacheStatement), encrypted.connect(pgx.QueryExecModeCacheStatement)}
	// ask says the bytes in that state, and returns the answer.
	ask := func(addr string, secure *tls.Config, s sessionState, bytes []byte) string {
		conn, err := inState(ctx, addr, "app", secure, s)
		if err != nil {
			t.Error(err)
			return ""
		}
		defer conn.Close()
		if _, err := conn.Write(bytes); err != nil {
			t.Error(err)
		}
		return lastFrames(conn)
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8)
	for _, s := range sessionStates() {
		for _, typ := range []byte("QPBDECSHFXdcfp\x00R\xff") {
			for name, bytes := range messagesBroken(typ, maxFrame) {
				slots <- struct{}{}
				wg.Go(func() {
					defer func() { <-slots }()
					want := wanted(typ, name, s, ask(servers(t)[0].primary.Addr(), nil, s, bytes))
					for _, r := range []*rig{plain, encrypted} {
						cfg := secure
						if !r.tls {
							cfg = nil
						}
						if said := ask(r.addr, cfg, s, bytes); !slices.Contains(want, said) {
							t.Errorf("%q, %s, %s, over TLS %v: %q, want one of %q", typ, name, s.name, r.tls, said, want)
						}
					}
				})
			}
		}
		wg.Wait()
		for _, other := range others {
			if _, err := other.Exec(ctx, "SELECT $1::int", 1); err != nil {
				t.Fatalf("another session, after messages that were sent %s: %v", s.name, err)
			}
		}
	}
	if n := notes(t); n != 0 {
		t.Errorf("%d rows were stored", n)
	}
	nothingLeft(t, plain, 1)
	nothingLeft(t, encrypted, 1)
}

// The console takes no message for what it is not, either.
func TestEveryMessageToTheConsole(t *testing.T) {
	const ends = "FATAL 08P01"
	r := newRig(t, rigOptions{})
	other := r.console(pgx.QueryExecModeExec)
	states := []sessionState{
		{name: "idle"},
		{"in a pipeline", msg(parse("", "SHOW VERSION"), bind("", ""), describe('P', ""), flush()), 'T'},
		{"after an error before the Sync", msg(parse("", "SHOW NOTHING"), flush()), 'E'},
	}
	for _, s := range states {
		for _, typ := range []byte("QPBDECSHFXdcfp\x00R\xff") {
			for name, bytes := range messagesBroken(typ, 1<<20) {
				conn, err := inState(ctxOf(t), r.addr, console.Name, nil, s)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := conn.Write(bytes); err != nil {
					t.Fatal(err)
				}
				said := lastFrames(conn)
				good := strings.HasSuffix(said, "Z"+string(pg.StatusIdle))
				switch {
				case impossible[name]:
					good = said == ends
				case name == "cut", name == "half a header", typ == 'X':
					good = said == ""
				case messagesWhole()[typ] == nil, typ == 'p':
					good = said == ends
				}
				if !good {
					t.Errorf("%q, %s, %s: %q", typ, name, s.name, said)
				}
				conn.Close()
			}
		}
	}
	r.command(other, "SHOW VERSION")
	nothingLeft(t, r, 1)
}

// loginState is where in a login a message arrives.
type loginState struct {
	name string
	send []byte // what brings a connection there
	hear int    // frames of the answer to that
}

// The same before anybody is let in: nothing but what belongs there is taken, and whoever sends it is told so or closed.
func TestEveryMessageBeforeTheLogin(t *testing.T) {
	const maxFrame, ends = 1 << 20, "FATAL 08P01"
	startup := pg.AppendStartup(nil, []pg.Param{{Key: "user", Value: testUser}, {Key: "database", Value: "app"}})
	first := messagesWhole()['p']
	states := []loginState{
		{name: "before the startup packet"},
		{"where the password belongs", startup, 1},
		{"where the proof belongs", msg(startup, first), 2},
	}
	for name, o := range map[string]rigOptions{"raw": {}, "tls": {tls: true}} {
		t.Run(name, func(t *testing.T) {
			o.maxFrame = maxFrame
			r := newRig(t, o)
			other := r.connect(pgx.QueryExecModeCacheStatement)
			for _, s := range states {
				for _, typ := range []byte("QPBDECSHFXdcfp\x00R\xff") {
					for name, bytes := range messagesBroken(typ, maxFrame) {
						conn, err := net.Dial("tcp", r.addr)
						if err != nil {
							t.Fatal(err)
						}
						conn.SetDeadline(time.Now().Add(patience))
						if r.tls {
							conn = startTLS(t, conn)
						}
						if _, err := conn.Write(s.send); err != nil {
							t.Fatal(err)
						}
						for range s.hear {
							if _, err := readFrame(conn); err != nil {
								t.Fatal(err)
							}
						}
						if _, err := conn.Write(bytes); err != nil {
							t.Fatal(err)
						}
						want := []string{ends}
						switch {
						case typ == 0 && s.hear == 0 && name == "more than a frame may have": // its length is that of a startup packet
							want = []string{""}
						case name == "half a header", name == "cut" && typ == 'p' && s.hear > 0: // it is gone in the middle
							want = []string{""}
						case typ == 'p' && name == "whole" && s.hear == 1: // its answer, and then a Sync instead of the proof
							want = []string{"R, " + ends}
						}
						if said := lastFrames(conn); !slices.Contains(want, said) {
							t.Errorf("%q, %s, %s: %q, want one of %q", typ, name, s.name, said, want)
						}
						conn.Close()
					}
				}
				if _, err := other.Exec(ctxOf(t), "SELECT $1::int", 1); err != nil {
					t.Fatalf("another session, after messages that were sent %s: %v", s.name, err)
				}
			}
			if r.tls { // nor is anything of it taken for the beginning of TLS, or answered in clear text
				for _, typ := range []byte("QPXdp\x00R\x16") {
					for name, bytes := range messagesBroken(typ, maxFrame) {
						conn, err := net.Dial("tcp", r.addr)
						if err != nil {
							t.Fatal(err)
						}
						startTLS(t, conn)
						if _, err := conn.Write(bytes); err != nil {
							t.Fatal(err)
						}
						if said := lastFrames(conn); strings.Contains(said, "FATAL") || strings.Contains(said, "stays open") {
							t.Errorf("%q, %s, instead of a ClientHello: %q", typ, name, said)
						}
						conn.Close()
					}
				}
			}
			nothingLeft(t, r, 1)
		})
	}
}

// startTLS asks for TLS, and goes on over it.
func startTLS(t *testing.T, conn net.Conn) net.Conn {
	t.Helper()
	if _, err := conn.Write(pg.AppendSSLRequest(nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
}

// nothingLeft waits until there are so many clients, and no server connection is in use.
func nothingLeft(t *testing.T, r *rig, clients int) {
	t.Helper()
	r.busy(t, 0)
	pgtest.Eventually(t, patience, func() error {
		if n := r.server.Stats().Clients; n != clients {
			return fmt.Errorf("%d connections, want %d", n, clients)
		}
		return nil
	})
}
