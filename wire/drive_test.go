package wire

import (
	"errors"
	"strings"
	"testing"
	"time"

	"rangefinder/fib"
	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
)

// drive runs a core over a simulated world: client bytes in pieces as cut says, backends that answer as PostgreSQL would.
type drive struct {
	t         testing.TB
	table     *rib.Table // that core's forwarding table was made from
	core      *core
	client    []byte
	out       []byte
	log       []string // what each backend was asked, in order
	conns     map[string]*backend
	cut       func(n int) int // how many of n bytes to hand over at once
	then      func() []byte   // what the client sends once all before is answered; nil: it leaves
	steps     int
	connected func(backend string) time.Time // nil: before all else
	look      func(location) error           // what comes of looking at a primary; nil: nothing
	waits     func()                         // what comes of waiting for a primary, before no more is waited; nil: nothing
	loses     string                         // the connection is lost to whoever is asked last for what contains this; "": nobody's
}

// backend is as much of a PostgreSQL server as a session can tell.
type backend struct {
	conn     *pool.Conn
	in, out  []byte
	tx       byte
	skip     bool
	prepared map[string]string
	portal   string
}

func newDrive(t testing.TB, client []byte) *drive {
	e, table := testWorld(t)
	c := newCore(e, "app", "app")
	c.params.set("client_encoding", "UTF8")
	return &drive{t: t, table: table, core: c, client: client, conns: make(map[string]*backend), cut: func(n int) int { return n }}
}

// observe has an observer say something of a backend, and the core's table follow.
func (d *drive) observe(route rib.Route) {
	route.Observer, route.Stamp = "n1", rib.Stamp{Seq: d.table.Snapshot().Version + 100}
	d.table.Health().Observe(route)
	compiled, err := fib.Compile(d.table.Snapshot())
	if err != nil {
		d.t.Fatal(err)
	}
	d.core.env.fib.Store(compiled)
}

func (d *drive) run() {
	c := d.core
	for {
		if d.steps++; d.steps > 200_000 {
			d.t.Fatal("the session does not come to an end")
		}
		switch c.next() {
		case readClient:
			d.flush()
			if len(d.client) == 0 && d.then != nil {
				d.client, d.then = d.then(), nil
				continue
			}
			if len(d.client) == 0 {
				c.closing = true
				continue
			}
			n := d.cut(len(d.client))
			for n > 0 {
				m := copy(c.clientSpace(), d.client[:n])
				c.clientRead(m)
				d.client, n = d.client[m:], n-m
			}
		case readServer:
			d.flush()
			b := d.conns[c.srv.Backend.Name]
			if d.loses != "" && strings.Contains(d.log[len(d.log)-1], d.loses) {
				c.serverLost(errors.New("gone"))
				continue
			}
			if len(b.out) == 0 {
				d.t.Fatalf("the session waits for %s, which has nothing to say; log %q", c.srv.Backend.Name, d.log)
			}
			n := d.cut(len(b.out))
			p := b.out[:n]
			b.out = b.out[n:]
			if err := c.serverRead(p); err != nil {
				c.serverLost(err)
			}
		case acquire:
			name := c.hop.Backend.Name
			b := d.conns[name]
			if b == nil {
				b = &backend{tx: 'I', prepared: make(map[string]string)}
				b.conn = &pool.Conn{Backend: c.hop.Backend, Params: make(map[string]string)}
				if d.connected != nil {
					b.conn.Connected = d.connected(name)
				}
				d.conns[name] = b
			}
			c.acquired(b.conn)
		case convene: // nobody is there to carry it out
			c.refused(pg.NewError(pg.CodeInsufficientResources, "no coordinator here"))
		case standBy:
			if d.waits != nil {
				d.waits()
			}
			if c.noPrimary != nil {
				c.standDown(nil)
			}
		case locate:
			err := error(errUnlocated)
			if d.look != nil {
				err = d.look(c.locates)
			}
			c.located(err)
		case subscribe:
			if c.lis.barrier != "" {
				c.barrierPassed()
				continue
			}
			c.lis.loose = false
			c.subscribed(nil, nil)
		case releaseServer:
			b := d.conns[c.srv.Backend.Name]
			if b.tx != 'I' || len(b.in) > 0 || len(b.out) > 0 || len(c.toServer) > 0 {
				d.t.Fatalf("%s is given back in status %c with %d and %d bytes under way", c.srv.Backend.Name, b.tx, len(b.in), len(b.out))
			}
			c.returned()
		case discardServer, washServer:
			delete(d.conns, c.srv.Backend.Name)
			c.toServer = c.toServer[:0]
			c.returned()
		case finish:
			d.flush()
			return
		}
	}
}

func (d *drive) flush() {
	c := d.core
	d.out = append(d.out, c.out...)
	c.written()
	if c.srv == nil {
		return
	}
	b := d.conns[c.srv.Backend.Name]
	b.in = append(b.in, c.toServer...)
	c.toServer = c.toServer[:0]
	for {
		typ, n, err := pg.Next(b.in, 1<<21)
		if err != nil {
			d.t.Fatalf("the session sent a broken frame: %v", err)
		}
		if n == 0 {
			return
		}
		d.answer(b, typ, b.in[pg.HeaderSize:n])
		b.in = b.in[n:]
	}
}

func (d *drive) answer(b *backend, typ byte, body []byte) {
	name := b.conn.Backend.Name
	fail := func(code string) {
		b.out = pg.AppendError(b.out, &pg.Error{Severity: "ERROR", Code: code, Message: "no"})
		if b.tx == 'T' {
			b.tx = 'E'
		}
	}
	if b.skip && typ != 'S' {
		return
	}
	switch typ {
	case 'Q':
		sql := string(body[:len(body)-1])
		d.log = append(d.log, name+" "+sql)
		for _, part := range strings.Split(sql, separator) {
			if part = strings.TrimSpace(part); part != "" && !b.execute(part, true, fail) {
				break
			}
		}
		if strings.TrimSpace(sql) == "" {
			b.out = append(b.out, emptyQuery...)
		}
		b.out = pg.AppendReady(b.out, b.tx)
	case 'P':
		v, err := pg.DecodeParseView(body)
		if err != nil {
			d.t.Fatalf("broken Parse sent: %v", err)
		}
		m := v.Copy()
		d.log = append(d.log, name+" parse "+m.Name[:min(3, len(m.Name))]+" "+m.SQL)
		if _, taken := b.prepared[m.Name]; taken && m.Name != "" {
			d.t.Fatalf("%s is asked to prepare %s twice", name, m.Name)
		}
		b.prepared[m.Name] = m.SQL
		b.out = append(b.out, parseComplete...)
	case 'B':
		var m pg.Bind
		if err := m.Decode(body); err != nil {
			d.t.Fatalf("broken Bind sent: %v", err)
		}
		sql, ok := b.prepared[string(m.Statement)]
		if !ok {
			d.t.Fatalf("%s is asked to bind %q, which it does not have", name, m.Statement)
		}
		b.portal = sql
		b.out = append(b.out, bindComplete...)
	case 'D':
		if body[0] == 'S' {
			if _, ok := b.prepared[string(body[1:len(body)-1])]; !ok {
				fail("26000")
				b.skip = true
				return
			}
			b.out = append(b.out, describeNothing[:7]...)
		}
		b.out = append(b.out, 'T', 0, 0, 0, 6, 0, 0)
	case 'E':
		d.log = append(d.log, name+" execute "+b.portal)
		if !b.execute(b.portal, false, fail) {
			b.skip = true
		}
	case 'C':
		delete(b.prepared, string(body[1:len(body)-1]))
		b.out = append(b.out, closeComplete...)
	case 'S':
		b.skip = false
		b.out = pg.AppendReady(b.out, b.tx)
	case 'H', 'd', 'c', 'f':
	case 'F':
		b.out = pg.AppendReady(append(b.out, 'V', 0, 0, 0, 8, 0xff, 0xff, 0xff, 0xff), b.tx)
	default:
		d.t.Fatalf("%s is sent %q", name, typ)
	}
}

// execute runs one statement. In the simple protocol rows are described first.
func (b *backend) execute(sql string, simple bool, fail func(string)) bool {
	word, _, _ := strings.Cut(strings.ToUpper(sql), " ")
	switch {
	case b.tx == 'E' && word != "ROLLBACK" && word != "COMMIT":
		fail("25P02")
		return false
	case strings.Contains(sql, "cancel"):
		fail(pg.CodeQueryCanceled)
		return false
	case strings.Contains(sql, "fail"), strings.HasPrefix(sql, "SELECT (CASE"): // what remains is not to be had here
		fail("22012")
		return false
	case word == "BEGIN":
		b.tx = 'T'
	case word == "COMMIT" && b.tx == 'E':
		b.tx, word = 'I', "ROLLBACK"
	case word == "COMMIT", word == "ROLLBACK":
		b.tx = 'I'
	}
	if word == "SELECT" || word == "UPDATE" || word == "INSERT" {
		if simple {
			b.out = append(b.out, 'T', 0, 0, 0, 6, 0, 0)
		}
		b.out = append(b.out, 'D', 0, 0, 0, 6, 0, 0)
	}
	b.out = pg.AppendCommandComplete(b.out, word)
	return true
}
