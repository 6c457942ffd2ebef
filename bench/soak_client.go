package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// keysEach is how many rows of the table belong to one client alone, so that it knows what must be in them.
const keysEach = 3

// soaker is one client of a soak. One goroutine owns it.
type soaker struct {
	s      *soak
	index  int
	rnd    *rand.Rand
	rows   [keysEach]account
	config *pgx.ConnConfig
	conn   *pgx.Conn
	wire   *countingConn
	loaned int // the row that the operation under way increments, and by how much if its fate stays unknown
	by     int64
}

var allExecModes = []pgx.QueryExecMode{
	pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
}

func newSoaker(s *soak, index int) (*soaker, error) {
	cfg, err := pgx.ParseConfig(fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable", benchUser, benchPassword, s.addr, benchDatabase))
	if err != nil {
		return nil, err
	}
	c := &soaker{s: s, index: index, rnd: rand.New(rand.NewPCG(2026, uint64(index))), config: cfg}
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		c.wire = &countingConn{Conn: conn, counts: &s.counts}
		return c.wire, nil
	}
	return c, nil
}

func (c *soaker) id(row int) int { return c.index*keysEach + row + 1 }

// mark is what else a row holds: nobody guesses it who has not read the right one.
func mark(id int) int { return id * 7919 % 999983 }

// run goes on until the soak ends, and leaves in order.
func (c *soaker) run(ctx context.Context) {
	for ctx.Err() == nil {
		if c.conn == nil || c.conn.IsClosed() {
			c.lost()
			if !c.connect(ctx) {
				continue
			}
		}
		c.step()
		c.s.counts.ops.Add(1)
		_ = pause(ctx, time.Duration(c.rnd.ExpFloat64()*float64(c.s.think)))
	}
	if c.conn != nil {
		closing, cancel := context.WithTimeout(context.Background(), stepLimit)
		defer cancel()
		_ = c.conn.Close(closing)
		c.lost()
	}
}

func (c *soaker) lost() {
	if c.conn != nil {
		c.conn = nil
		c.s.counts.connected.Add(-1)
	}
}

func (c *soaker) connect(ctx context.Context) bool {
	cfg := c.config.Copy()
	cfg.DefaultQueryExecMode = allExecModes[c.rnd.IntN(len(allExecModes))]
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		if ctx.Err() == nil {
			c.judge("connect", err, "")
			_ = pause(ctx, time.Second)
		}
		return false
	}
	c.conn = conn
	c.s.counts.logins.Add(1)
	c.s.counts.connected.Add(1)
	return true
}

// stepLimit bounds one operation: whatever takes longer hangs.
const stepLimit = 90 * time.Second

func (c *soaker) step() {
	ctx, cancel := context.WithTimeout(context.Background(), stepLimit)
	defer cancel()
	switch p := c.rnd.IntN(1000); {
	case p < 400:
		c.read(ctx)
	case p < 700:
		_ = c.increment(ctx, c.conn, c.rnd.IntN(keysEach), false)
	case p < 900:
		c.transaction(ctx)
	case p < 930:
		c.copies(ctx)
	case p < 950:
		c.canceled(ctx)
	case p < 953:
		c.tooLong(ctx)
	case p < 960:
		c.givesUp()
	case p < 975:
		c.leave(ctx)
	default:
		c.die(ctx)
	}
}

const (
	readSQL      = "SELECT n, mark FROM counters WHERE id = $1"
	incrementSQL = "UPDATE counters SET n = n + 1 WHERE id = $1 RETURNING n, mark"
)

// read may be answered by a replica, which may be behind: then it shows less than was acknowledged.
func (c *soaker) read(ctx context.Context) {
	row := c.rnd.IntN(keysEach)
	var n int64
	var m int
	if err := c.conn.QueryRow(ctx, readSQL, c.id(row)).Scan(&n, &m); err != nil {
		c.judge("read", err, "")
		return
	}
	if a := c.rows[row]; n > a.acknowledged+a.unknown || m != mark(c.id(row)) {
		c.wrong("row %d reads %d (mark %d): %+v", c.id(row), n, m, a)
	}
}

// querier is a connection, or a transaction on it.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// increment adds one. In a block nothing is settled before its end: by tells how many increments went before, and the error is the
// caller's to judge.
func (c *soaker) increment(ctx context.Context, q querier, row int, block bool) error {
	c.loaned = row
	c.by++
	var n int64
	var m int
	err := q.QueryRow(ctx, incrementSQL, c.id(row)).Scan(&n, &m)
	if err != nil {
		if !block {
			c.settle(c.judge("increment", err, ""))
		}
		return err
	}
	a := c.rows[row]
	if n < a.acknowledged+c.by || n > a.acknowledged+a.unknown+c.by || m != mark(c.id(row)) {
		c.wrong("row %d was incremented to %d (mark %d): %+v and %d now", c.id(row), n, m, a, c.by)
	}
	if !block {
		c.settle(done)
	}
	return nil
}

// settle books what became of the increments under way.
func (c *soaker) settle(f fate) {
	a := &c.rows[c.loaned]
	switch f {
	case done:
		a.acknowledged += c.by
		c.s.counts.increments.Add(uint64(c.by))
	case unknown:
		a.unknown += c.by
	}
	c.by = 0
}

func (c *soaker) transaction(ctx context.Context) {
	tx, err := c.conn.Begin(ctx)
	if err != nil {
		c.judge("begin", err, "")
		return
	}
	row := c.rnd.IntN(keysEach)
	for range 1 + c.rnd.IntN(3) {
		var n int64
		if c.rnd.IntN(3) == 0 {
			err = tx.QueryRow(ctx, "SELECT n FROM counters WHERE id = $1", c.id(row)).Scan(&n)
		} else {
			err = c.increment(ctx, tx, row, true)
		}
		if err != nil {
			break
		}
		_ = pause(ctx, time.Duration(c.rnd.IntN(20))*time.Millisecond)
	}
	if err != nil || c.rnd.IntN(4) == 0 {
		rolled := tx.Rollback(ctx)
		if err != nil {
			c.judge("in a transaction", err, "")
		} else if rolled != nil {
			c.judge("rollback", rolled, "")
		}
		c.settle(never)
		return
	}
	if err := tx.Commit(ctx); err != nil {
		if errors.Is(err, pgx.ErrTxCommitRollback) {
			c.settle(never)
			return
		}
		c.settle(c.judge("commit", err, ""))
		return
	}
	c.s.counts.commits.Add(1)
	c.settle(done)
}

// copies moves rows both ways by COPY.
func (c *soaker) copies(ctx context.Context) {
	if c.rnd.IntN(2) == 0 {
		var b strings.Builder
		_, err := c.conn.PgConn().CopyTo(ctx, &b, "COPY (SELECT i FROM generate_series(1, 1000) i) TO STDOUT")
		if err != nil {
			c.judge("COPY TO", err, "")
		} else if n := strings.Count(b.String(), "\n"); n != 1000 {
			c.wrong("COPY TO gave %d lines", n)
		}
		return
	}
	rows := strings.Repeat(fmt.Sprintf("%d\tx\n", c.index), 500)
	tag, err := c.conn.PgConn().CopyFrom(ctx, strings.NewReader(rows), "COPY sink FROM STDIN")
	if err != nil {
		c.judge("COPY FROM", err, "")
	} else if tag.String() != "COPY 0" { // a trigger drops them all
		c.wrong("COPY FROM says %s", tag)
	}
}

// canceled cancels a statement of its own. The request may come too early or too late.
func (c *soaker) canceled(ctx context.Context) {
	c.s.counts.cancels.Add(1)
	conn := c.conn.PgConn()
	done := make(chan error, 1)
	wait := time.Duration(50+c.rnd.IntN(500)) * time.Millisecond
	go func() {
		_ = pause(ctx, wait)
		done <- conn.CancelRequest(ctx)
	}()
	_, err := c.conn.Exec(ctx, "SELECT pg_sleep(0.3) FROM counters WHERE id = $1", c.id(0))
	if e := <-done; e != nil && !c.s.disturbed() {
		c.wrong("cancel: %v", e)
	}
	if err != nil {
		c.judge("a statement that is canceled", err, "57014")
	}
	// What comes next may be hit by the same request only if it was still under way, and it was waited for.
	var one int
	if err := c.conn.QueryRow(ctx, "SELECT 1").Scan(&one); err != nil {
		c.judge("after a cancel", err, "")
	}
}

// tooLong runs into the node's statement_timeout.
func (c *soaker) tooLong(ctx context.Context) {
	c.s.counts.timeouts.Add(1)
	_, err := c.conn.Exec(ctx, "SELECT pg_sleep(60) FROM counters WHERE id = $1", c.id(0))
	if err == nil {
		c.wrong("statement_timeout did not end a statement of a minute")
		return
	}
	c.judge("a statement that takes too long", err, "57014")
}

// givesUp waits for a statement no longer than it likes to: pgx cancels it, and closes the connection.
func (c *soaker) givesUp() {
	c.s.counts.timeouts.Add(1)
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(20+c.rnd.IntN(300))*time.Millisecond)
	defer cancel()
	row := c.rnd.IntN(keysEach)
	c.loaned, c.by = row, 1
	_, err := c.conn.Exec(ctx, "UPDATE counters SET n = n + 1 WHERE id = $1 AND pg_sleep(0.1) IS NOT NULL", c.id(row))
	if err == nil {
		c.settle(done)
		return
	}
	c.settle(unknown)
}

func (c *soaker) leave(ctx context.Context) {
	if err := c.conn.Close(ctx); err != nil {
		c.judge("close", err, "")
	}
	c.lost()
}

// die ends the connection in the middle of everything.
func (c *soaker) die(ctx context.Context) {
	c.s.counts.deaths.Add(1)
	row := c.rnd.IntN(keysEach)
	c.loaned = row
	update := fmt.Sprintf("UPDATE counters SET n = n + 1 WHERE id = %d", c.id(row))
	if c.rnd.IntN(3) == 0 { // in a transaction, which nobody commits
		for _, sql := range []string{"BEGIN", update} {
			if _, err := c.conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
				c.judge("in a transaction", err, "")
				break
			}
		}
	}
	if c.conn.IsClosed() {
		return
	}
	h, err := c.conn.PgConn().Hijack()
	if err != nil {
		return
	}
	c.lost()
	inBlock := h.TxStatus != 'I'
	var last []byte
	switch c.rnd.IntN(7) {
	case 0: // nothing under way
	case 1:
		last = query(update)
		if !inBlock {
			c.by = 1
		}
	case 2: // half a message
		last = query(update)
		last = last[:1+c.rnd.IntN(len(last)-1)]
	case 3:
		last = query(fmt.Sprintf("SELECT pg_sleep(600), n FROM counters WHERE id = %d", c.id(row)))
	case 4:
		last = query(strings.Replace(update, "WHERE", "WHERE pg_sleep(600) IS NOT NULL AND", 1))
	case 5:
		last = append(query("COPY sink FROM STDIN"), 'd', 0, 0, 0, 8, '1', '\t', 'x', '\n')
	case 6:
		last = query(fmt.Sprintf("SELECT repeat('x', 1000) FROM counters, generate_series(1, 20000) WHERE id = %d", c.id(row)))
	}
	_, _ = h.Conn.Write(last)
	if c.rnd.IntN(2) == 0 {
		_ = h.Conn.SetReadDeadline(time.Now().Add(time.Duration(c.rnd.IntN(100)) * time.Millisecond))
		_, _ = io.CopyN(io.Discard, h.Conn, 100)
	}
	below := h.Conn.(*countingConn).Conn
	if c.rnd.IntN(2) == 0 {
		_ = below.(*net.TCPConn).SetLinger(0)
	}
	_ = below.Close()
	c.settle(unknown)
}

// query is a Query message.
func query(sql string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(4+len(sql)+1))
	return append(append(b, sql...), 0)
}

// fate is what became of a write.
type fate uint8

const (
	done fate = iota
	never
	unknown
)

// judge says what an error means for a write, and reports one that nothing explains. wanted is the SQLSTATE that was asked for.
func (c *soaker) judge(what string, err error, wanted string) fate {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		c.s.counts.excused.Add(1)
		if !c.s.disturbed() {
			c.wrong("%s: %v", what, err)
		}
		return unknown
	}
	switch {
	case pe.Code == wanted:
		return never
	case pe.Code == "53300":
		c.s.counts.full.Add(1)
		return never
	case pe.Code == "08007":
		c.s.counts.excused.Add(1)
		if !c.s.disturbed() {
			c.wrong("%s: %v (%s)", what, err, pe.Detail)
		}
		return unknown
	}
	c.s.counts.excused.Add(1)
	if disturbed := strings.HasPrefix(pe.Code, "08") || strings.HasPrefix(pe.Code, "57P"); !disturbed || !c.s.disturbed() {
		c.wrong("%s: %v (%s)", what, err, pe.Detail)
	}
	return never
}

func (c *soaker) wrong(format string, args ...any) {
	c.s.faults.add(fmt.Sprintf("client %d: ", c.index) + fmt.Sprintf(format, args...))
}
