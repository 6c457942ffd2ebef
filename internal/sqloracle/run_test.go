package sqloracle

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// clients are one connection to each: the plain server and the node.
type clients struct {
	t     *testing.T
	p     *place
	ctx   context.Context
	conns [2]*pgconn.PgConn
}

func newClients(t *testing.T, p *place) *clients {
	c := &clients{t: t, p: p, ctx: t.Context()}
	t.Cleanup(c.close)
	c.connect()
	return c
}

func (c *clients) close() {
	for _, conn := range c.conns {
		if conn != nil {
			conn.Close(context.Background())
		}
	}
}

// connect makes both connections anew.
func (c *clients) connect() {
	c.close()
	for i, dsn := range c.p.dsn {
		var err error
		if c.conns[i], err = pgconn.Connect(c.ctx, dsn); err != nil {
			c.t.Fatal(err)
		}
	}
}

// outcome is what became of a statement.
type outcome struct {
	passed  bool
	refused string // the kind of the refusal; "": it was none
	problem string // what differs; "": nothing
	shards  int    // that were asked
	answer  answer // the router's
}

// try asks both. What the router refuses, the plain server is not asked.
func (c *clients) try(s *statement) (o outcome) {
	before := c.p.touched()
	o.answer = c.ask(1, s)
	for i, n := range c.p.touched() {
		if n > before[i] {
			o.shards++
		}
	}
	if kind, is := refused(o.answer.err); is {
		if o.refused = kind; kind == "" {
			// PostgreSQL may refuse it, too.
			want := c.ask(0, s)
			if want.err == nil || want.err.Code != "0A000" {
				o.problem = "it is refused in a way that is not listed: " + inFull(o.answer.err)
			}
			o.passed = o.problem == ""
		}
		return o
	}
	want := c.ask(0, s)
	o.problem = differ(&want, &o.answer, s)
	o.passed = o.problem == ""
	return o
}

// settle ends a transaction that is open on either side.
func (c *clients) settle() {
	for _, conn := range c.conns {
		if conn.IsClosed() {
			c.connect()
			return
		}
		if conn.TxStatus() != 'I' {
			if _, err := conn.Exec(c.ctx, "ROLLBACK").ReadAll(); err != nil {
				c.connect()
				return
			}
		}
	}
}

// told is a statement and what became of it.
type told struct {
	statement *statement
	outcome
}

// tell plays a story until something differs or is refused. After writes the tables are compared, and reset.
func (c *clients) tell(s *story) (all []told) {
	for _, st := range s.statements {
		o := c.try(st)
		all = append(all, told{st, o})
		if o.problem != "" || o.refused != "" {
			break
		}
		if a, b := c.conns[0].TxStatus(), c.conns[1].TxStatus(); a != b {
			all[len(all)-1].problem = fmt.Sprintf("the transaction's status is %c, want %c", b, a)
			all[len(all)-1].passed = false
			break
		}
	}
	c.settle()
	if s.sets {
		for _, conn := range c.conns {
			if _, err := conn.Exec(c.ctx, "RESET ALL").ReadAll(); err != nil {
				c.t.Fatal(err)
			}
		}
	}
	if len(s.writes) > 0 {
		last := &all[len(all)-1]
		different, err := c.p.compareTables(c.ctx, s.writes...)
		if err == nil {
			err = c.p.reset(c.ctx, s.writes...)
		}
		if err != nil {
			c.t.Fatal(err)
		}
		if different != "" && last.problem == "" {
			last.problem, last.passed, last.refused = "afterwards the tables differ:\n"+different, false, ""
		}
	}
	return all
}
