package console

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"rangefinder/wire/pg"
)

// newTestSession runs on testSnapshot; PAUSE fails, the other commands do nothing.
func newTestSession() *Session {
	return NewSession(func(c Command) (Table, *pg.Error) {
		switch c.Verb {
		case "SHOW":
			return Show(c, testSnapshot()), nil
		case "PAUSE":
			return Table{}, pg.NewError(pg.CodeObjectNotInPrerequisiteState, "not now")
		}
		return Table{}, nil
	})
}

func send(s *Session, frames ...[]byte) {
	for _, f := range frames {
		s.Message(f[0], f[pg.HeaderSize:])
	}
}

// told names the frames in s.Out by their types, errors by their codes, and empties it.
func told(t *testing.T, s *Session) string {
	t.Helper()
	var list []string
	for buf := s.Out; len(buf) > 0; {
		typ, n, err := pg.Next(buf, 1<<20)
		if err != nil || n == 0 {
			t.Fatalf("no frame: %q %v", buf, err)
		}
		name := string(typ)
		switch typ {
		case pg.TypeErrorResponse:
			e, err := pg.DecodeError(buf[pg.HeaderSize:n])
			if err != nil {
				t.Fatal(err)
			}
			name = e.Severity + " " + e.Code
		case pg.TypeCommandComplete:
			name = string(pg.CommandTag(buf[pg.HeaderSize:n]))
		}
		list = append(list, name)
		buf = buf[n:]
	}
	s.Out = nil
	return strings.Join(list, ",")
}

func bind(portal, statement string, params int, results ...int16) []byte {
	body := append([]byte(portal+"\x00"+statement+"\x00"), 0, 0)
	body = binary.BigEndian.AppendUint16(body, uint16(params))
	for range params {
		body = append(body, 0, 0, 0, 1, 'x')
	}
	body = binary.BigEndian.AppendUint16(body, uint16(len(results)))
	for _, r := range results {
		body = binary.BigEndian.AppendUint16(body, uint16(r))
	}
	return append(binary.BigEndian.AppendUint32([]byte{'B'}, uint32(len(body)+4)), body...)
}

func TestProtocol(t *testing.T) {
	parse := func(name, sql string, oids ...uint32) []byte { return pg.AppendParse(nil, name, sql, oids) }
	sync := pg.AppendSync(nil)
	for _, c := range []struct {
		name string
		send [][]byte
		want string
	}{
		{"a query", [][]byte{pg.AppendQuery(nil, "SHOW VERSION")}, "T,D,SHOW,Z"},
		{"two", [][]byte{pg.AppendQuery(nil, "SHOW VERSION; RECONNECT")}, "T,D,SHOW,RECONNECT,Z"},
		{"a tag without what would be a count", [][]byte{pg.AppendQuery(nil, "MERGE RANGE app.t 1-2"), parse("", "MERGE RANGE app.t 1-2"), bind("", "", 0), pg.AppendExecute(nil, "", 0), sync}, "T,MERGE,Z,1,2,MERGE,Z"},
		{"nothing", [][]byte{pg.AppendQuery(nil, " ; -- ping")}, "I,Z"},
		{"what fails ends the query", [][]byte{pg.AppendQuery(nil, "SHOW VERSION; PAUSE; SHOW VERSION")}, "T,D,SHOW,ERROR 55000,Z"},
		{"a mistake runs nothing", [][]byte{pg.AppendQuery(nil, "SHOW VERSION; SELECT 1")}, "ERROR 42601,Z"},
		{"too many", [][]byte{pg.AppendQuery(nil, strings.Repeat("SHOW VERSION;", 17))}, "ERROR 54000,Z"},
		{"prepared", [][]byte{parse("s", "show users"), pg.AppendDescribe(nil, 'S', "s"), sync, bind("", "s", 0), pg.AppendDescribe(nil, 'P', ""), pg.AppendExecute(nil, "", 0), sync}, "1,t,T,Z,2,T,D,D,SHOW,Z"},
		{"in pieces", [][]byte{parse("", "show users"), bind("", "", 0), pg.AppendExecute(nil, "", 1), pg.AppendExecute(nil, "", 1), sync}, "1,2,D,s,D,SHOW,Z"},
		{"without rows", [][]byte{parse("", "RESUME app"), pg.AppendDescribe(nil, 'S', ""), bind("", "", 0), pg.AppendExecute(nil, "", 0), sync}, "1,t,n,2,RESUME,Z"},
		{"once is enough", [][]byte{parse("", "RESUME app"), bind("", "", 0), pg.AppendExecute(nil, "", 0), pg.AppendExecute(nil, "", 0), sync}, "1,2,RESUME,ERROR 55000,Z"},
		{"prepared nothing", [][]byte{parse("", ""), bind("", "", 0), pg.AppendDescribe(nil, 'P', ""), pg.AppendExecute(nil, "", 0), sync}, "1,2,n,I,Z"},
		{"an error skips to the Sync", [][]byte{parse("", "SELECT $1"), bind("", "", 0), pg.AppendExecute(nil, "", 0), pg.AppendQuery(nil, "SHOW VERSION"), sync}, "ERROR 42601,Z"},
		{"declared parameters", [][]byte{parse("", "SHOW VERSION", 25), sync}, "ERROR 0A000,Z"},
		{"bound parameters", [][]byte{parse("", "SHOW VERSION"), bind("", "", 1), sync}, "1,ERROR 0A000,Z"},
		{"two in a prepared one", [][]byte{parse("", "SHOW VERSION;SHOW VERSION"), sync}, "ERROR 42601,Z"},
		{"a name twice", [][]byte{parse("s", "SHOW VERSION"), parse("s", "SHOW VERSION"), sync}, "1,ERROR 42P05,Z"},
		{"a portal twice", [][]byte{parse("", "SHOW VERSION"), bind("p", "", 0), bind("p", "", 0), sync}, "1,2,ERROR 42P03,Z"},
		{"closed", [][]byte{parse("s", "SHOW VERSION"), pg.AppendClose(nil, 'S', "s"), bind("", "s", 0), sync}, "1,3,ERROR 26000,Z"},
		{"no such portal", [][]byte{pg.AppendExecute(nil, "p", 0), sync, pg.AppendDescribe(nil, 'P', "p"), sync, pg.AppendClose(nil, 'P', "p"), sync}, "ERROR 34000,Z,ERROR 34000,Z,3,Z"},
		{"a portal ends with its Sync", [][]byte{parse("", "SHOW USERS"), bind("p", "", 0), pg.AppendExecute(nil, "p", 1), sync, pg.AppendExecute(nil, "p", 1), sync}, "1,2,D,s,Z,ERROR 34000,Z"},
		{"formats that do not fit", [][]byte{parse("", "SHOW USERS"), bind("", "", 0, 1, 1), sync, parse("", "SHOW USERS"), bind("", "", 0, 7), sync}, "1,ERROR 08P01,Z,1,ERROR 22023,Z"},
		{"a function call", [][]byte{{'F', 0, 0, 0, 4}}, "ERROR 0A000,Z"},
		{"stray COPY", [][]byte{{'d', 0, 0, 0, 4}, {'c', 0, 0, 0, 4}}, ""},
		{"no such message", [][]byte{{'?', 0, 0, 0, 4}}, "FATAL 08P01"},
		{"a text without an end", [][]byte{{'Q', 0, 0, 0, 5, 'x'}, pg.AppendQuery(nil, ";")}, "ERROR 08P01,Z,I,Z"},
		{"a Sync and a Flush with a body", [][]byte{{'S', 0, 0, 0, 5, 'x'}, {'H', 0, 0, 0, 5, 'x'}, pg.AppendQuery(nil, ";"), sync}, "ERROR 08P01,Z,ERROR 08P01,Z"},
		{"a short Bind", [][]byte{{'B', 0, 0, 0, 6, 0, 0}, sync}, "ERROR 08P01,Z"},
	} {
		s := newTestSession()
		send(s, c.send...)
		if got := told(t, s); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestStatementsAreBounded(t *testing.T) {
	s := newTestSession()
	for i := range maxStatements {
		send(s, pg.AppendParse(nil, fmt.Sprint("s", i), "SHOW VERSION", nil))
	}
	told(t, s)
	send(s, pg.AppendParse(nil, "more", "SHOW VERSION", nil), pg.AppendSync(nil))
	if got := told(t, s); got != "ERROR 54000,Z" {
		t.Error(got)
	}
	for i := range maxPortals + 1 {
		send(s, bind(fmt.Sprint("p", i), "s0", 0))
	}
	if got := told(t, s); !strings.HasSuffix(got, "2,ERROR 54000") {
		t.Error(got)
	}
}

func TestBinaryNumbers(t *testing.T) {
	s := newTestSession()
	send(s, pg.AppendParse(nil, "", "SHOW USERS", nil), bind("", "", 0, 1), pg.AppendExecute(nil, "", 1))
	if want := []byte("\x00\x00\x00\x03app\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x03"); !bytes.Contains(s.Out, want) {
		t.Errorf("%q is not in %q", want, s.Out)
	}
}

func FuzzSession(f *testing.F) {
	f.Add(slices.Concat(pg.AppendParse(nil, "s", "SHOW POOLS", nil), bind("", "s", 0, 1), pg.AppendExecute(nil, "", 2), pg.AppendSync(nil)))
	f.Add(pg.AppendQuery(nil, "SHOW CLIENTS; PAUSE"))
	f.Fuzz(func(t *testing.T, in []byte) {
		s := newTestSession()
		for !s.Closed {
			typ, n, err := pg.Next(in, 64<<10)
			if err != nil || n == 0 {
				return
			}
			s.Message(typ, in[pg.HeaderSize:n])
			told(t, s)
			in = in[n:]
		}
	})
}
