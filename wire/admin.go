package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"rangefinder/wire/console"
	"rangefinder/wire/pg"
)

// ConsoleConfig says who may use the console, and what it shows that this package does not know.
type ConsoleConfig struct {
	Users    []string // who may use it; empty: nobody
	Version  string   // of the node
	Known    []string // users who may log in to the node
	Settings func() []console.Setting
	TwoPhase func() []console.TwoPhase                     // transactions over several shards; nil: there are none
	Reload   func(by string) ([]console.Change, *pg.Error) // nil: RELOAD is not possible
	Shutdown func(wait bool)                               // must not wait itself; nil: SHUTDOWN is not possible
	// Look fills in what a SHOW of the ledger shows, and Order carries out a command about ranges and moves. nil: there is no ledger.
	Look  func(context.Context, console.Command, *console.Snapshot) *pg.Error
	Order func(context.Context, Orderer, console.Command) (console.Table, *pg.Error)
}

// Orderer is who gives a command in the console.
type Orderer struct {
	User string
	Addr string // host:port
}

var errNoLedger = pg.NewError(pg.CodeFeatureNotSupported, "this node has no ledger")

// consoleFrame bounds a message to the console, in bytes.
const consoleFrame = 64 << 10

// consoleVersion is the server_version that drivers are told: they choose what they may ask for by it, and the console
// understands nothing that is newer, or older.
const consoleVersion = "14.0 (Rangefinder console)"

// operator is one client of the console.
type operator struct {
	// constant
	server    *Server
	client    *pg.Client
	connected time.Time
	pid       uint32 // with secret, the key of a CancelRequest
	secret    []byte

	// owned by its goroutine
	console *console.Session
	in      []byte

	// guarded by server.mu
	cancel context.CancelFunc // ends what it waits for; nil if it does not
}

// serveConsole runs one client's console to its end. conn is the connection as it was accepted.
func (s *Server) serveConsole(conn net.Conn, client *pg.Client, l *live) {
	if !slices.Contains(l.Console.Users, client.User) {
		s.refuse(client, pg.Errorf(pg.CodeInsufficientPrivilege, "user %q may not use the console", client.User).
			WithHint("List the user under [console] users in the node's configuration."))
		return
	}
	if e := s.seats.takeOperator(&l.Limits); e != nil {
		s.refusedBy(RefusedClients)
		s.refuse(client, e)
		return
	}
	defer s.seats.leaveOperator()
	if !s.loggedIn(conn) {
		return
	}
	o := &operator{server: s, client: client, connected: time.Now(), in: client.Rest}
	o.console = console.NewSession(o.do)
	if !s.registerOperator(o) {
		s.refuse(client, pg.NewError(pg.CodeTooManyConnections, "sorry, too many clients already"))
		return
	}
	defer func() {
		if o.console.Failed {
			lastWords(client.Conn)
		}
		client.Conn.Close() // over TLS with a farewell
		s.mu.Lock()
		delete(s.operators, o.pid)
		s.mu.Unlock()
	}()
	// Nobody minds if a console ends in the middle of something: a node that stops does not wait for it.
	stop := context.AfterFunc(s.stopping, func() { client.Conn.SetDeadline(time.Now()) })
	defer stop()
	o.run()
}

// registerOperator gives the console a cancel key that nobody else has. It returns false if there are too many.
func (s *Server) registerOperator(o *operator) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sessions)+len(s.operators) >= maxSessions {
		return false
	}
	o.pid, o.secret = s.newKey(o.client.Minor)
	s.operators[o.pid] = o
	return true
}

// giveUp ends what the console waits for.
func (o *operator) giveUp() {
	o.server.mu.Lock()
	defer o.server.mu.Unlock()
	if o.cancel != nil {
		o.cancel()
	}
}

// waiting runs what may wait long, until it is done or canceled.
func (o *operator) waiting(do func(context.Context) *pg.Error) *pg.Error {
	ctx, cancel := context.WithCancel(o.server.ctx)
	defer cancel()
	o.server.mu.Lock()
	o.cancel = cancel
	o.server.mu.Unlock()
	e := do(ctx)
	o.server.mu.Lock()
	o.cancel = nil
	o.server.mu.Unlock()
	return e
}

func (o *operator) run() {
	o.greet()
	for o.flush() && !o.console.Closed {
		if !o.read() {
			return
		}
		for !o.console.Closed {
			typ, n, err := pg.Next(o.in, consoleFrame)
			if err != nil {
				var e *pg.Error
				if errors.As(err, &e) {
					o.console.Fail(e)
				}
				break
			}
			if n == 0 {
				break
			}
			o.console.Message(typ, o.in[pg.HeaderSize:n])
			o.in = append(o.in[:0], o.in[n:]...)
			if len(o.console.Out) > clientFlush && !o.flush() {
				return
			}
		}
	}
}

func (o *operator) greet() {
	out := append(o.console.Out, o.client.Held...)
	for _, p := range [...][2]string{
		{"server_version", consoleVersion}, {"server_encoding", "UTF8"}, {"client_encoding", "UTF8"}, {"DateStyle", "ISO, MDY"},
		{"TimeZone", "UTC"}, {"integer_datetimes", "on"}, {"standard_conforming_strings", "on"}, {"is_superuser", "off"},
		{"session_authorization", o.client.User},
	} {
		out = pg.AppendParameterStatus(out, p[0], p[1])
	}
	out = pg.AppendBackendKeyData(out, o.pid, o.secret)
	o.console.Out = pg.AppendReady(out, pg.StatusIdle)
}

func (o *operator) flush() bool {
	if len(o.console.Out) == 0 {
		return true
	}
	if o.server.stopping.Err() != nil {
		o.client.Conn.SetWriteDeadline(time.Now().Add(time.Second))
	}
	_, err := o.client.Conn.Write(o.console.Out)
	o.console.Out = o.console.Out[:0]
	if cap(o.console.Out) > 2*clientFlush {
		o.console.Out = nil
	}
	return err == nil
}

// read returns false if the client is gone, or the node stops.
func (o *operator) read() bool {
	if cap(o.in)-len(o.in) < 512 {
		o.in = slices.Grow(o.in, max(1024, len(o.in)))
	}
	n, err := o.client.Conn.Read(o.in[len(o.in):cap(o.in)])
	o.in = o.in[:len(o.in)+n]
	switch {
	case n > 0:
		return true
	case errors.Is(err, os.ErrDeadlineExceeded):
		o.console.Fail(errDraining)
		o.flush()
	case !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed):
		o.server.log.Debug("client gone", "client", o.client.Conn.RemoteAddr(), "err", err)
	}
	return false
}

// do carries out one command.
func (o *operator) do(c console.Command) (console.Table, *pg.Error) {
	s := o.server
	if c.Verb == "SHOW" {
		v := s.Snapshot()
		if c.View == "STATEMENTS" {
			v.Statements = s.statements()
		}
		if c.LooksIntoLedger() {
			if e := o.look(c, v); e != nil {
				return console.Table{}, e
			}
		}
		return console.Show(c, v), nil
	}
	if c.Ledgers() {
		return o.order(c)
	}
	s.log.Info("console", "command", c.Verb, "database", c.Database, "user", o.client.User, "client", o.client.Conn.RemoteAddr())
	switch c.Verb {
	case "RELOAD":
		return s.reload(o.client.User)
	case "RESET":
		s.cfg.Planner.ResetUsages()
		return console.Table{}, nil
	case "SHUTDOWN":
		stop := s.live.Load().Console.Shutdown
		if stop == nil {
			return console.Table{}, pg.NewError(pg.CodeFeatureNotSupported, "this node cannot be stopped from here")
		}
		stop(c.Wait)
		return console.Table{}, nil
	}
	names, e := s.named(c.Database)
	if e != nil {
		return console.Table{}, e
	}
	switch c.Verb {
	case "PAUSE":
		e = o.waiting(func(ctx context.Context) *pg.Error { return s.pause(ctx, names, c.Database != "", o.client.Conn) })
	case "RESUME":
		e = s.resume(names)
	case "RECONNECT":
		for _, name := range names {
			s.ageFresh(name)
			s.pools.Reconnect(name)
		}
	case "DISABLE", "ENABLE":
		s.gateOf(c.Database).disabled.Store(c.Verb == "DISABLE")
	case "KILL":
		s.kill(c.Database)
	}
	return console.Table{}, e
}

// look has what the ledger holds filled in.
func (o *operator) look(c console.Command, into *console.Snapshot) *pg.Error {
	look := o.server.live.Load().Console.Look
	if look == nil {
		return errNoLedger
	}
	return o.waiting(func(ctx context.Context) *pg.Error { return look(ctx, c, into) })
}

// order has a command about ranges and moves carried out. What is canceled may have been done nevertheless.
func (o *operator) order(c console.Command) (t console.Table, e *pg.Error) {
	order := o.server.live.Load().Console.Order
	if order == nil {
		return t, errNoLedger
	}
	e = o.waiting(func(ctx context.Context) (e *pg.Error) {
		t, e = order(ctx, Orderer{User: o.client.User, Addr: o.client.Conn.RemoteAddr().String()}, c)
		return e
	})
	return t, e
}

// reload has the configuration read again. It does not wait for anybody, so it cannot be canceled.
func (s *Server) reload(by string) (console.Table, *pg.Error) {
	again := s.live.Load().Console.Reload
	if again == nil {
		return console.Table{}, pg.NewError(pg.CodeFeatureNotSupported, "this node cannot reload its configuration")
	}
	changes, e := again(by)
	return console.Reloaded(changes), e
}

// named are the databases that a command is meant for; "" is all.
func (s *Server) named(database string) ([]string, *pg.Error) {
	all := slices.Sorted(maps.Keys(s.live.Load().Databases))
	if database == "" {
		return all, nil
	}
	if !slices.Contains(all, database) {
		return nil, pg.Errorf(pg.CodeInvalidCatalogName, "there is no database %q", database).WithHint("Databases are " + strings.Join(all, ", ") + ".")
	}
	return []string{database}, nil
}

// pause closes databases and waits until no server connection to them is lent out; then it closes these connections. If it
// cannot wait so long, the databases are opened again: a pause is whole, or it is not.
func (s *Server) pause(ctx context.Context, databases []string, one bool, client net.Conn) *pg.Error {
	begun := make(map[string]*pause)
	for _, name := range databases {
		if p := s.gateOf(name).close(); p != nil {
			begun[name] = p
		} else if one {
			return pg.Errorf(pg.CodeObjectNotInPrerequisiteState, "database %q is paused already", name)
		}
	}
	if len(begun) == 0 && len(databases) > 0 {
		return pg.NewError(pg.CodeObjectNotInPrerequisiteState, "all databases are paused already")
	}
	for name, p := range begun {
		if e := s.emptied(ctx, s.gateOf(name), p, client); e != nil {
			for again, q := range begun {
				s.gateOf(again).open(q)
			}
			return e
		}
	}
	for name, p := range begun {
		s.suspend(name, p) // all of its connections are idle
	}
	return nil
}

// emptied waits until nobody is inside a gate that p has closed.
func (s *Server) emptied(ctx context.Context, g *gate, p *pause, client net.Conn) *pg.Error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for g.inside.Load() != 0 {
		select {
		case <-p.empty:
		case <-p.over:
			return pg.NewError(pg.CodeQueryCanceled, "canceling PAUSE: somebody else has resumed the database")
		case <-ctx.Done():
			return pg.NewError(pg.CodeQueryCanceled, "canceling PAUSE due to user request").WithDetail("The databases go on as before.")
		case <-s.stopping.Done():
			return errDraining.WithSeverity("ERROR")
		case <-tick.C:
			if hungUp(client) {
				return pg.NewError(pg.CodeConnectionFailure, errHangup.Error())
			}
		}
	}
	return nil
}

// suspend closes the server connections to a database that p has paused, and has none made for nobody unless somebody has resumed it meanwhile.
func (s *Server) suspend(name string, p *pause) {
	g, wait := s.gateOf(name), func() {}
	s.suspending.Lock()
	if p != nil && g.pause.Load() == p {
		wait = s.pools.Suspend(name)
	}
	s.suspending.Unlock()
	s.pools.Reconnect(name)
	wait()
}

// unsuspend ends a pause. It returns false if there is none.
func (s *Server) unsuspend(name string, g *gate) bool {
	s.suspending.Lock()
	defer s.suspending.Unlock()
	s.pools.Resume(name)
	return g.open(nil)
}

func (s *Server) resume(databases []string) *pg.Error {
	resumed := false
	for _, name := range databases {
		resumed = s.unsuspend(name, s.gateOf(name)) || resumed
	}
	switch {
	case resumed:
		return nil
	case len(databases) == 1:
		return pg.Errorf(pg.CodeObjectNotInPrerequisiteState, "database %q is not paused", databases[0])
	}
	return pg.NewError(pg.CodeObjectNotInPrerequisiteState, "no database is paused")
}

// Snapshot is what the console shows now.
func (s *Server) Snapshot() *console.Snapshot {
	l := s.live.Load()
	v := &console.Snapshot{At: time.Now(), Version: l.Console.Version, Users: l.Console.Known}
	if l.Console.Settings != nil {
		v.Settings = l.Console.Settings()
	}
	if l.Console.TwoPhase != nil {
		v.TwoPhase = l.Console.TwoPhase()
	}
	holders := make(map[uint64]uint32)
	totals, sessions := s.totals()
	s.mu.Lock()
	gates, last := maps.Clone(s.gates), s.period
	operators := slices.Collect(maps.Values(s.operators))
	v.LoggingIn = s.handshakes.Len()
	s.mu.Unlock()
	for _, ses := range sessions {
		c := ses.view()
		if c.Server != 0 {
			holders[c.Server] = c.ID
		}
		v.Clients = append(v.Clients, c)
	}
	for _, o := range operators {
		v.Clients = append(v.Clients, o.view())
	}
	for name, g := range gates {
		if _, ok := l.Databases[name]; !ok && !slices.ContainsFunc(sessions, func(s *session) bool { return s.id.Database == name }) {
			continue // removed, and nobody is left on it
		}
		rule, t := l.rules[name], totals[name]
		d := console.Database{
			Name: name, Shard: rule.Shard, Paused: g.pause.Load() != nil, Disabled: g.disabled.Load(), OwnConnections: rule.OwnConnections, Totals: t,
		}
		d.Lately, d.Span = last.lately(name, v.At, t)
		v.Databases = append(v.Databases, d)
	}
	list, logins := s.pools.Servers()
	for _, x := range list {
		v.Servers = append(v.Servers, console.Server{
			ID: x.ID, User: x.Identity.User, Database: x.Identity.Database, Backend: x.Backend, Shard: x.Shard, Idle: x.Idle,
			CloseNeeded: x.CloseNeeded, Addr: x.Addr, Local: x.Local, Connected: x.Connected, PID: x.PID, Client: holders[x.ID],
		})
	}
	for id, n := range logins {
		v.Logins = append(v.Logins, console.Login{User: id.User, Database: id.Database, Count: n})
	}
	return v
}

// view is what others may know of a session.
func (s *session) view() console.Client {
	c := console.Client{
		ID: s.pid, User: s.id.User, Database: s.id.Database, State: console.Idle, Addr: s.client.RemoteAddr().String(), Local: s.client.LocalAddr().String(),
		Connected: s.connected, Requested: s.core.tally.lastAsked(s.connected, s.server.made), TLS: tlsName(s.client),
	}
	if why := s.core.tally.pin.Load(); why != nil {
		c.Pinned = *why
	}
	switch at := s.has.Load(); at {
	case nil:
	case s.server.queue:
		c.State = console.Waiting
	default:
		c.State, c.Server, c.Backend = console.Active, at.ID, at.Backend.Name
	}
	return c
}

func (o *operator) view() console.Client {
	conn := o.client.Conn
	return console.Client{
		ID: o.pid, User: o.client.User, Database: console.Name, State: console.Active, Addr: conn.RemoteAddr().String(), Local: conn.LocalAddr().String(),
		Connected: o.connected, Requested: o.connected, TLS: tlsName(conn),
	}
}

func tlsName(conn net.Conn) string {
	t, ok := conn.(*tls.Conn)
	if !ok {
		return ""
	}
	state := t.ConnectionState()
	return tls.VersionName(state.Version) + "/" + tls.CipherSuiteName(state.CipherSuite)
}
