package wire_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgproto3/v2"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// errStop ends eachRequest.
var errStop = errors.New("stop")

// eachRequest is a step of a fake server: it answers what the node asks on its own account, the login's question and the BEGIN before a
// request, and calls do with the text of each other Query, of each Sync with what was parsed before it, and of each FunctionCall with FUNCTION and its
// number, and with the status of the transaction. When do returns errStop, the script goes on; it ends with the connection.
func eachRequest(do func(c *pgtest.FakeConn, sql string, status byte) error) pgtest.Step {
	return func(c *pgtest.FakeConn) error {
		status, parsed := byte('I'), ""
		for {
			sql, whole := "", false
			c.SetReadDeadline(time.Now().Add(patience))
			err := pgtest.ExpectThat(func(m pgproto3.FrontendMessage) error {
				switch m := m.(type) {
				case *pgproto3.Query:
					sql, whole, parsed = m.String, true, ""
				case *pgproto3.Parse:
					parsed = m.Query
				case *pgproto3.Sync:
					sql, whole, parsed = parsed, true, ""
				case *pgproto3.FunctionCall:
					sql, whole, parsed = fmt.Sprint("FUNCTION ", m.Function), true, ""
				}
				return nil
			})(c)
			switch {
			case err != nil:
				return pgtest.Close()(c)
			case strings.HasPrefix(parsed, "BEGIN"): // without a Sync behind it
				status, parsed = 'T', ""
				err = pgtest.Send(&pgproto3.ParseComplete{}, &pgproto3.BindComplete{}, &pgproto3.CommandComplete{CommandTag: []byte("BEGIN")})(c)
			case strings.HasPrefix(sql, "SELECT pg_catalog.concat"):
				err = pgtest.SendBytes(rowOf("6:public", status))(c)
			case whole:
				err = do(c, sql, status)
			}
			switch {
			case err == errStop:
				return nil
			case err != nil:
				return pgtest.Close()(c)
			}
		}
	}
}

// rowOf is the answer to a Query with one value.
func rowOf(value string, status byte) []byte {
	row, err := (&pgproto3.DataRow{Values: [][]byte{[]byte(value)}}).Encode(pg.AppendRowDescription(nil, []pg.Field{{Name: "x"}}))
	if err != nil {
		panic(err)
	}
	return pg.AppendReady(pg.AppendCommandComplete(row, "SELECT 1"), status)
}

// answered answers a Query with its own text.
func answered(c *pgtest.FakeConn, sql string, status byte) error {
	return pgtest.SendBytes(rowOf(sql, status))(c)
}

// firstRequest leaves the first request to the steps behind it.
func firstRequest(*pgtest.FakeConn, string, byte) error { return errStop }

// fakeServer is a server that lets everybody in; do is as for eachRequest, and last are the steps behind it.
func fakeServer(t *testing.T, systemID uint64, do func(c *pgtest.FakeConn, sql string, status byte) error, last ...pgtest.Step) *pgtest.Fake {
	t.Helper()
	return pgtest.NewFake(t, append(pgtest.Script{pgtest.Login(), pgtest.Identify(systemID), eachRequest(do)}, last...))
}

// fakeAlone is a fake server as the only backend of shard_1.
func fakeAlone(fake *pgtest.Fake) []rib.Backend {
	return []rib.Backend{{Name: "shard_1-fake", Shard: "shard_1", Region: "fra", Addr: fake.Addr()}}
}

// behindFake is a rig of the shared primaries, the first of which has the fake as its closest replica.
func behindFake(t *testing.T, o rigOptions, fake *pgtest.Fake) *rig {
	t.Helper()
	for _, s := range servers(t) {
		o.shards = append(o.shards, shardServers{primary: s.primary})
	}
	r := newRig(t, o)
	r.announce(rib.Backend{Name: "shard_1-fake", Shard: "shard_1", Region: "fra", Addr: fake.Addr(), SystemID: servers(t)[0].primary.SystemID()}, rib.Replica)
	pgtest.Eventually(t, patience, func() error {
		if hops := r.handle.Load().Slot("shard_1").Candidates().Reads; hops[0].Backend.Name != "shard_1-fake" {
			return fmt.Errorf("%s is closest", hops[0].Backend.Name)
		}
		return nil
	})
	return r
}

// untilTaken waits until the node has read all that was sent: then it has seen it before it sees the end.
func untilTaken(c *pgtest.FakeConn) error {
	// A line has the two ends as ADDRESS:PORT, the state, and what is unsent and unread, all in hexadecimal.
	ends := fmt.Sprintf("0100007F:%04X 0100007F:%04X 01 ", c.RemoteAddr().(*net.TCPAddr).Port, c.LocalAddr().(*net.TCPAddr).Port)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return pgtest.Wait(ctx, 2*time.Millisecond, func() error {
		table, err := os.ReadFile("/proc/net/tcp")
		if err != nil {
			return err
		}
		_, line, there := strings.Cut(string(table), ends)
		if there && !strings.HasPrefix(line, "00000000:00000000 ") {
			return errors.New("the node does not read")
		}
		return nil
	})
}
