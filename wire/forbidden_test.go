package wire_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/wire/pg"
)

// A server that says what it may not say at that moment: its client gets what came before, and an error, and nothing of what is forbidden.
func TestNothingForbiddenReachesTheClient(t *testing.T) {
	frame := func(typ byte, body string) []byte { return pg.AppendFrame(nil, typ, []byte(body)) }
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	query := func(sql string) []byte { return pg.AppendQuery(nil, sql) }
	extended := func(sql string) []byte {
		b := pg.AppendBindText(pg.AppendParse(nil, "", sql, nil))
		return pg.AppendSync(pg.AppendExecute(pg.AppendDescribe(b, pg.KindPortal, ""), "", 0))
	}
	const odd, copyOut, copyIn = "SELECT odd FROM notes", "COPY notes TO STDOUT", "COPY notes FROM STDIN"
	var (
		columns = pg.AppendRowDescription(nil, []pg.Field{{Name: "x"}})
		row     = frame('D', "\x00\x01\x00\x00\x00\x05alien")
		done    = pg.AppendCommandComplete(nil, "SELECT 1")
		ready   = pg.AppendReady(nil, 'I')
		parsed  = frame('1', "")
		bound   = frame('2', "")
		copies  = "\x00\x00\x01\x00\x00"
		rest    = join(done, ready)
	)
	call := func(sql string) []byte { // FUNCTION and a digit
		return frame('F', "\x00\x00\x00"+string(sql[len(sql)-1]-'0')+"\x00\x00\x00\x00\x00\x00")
	}
	type story struct {
		ask    func(sql string) []byte
		sql    string
		answer []byte
		sees   string // of frames, before the error
	}
	stories := map[string]story{
		"a row without columns":         {query, odd, join(row, rest), ""},
		"ready at once":                 {query, odd, ready, ""},
		"ready before the end":          {query, odd, join(columns, row, ready), "TD"},
		"a row within COPY":             {query, copyOut, join(frame('H', copies), row, rest), "H"},
		"columns within COPY":           {query, copyOut, join(frame('H', copies), columns, rest), "H"},
		"COPY within COPY":              {query, copyOut, join(frame('H', copies), frame('G', copies), rest), "H"},
		"data without COPY":             {query, copyOut, join(frame('d', "alien"), rest), ""},
		"the end of data without COPY":  {query, copyOut, join(frame('c', ""), rest), ""},
		"the end without that of data":  {query, copyOut, join(frame('H', copies), frame('d', "x\n"), rest), "Hd"},
		"data behind their end":         {query, copyOut, join(frame('H', copies), frame('c', ""), frame('d', "alien"), rest), "Hc"},
		"the end while it takes data":   {query, copyIn, join(frame('G', copies), rest), "G"},
		"rows while it takes data":      {query, copyIn, join(frame('G', copies), columns, row, rest), "G"},
		"COPY twice":                    {query, copyIn, join(frame('G', copies), frame('G', copies)), "G"},
		"COPY instead of a Bind":        {extended, odd, join(parsed, frame('G', copies)), "1"},
		"COPY out instead of a Bind":    {extended, odd, join(parsed, frame('H', copies)), "1"},
		"the end instead of a Bind":     {extended, odd, join(parsed, rest), "1"},
		"ready instead of a Bind":       {extended, odd, join(parsed, ready), "1"},
		"a Bind instead of a Parse":     {extended, odd, join(bound, parsed), ""},
		"columns instead of rows":       {extended, odd, join(parsed, bound, columns, columns), "12T"},
		"no columns instead of rows":    {extended, odd, join(parsed, bound, columns, frame('n', "")), "12T"},
		"a suspension before a Bind":    {extended, odd, join(parsed, frame('s', "")), "1"},
		"a row instead of the end":      {extended, odd, join(parsed, bound, columns, row, done, row, ready), "12TDC"},
		"an end without function value": {call, "FUNCTION 1", ready, ""},
		"rows of a function":            {call, "FUNCTION 2", join(columns, row, rest), ""},
		"the end of a function":         {call, "FUNCTION 3", join(done, ready), ""},
	}
	for _, typ := range []byte("123nstcdVGRKWvpQ\x00y\xff") {
		body := ""
		switch typ {
		case 'R':
			body = "\x00\x00\x00\x00"
		case 'K':
			body = "\x00\x00\x00\x01\x00\x00\x00\x02"
		case 't':
			body = "\x00\x00"
		case 'W', 'G':
			body = copies
		}
		if typ != 'G' { // which may be the answer to any text
			stories[fmt.Sprint("in a Query, type ", typ)] = story{query, odd, join(columns, row, frame(typ, body), rest), "TD"}
		}
		if typ != '1' {
			stories[fmt.Sprint("for a Parse, type ", typ)] = story{extended, odd, join(frame(typ, body), parsed), ""}
		}
	}
	byText := make(map[string]story, len(stories))
	for name, s := range stories {
		if !strings.HasPrefix(s.sql, "FUNCTION") {
			s.sql += " -- " + name
		}
		byText[s.sql], stories[name] = s, s
	}
	fake := fakeServer(t, fakeSystemID, func(c *pgtest.FakeConn, sql string, status byte) error {
		if s, ok := byText[sql]; ok {
			return pgtest.SendBytes(s.answer)(c)
		}
		return answered(c, sql, status)
	})
	bothAtOnce(t, func(t *testing.T, buffered bool) {
		r := newRig(t, rigOptions{buffered: buffered, backends: fakeAlone(fake)})
		for name, s := range stories {
			conn := pgtest.Hijack(ctxOf(t), t, r.connect(pgx.QueryExecModeSimpleProtocol).PgConn())
			conn.SetDeadline(time.Now().Add(patience))
			if _, err := conn.Write(s.ask(s.sql)); err != nil {
				t.Fatal(err)
			}
			got, failure, err := readFrames(conn)
			if err != nil || got != s.sees+"EZ" {
				t.Errorf("%s: the client gets %q, %v, want %q", name, got, err, s.sees+"EZ")
				continue
			}
			if failure.Code != pg.CodeConnectionFailure && failure.Code != pg.CodeTransactionResolutionUnknown || !strings.Contains(failure.Message, "shard_1-fake") {
				t.Errorf("%s: %+v", name, failure)
			}
			if _, err := conn.Write(query("SELECT fine")); err != nil {
				t.Fatal(err)
			}
			if got, _, err := readFrames(conn); err != nil || got != "TDCZ" {
				t.Errorf("%s: afterwards the client gets %q, %v", name, got, err)
			}
			conn.Close()
		}
	})
}
