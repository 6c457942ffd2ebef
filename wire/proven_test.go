package wire_test

import (
	"context"
	"errors"
	"maps"
	"net"
	"testing"

	"rangefinder/wire/pg"
)

// A client that begins with parameters is told of them as by PostgreSQL, and is not let in with those that PostgreSQL refuses.
func TestStartupParameters(t *testing.T) {
	r := newRig(t, rigOptions{shards: alone(t)})
	login := func(addr string, params []pg.Param) (map[string]string, string) {
		t.Helper()
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		ctx, cancel := context.WithTimeout(ctxOf(t), patience)
		defer cancel()
		server, err := pg.Connect(ctx, nc, &pg.ConnectConfig{User: testUser, Credential: pg.Password(testPassword), Database: "app", Params: params})
		if err == nil {
			return server.Params, ""
		}
		var e *pg.Error
		if !errors.As(err, &e) {
			t.Fatal(err)
		}
		return nil, e.Severity + " " + e.Code + " " + e.Message
	}
	for _, p := range []pg.Param{
		{Key: "client_encoding", Value: "foo"}, {Key: "work_mem", Value: "abc"}, {Key: "nosuch", Value: "1"}, {Key: "options", Value: "-c work_mem=1"}, {Key: "role", Value: "nobody_at_all"},
		{Key: "DateStyle", Value: "ISO"}, {Key: "datestyle", Value: "German"}, {Key: "TimeZone", Value: "utc"}, {Key: "timezone", Value: "europe/berlin"}, {Key: "client_encoding", Value: "latin1"},
		{Key: "standard_conforming_strings", Value: "0"}, {Key: "default_transaction_read_only", Value: "true"}, {Key: "application_name", Value: "psql"}, {Key: "application_name", Value: "caf\u00e9"},
		{Key: "IntervalStyle", Value: "ISO_8601"}, {Key: "search_path", Value: "s1"}, {Key: "options", Value: "-c DateStyle=SQL -c TimeZone=+3"}, {Key: "statement_timeout", Value: "1s"},
	} {
		want, refusal := login(alone(t)[0].primary.Addr(), []pg.Param{p})
		for range 2 { // the second time it is known
			got, refused := login(r.addr, []pg.Param{p})
			if refused != refusal {
				t.Errorf("%s=%s: refused with %q, by PostgreSQL with %q", p.Key, p.Value, refused, refusal)
			}
			if !maps.Equal(got, want) {
				t.Errorf("%s=%s: told %v, by PostgreSQL %v", p.Key, p.Value, got, want)
			}
		}
	}
}
