package wire

import (
	"fmt"
	"net"
	"sync"
	"time"

	"rangefinder/wire/console"
	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
)

// serve takes one connection through its login, and returns its session; nil if it was here for something else, or not let in. A
// panic ends this connection and no other.
func (s *Server) serve(conn net.Conn) *session {
	defer func() {
		if r := recover(); r != nil {
			s.log.Error("login panicked", "client", conn.RemoteAddr(), "panic", r, "stack", stack())
		}
	}()
	l := s.live.Load() // for the whole of this login
	client, err := pg.Accept(conn, l.accept)
	if err != nil {
		s.turnedAway(conn, err)
		return nil
	}
	if client.Startup.Kind == pg.KindCancel {
		s.cancelRequest(client.Startup.PID, client.Startup.Secret)
		return nil
	}
	s.cfg.Guard.Admitted(client.User, client.Database, client.Shown)
	if client.Database == console.Name {
		s.serveConsole(conn, client, l)
		return nil
	}
	if kind, e := s.seats.take(&l.Limits, client.User, client.Database); e != nil {
		s.refusedBy(kind)
		s.refuse(client, e)
		return nil
	}
	leave := sync.OnceFunc(func() { s.seats.leave(client.User, client.Database) })
	begun := false
	defer func() {
		if !begun {
			leave()
		}
	}()
	if !s.loggedIn(conn) {
		return nil
	}
	ses, e := s.begin(conn, client, l)
	if e != nil {
		leave() // first: it may try again as soon as it hears of it
		s.refuse(client, e)
		return nil
	}
	s.pools.Join(ses.id)
	begun = true
	return ses
}

// refuse tells an authenticated client why it cannot go on.
func (s *Server) refuse(client *pg.Client, e *pg.Error) {
	client.Conn.SetWriteDeadline(time.Now().Add(time.Second))
	client.Conn.Write(pg.AppendError(client.Held, e.Fatal()))
	client.Conn.Close()
	s.log.Info("client refused", "client", client.Conn.RemoteAddr(), "user", client.User, "database", client.Database, "err", e)
}

// maxPath bounds a search_path that connections are begun with, in bytes: a startup packet has room for that, beside user and database.
const maxPath = 8000

// begin makes the session of an authenticated client and writes what a server says at the start of one.
func (s *Server) begin(conn net.Conn, client *pg.Client, l *live) (*session, *pg.Error) {
	if _, ok := l.Databases[client.Database]; !ok {
		return nil, pg.NewError(pg.CodeInvalidCatalogName, `database "`+client.Database+`" does not exist`).
			WithHint("Name it under [[databases]] in the node's configuration.")
	}
	id := pool.Identity{User: client.User, Database: client.Database}
	g := s.gateOf(client.Database)
	if g.disabled.Load() {
		return nil, pg.Errorf(pg.CodeObjectNotInPrerequisiteState, "database \"%s\" is not currently accepting connections", client.Database).
			WithHint("It was disabled on this node: ENABLE it in the console.")
	}
	if err := s.pass(s.ctx, g, client.Conn); err != nil {
		return nil, asError(err)
	}
	f, e := s.freshFor(s.ctx, id, l)
	g.leave()
	if e != nil {
		return nil, e
	}
	if id.Path = f.searchPath; len(id.Path) > maxPath {
		return nil, pg.NewError(pg.CodeProgramLimitExceeded, "the search_path that the role begins with is too long").
			WithDetail(fmt.Sprintf("It has %d bytes. Up to %d can be sent when a connection is begun.", len(id.Path), maxPath)).WithHint("ALTER ROLE, or DATABASE, ... SET search_path to a shorter one.")
	}
	c := newCore(&l.env, client.User, client.Database)
	c.own.database, c.own.acrossDatabase = &g.consistency, &g.across
	c.own.scatterDatabase, c.own.isolatedDatabase = &g.scatter, &g.isolated
	base, implied, err := startupSettings(client.Startup.Params, f.params, &c.own, &l.env)
	if err != nil {
		return nil, asError(err)
	}
	if e := c.checkHints(base.hints.inForce()); e != nil {
		return nil, e
	}
	told, e := s.prove(g, client, id, l, f, base)
	if e != nil {
		return nil, e
	}
	c.settings, c.base, c.implied, c.freshPath, c.freshLevel, c.freshRole = base, base, implied, f.searchPath, f.level, f.role
	c.ownConn = l.Databases[client.Database].OwnConnections
	c.params = newParams(f.params)
	for _, x := range base.list {
		if name := canonicalParam(x.name); c.params.get(name) != "" || name == "application_name" {
			c.params.set(name, x.value)
		}
	}
	for name, value := range told { // in a server's words
		c.params.set(name, value)
	}
	ses := &session{server: s, client: client.Conn, socket: conn, id: id, core: c, gate: g, connected: time.Now()}
	ses.goRaw()
	client.Conn = ses.client
	if !s.register(ses, client.Minor) {
		return nil, pg.NewError(pg.CodeTooManyConnections, "sorry, too many clients already")
	}
	s.adopted(conn, ses.socket)
	c.pid, c.id = ses.pid, s.ids.Add(1)
	if len(client.Rest) > 0 {
		c.clientRead(copy(c.clientSpace(), client.Rest)) // which has more room than Rest can need
	}
	c.out = append(c.out, client.Held...)
	for k, v := range c.params.all() {
		c.out = pg.AppendParameterStatus(c.out, k, v)
	}
	c.out = pg.AppendBackendKeyData(c.out, ses.pid, ses.secret)
	c.out = pg.AppendReady(c.out, 'I')
	return ses, nil
}
