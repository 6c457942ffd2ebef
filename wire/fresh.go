package wire

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
)

// fresh is what a user finds on a new connection to a database: the parameters that servers report, and the search_path,
// which they do not.
type fresh struct {
	params     map[string]string
	searchPath string
	defaults   string // what ALTER ROLE and ALTER DATABASE have set for it
	level      string // default_transaction_isolation
	role       string // that it begins as, by ALTER ROLE ... SET role; "": as itself
	at         time.Time
}

// keepFresh is how long an answer holds: a role's or a database's defaults may change.
const keepFresh = time.Minute

// freshFor returns what id finds on a new connection, from a backend. So a client that no backend would take learns it when
// it connects, in the backend's words.
func (s *Server) freshFor(ctx context.Context, id pool.Identity, l *live) (*fresh, *pg.Error) {
	f, answered := s.knownFresh(ctx, id)
	if answered == nil {
		return f, nil
	}
	defer answered()
	c := newCore(&l.env, id.User, id.Database)
	c.table = s.cfg.FIB.Load()
	slot := c.anySlot(need{catalogs: true})
	if slot == nil {
		if f != nil {
			return f, nil
		}
		return nil, noShard(id.Database)
	}
	var last error
	whose := ""
	hops := forQuestions(slot, id.Database)
	if other := c.anySlot(need{}); (len(hops) == 0 || !hops[0].Healthy) && other != nil && other != slot { // the usual shard is away: users of the others are let in all the same
		hops = slices.Concat(forQuestions(other, id.Database), hops)
	}
	if len(hops) == 0 && f == nil {
		return nil, noShard(id.Database)
	}
	end := time.Now().Add(l.StartupTimeout)
	for i := range hops {
		// A backend that does not answer at all must leave time for the others.
		now, err := s.askFresh(ctx, time.Until(end)/time.Duration(len(hops)-i), hops[i].Backend, id, f == nil)
		if err == nil {
			if f != nil && f.defaults != now.defaults { // connections take them when they are made: those that there are have the old ones
				s.pools.Reconnect(id.Database)
			}
			s.mu.Lock()
			s.fresh[id] = now
			s.mu.Unlock()
			return now, nil
		}
		last, whose = err, hops[i].Backend.Name // also a refusal: a replica that is behind may lack the role or the database that another copy has
	}
	if f != nil {
		return f, nil
	}
	if e := loginRefused(last); e != nil {
		return nil, e
	}
	if e := misbehaved(whose, last); e != nil {
		return nil, e
	}
	var ee *pool.ExhaustedError
	if errors.As(last, &ee) {
		return nil, c.refusal(last)
	}
	var pe *pg.Error
	if errors.As(last, &pe) {
		return nil, pe
	}
	return nil, pg.NewError(pg.CodeCannotConnectNow, "no backend can be reached").WithDetail(fmt.Sprint(last))
}

// knownFresh is what was learned of id, nil if nothing was. Where that is too old, answered is not nil: whoever has got it asks, and calls it then. Of those who come
// at a time one asks for all, and if he is told nothing, each of them for himself.
func (s *Server) knownFresh(ctx context.Context, id pool.Identity) (f *fresh, answered func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if other := s.asking[id]; other != nil && !s.fresh[id].holds() {
		s.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
		}
		s.mu.Lock()
	}
	f = s.fresh[id]
	switch {
	case f.holds():
		return f, nil
	case s.asking[id] != nil:
		return f, func() {}
	}
	mine := make(chan struct{})
	s.asking[id] = mine
	return f, func() {
		s.mu.Lock()
		delete(s.asking, id)
		s.mu.Unlock()
		close(mine)
	}
}

// holds reports whether it is there, and not too old.
func (f *fresh) holds() bool { return f != nil && time.Since(f.at) < keepFresh }

// ageFresh has new sessions of a database ask anew.
func (s *Server) ageFresh(database string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, f := range s.fresh {
		if id.Database == database {
			old := *f
			old.at = time.Time{}
			s.fresh[id] = &old
		}
	}
}

// freshQuery asks for the search_path, role, default_transaction_isolation, and the defaults of the role and its database. No numbers of theirs: they differ from
// shard to shard.
const freshQuery = `SELECT pg_catalog.concat(pg_catalog.octet_length(pg_catalog.current_setting('search_path')), ':', pg_catalog.current_setting('search_path'), pg_catalog.octet_length(pg_catalog.current_setting('role')), ':', pg_catalog.current_setting('role'), pg_catalog.current_setting('default_transaction_isolation'), ';', pg_catalog.string_agg(pg_catalog.concat(s.setdatabase OPERATOR(pg_catalog.=) 0, s.setrole OPERATOR(pg_catalog.=) 0, s.setconfig), ' ' ORDER BY pg_catalog.concat(s.setdatabase OPERATOR(pg_catalog.=) 0, s.setrole OPERATOR(pg_catalog.=) 0)))
 FROM pg_catalog.pg_db_role_setting s
 WHERE (s.setdatabase OPERATOR(pg_catalog.=) 0 OR s.setdatabase OPERATOR(pg_catalog.=) (SELECT oid FROM pg_catalog.pg_database WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()))
 AND (s.setrole OPERATOR(pg_catalog.=) 0 OR s.setrole OPERATOR(pg_catalog.=) (SELECT oid FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) SESSION_USER))`

// read takes its answer.
func (f *fresh) read(answer string) {
	path, rest, ok := sized(answer)
	if !ok {
		return
	}
	if f.searchPath = path; path == "" { // the same, and to be told from nothing
		f.searchPath = `""`
	}
	if f.role, rest, ok = sized(rest); !ok || f.role == "none" {
		f.role = ""
	}
	f.level, f.defaults, _ = strings.Cut(rest, ";")
}

// sized takes a text from the front of s that has its length in bytes before it.
func sized(s string) (text, rest string, ok bool) {
	size, rest, _ := strings.Cut(s, ":")
	n, err := strconv.Atoi(size)
	if err != nil || n < 0 || n > len(rest) {
		return "", "", false
	}
	return rest[:n], rest[n:], true
}

// askFresh asks one backend, over a connection that is made for that: those of sessions are begun with a search_path, see
// pool.Identity, and what is set by default they know as of their own beginning. patient: see forQuestion.
func (s *Server) askFresh(ctx context.Context, limit time.Duration, b *rib.Backend, id pool.Identity, patient bool) (*fresh, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn, err := s.forQuestion(ctx, b, id, patient)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	conn.Net.SetDeadline(deadline)
	value, err := ask(conn.Conn, freshQuery)
	if err != nil {
		conn.lost()
		return nil, err
	}
	f := &fresh{params: make(map[string]string, len(conn.Params)), at: time.Now()}
	f.read(value)
	for k, v := range conn.Params {
		f.params[k] = v
		if hiddenParam(k) { // writes find a primary, whatever backend was asked
			f.params[k] = "off"
		}
	}
	conn.bye()
	return f, nil
}

// behindReset is a text behind what makes a connection the one that it was after its login. left: somebody may have left on it what nobody
// can see.
func behindReset(conn *pool.Conn, left bool, sql string) string {
	switch {
	case left:
		return cleanSession + sql
	case conn.Applied != "":
		return resetSettings + sql
	}
	return sql
}

// unclean reports whether another session may have left on a connection what nobody can see.
func unclean(conn *pool.Conn, session uint64) bool { return conn.Left != 0 && conn.Left != session }

// cleaned follows behindReset's text, once the server has carried it out.
func cleaned(conn *pool.Conn, left bool, applied string) {
	if conn.Applied = applied; left {
		conn.Left = 0
		conn.Prepared.Clear()
	}
}

// ask runs a text of ours on a connection and returns the first value of its last row.
func ask(conn *pool.Conn, sql string) (value string, err error) {
	if _, err := conn.Net.Write(pg.AppendQuery(nil, sql)); err != nil {
		return "", err
	}
	err = readAnswer(conn, 1<<20, func(typ byte, body []byte) error {
		switch typ {
		case pg.TypeDataRow: // one column: its count, its length, its text
			if len(body) > 6 {
				value = string(body[6:])
			}
		case pg.TypeErrorResponse:
			e, err := pg.DecodeError(body)
			if err != nil {
				return pg.Garbled(err)
			}
			return e
		}
		return nil
	})
	return value, err
}

// readAnswer hands on what a server says up to its ReadyForQuery, in messages of up to most bytes, until handle returns an error.
// Bodies are valid until handle returns.
func readAnswer(conn *pool.Conn, most int, handle func(typ byte, body []byte) error) error {
	var buf []byte
	for {
		if len(buf) == cap(buf) {
			grown := make([]byte, len(buf), max(4096, 2*cap(buf)))
			copy(grown, buf)
			buf = grown
		}
		n, err := conn.Net.Read(buf[len(buf):cap(buf)])
		if n == 0 && err != nil {
			return err
		}
		buf = buf[:len(buf)+n]
		for {
			typ, n, err := pg.Next(buf, most)
			if err != nil {
				return pg.Garbled(err)
			}
			if n == 0 {
				break
			}
			body := buf[pg.HeaderSize:n]
			switch typ {
			case pg.TypeReadyForQuery:
				return nil
			case pg.TypeParameterStatus:
				name, v, err := pg.DecodeParameterStatus(body)
				if err != nil {
					return pg.Garbled(err)
				}
				conn.Params[name] = v
			default:
				if err := handle(typ, body); err != nil {
					return err
				}
			}
			buf = buf[n:]
		}
	}
}

func stack() string { return string(debug.Stack()) }
