package probe

import (
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"rangefinder/gossip/memnet"
)

// server is a PostgreSQL in virtual time that answers the probe as told.
type server struct {
	host   *memnet.Host
	ln     *memnet.Listener
	answer atomic.Pointer[func(*pgproto3.Backend, net.Conn) bool] // to a query; false: close
	login  atomic.Pointer[string]                                 // SQLSTATE that refuses every login; nil: all may
	shut   atomic.Bool                                            // it closes every new connection without a word
	drips  atomic.Bool                                            // it says something during a login for ever, and lets nobody in
	grants atomic.Bool                                            // to read the histories of its timelines
}

const port = 5432

// row answers a query. Of a probe's columns the last two may be left out, the last four, five or seven.
func row(columns ...string) func(*pgproto3.Backend, net.Conn) bool {
	if len(columns) == 4 {
		columns = append(columns, "0", "10")
	}
	if len(columns) == 6 {
		columns = append(columns, "0/3000060")
	}
	if len(columns) == 7 {
		columns = append(columns, "NULL", "f")
	}
	if len(columns) == 9 {
		columns = append(columns, "NULL", "NULL")
	}
	return func(b *pgproto3.Backend, _ net.Conn) bool {
		d := &pgproto3.RowDescription{}
		r := &pgproto3.DataRow{}
		for _, c := range columns {
			d.Fields = append(d.Fields, pgproto3.FieldDescription{Name: []byte("c"), DataTypeOID: 25, DataTypeSize: -1})
			if c == "NULL" {
				r.Values = append(r.Values, nil)
			} else {
				r.Values = append(r.Values, []byte(c))
			}
		}
		b.Send(d)
		b.Send(r)
		b.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
		b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		return b.Flush() == nil
	}
}

func startServer(t *testing.T, n *memnet.Net) *server {
	s := &server{host: n.Host("db", "fra")}
	s.says(row("f", "1", "0", "77"))
	s.start(t)
	return s
}

func (s *server) says(f func(*pgproto3.Backend, net.Conn) bool) { s.answer.Store(&f) }

func (s *server) start(t *testing.T) {
	t.Helper()
	ln, err := s.host.Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	s.ln = ln
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go s.serve(c)
		}
	}()
}

func (s *server) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	if s.shut.Load() {
		return
	}
	b := pgproto3.NewBackend(c, c)
	if _, err := b.ReceiveStartupMessage(); err != nil {
		return
	}
	if code := s.login.Load(); code != nil {
		b.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: *code, Message: "not now"})
		_ = b.Flush()
		return
	}
	for s.drips.Load() {
		b.Send(&pgproto3.NoticeResponse{Severity: "NOTICE", Code: "00000", Message: "wait"})
		if b.Flush() != nil {
			return
		}
		<-time.After(time.Second) // the bubble's
	}
	b.Send(&pgproto3.AuthenticationOk{})
	b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	if b.Flush() != nil {
		return
	}
	for {
		m, err := b.Receive()
		if err != nil {
			return
		}
		q, ok := m.(*pgproto3.Query)
		if !ok {
			continue
		}
		answer := *s.answer.Load()
		switch {
		case strings.Contains(q.String, "rolreplication") && s.grants.Load():
			answer = row("t")
		case strings.Contains(q.String, "rolreplication"):
			answer = row("f")
		case strings.HasPrefix(q.String, "TIMELINE_HISTORY"):
			answer = row("00000002.history", "1\t0/5000\tno recovery target specified\n")
		}
		if !answer(b, c) {
			return
		}
	}
}

// lab is one prober and one server, a millisecond apart, in a bubble.
func lab(t *testing.T, f func(n *memnet.Net, s *server, p *Prober, sink *seen)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New(1)
		n.SetRTT(memnet.Everyone, memnet.Everyone, time.Millisecond)
		s := startServer(t, n)
		sink := newSeen()
		p := New(Config{
			Settings: Settings{Backends: []Target{{Name: "b", Shard: "shard_1", Region: "fra", Addr: s.host.Addr(port)}}, User: "prober"},
			Sink:     sink, Logger: quiet(), Lost: sink.Lost, Recovered: sink.Recovered, Saw: sink.Saw, Quiet: sink.Quiet,
			Dial: n.Host("node", "fra").Dial,
		})
		if err := p.Open(); err != nil {
			t.Fatal(err)
		}
		f(n, s, p, sink)
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		n.Close()
	})
}

func between(t *testing.T, what string, got, least, most time.Duration) {
	t.Helper()
	if got < least || got > most {
		t.Errorf("%s took %v, want %v to %v", what, got, least, most)
	}
}
