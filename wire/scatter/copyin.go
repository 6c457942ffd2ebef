package scatter

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"rangefinder/fib"
	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/scatter/copysplit"
	"rangefinder/wire/sqlkey"
)

// copySplit is one COPY FROM STDIN whose rows go to the shards that own their keys.
type copySplit struct {
	// constant
	c     *Coordinator
	x     *execution
	plan  *sqlkey.Plan
	split *copysplit.Splitter // nil: all shards get all the data
	types []uint32            // of the data's columns in binary format, by the session's numbers, whose values hold such; 0: of the others
	check *copysplit.Splitter // of data that all get: looks for times that would differ; nil: there can be none

	// owned by the coordinator's goroutine
	left int // bytes still to come of the session's CopyData message in hand

	// guarded by mu
	mu    sync.Mutex
	parts []*copyPart // the splitter's numbers are their places
	woken bool
	first *copyPart // whose error woke it: the others were told to stop, and say no more than that they have
}

// copySplit runs COPY FROM STDIN on all shards that own some of its rows. One that is refused is refused everywhere.
func (c *Coordinator) copySplit(x *execution) *pg.Error {
	s := &copySplit{c: c, x: x, plan: x.stmt.plan}
	shares, e := c.cfg.Host.Shards(c.ctx, s.plan, x.args())
	if e != nil {
		return e
	}
	if len(shares) > 1 && c.cfg.Committer == nil {
		return pg.NewError(pg.CodeFeatureNotSupported, "COPY into "+s.plan.Fan.Copy.Name+" would write on several shards").
			WithHint(`Set cross_shard_writes = "2pc" for the database, or SET rangefinder.cross_shard_writes.`)
	}
	if e := s.begin(shares[0].Slot); e != nil {
		return e
	}
	if s.plan.Fan.Everywhere {
		for _, share := range shares[1:] {
			if _, e := s.open(share.Slot); e != nil {
				return s.abort(e)
			}
		}
	}
	e = s.feed()
	if e == nil {
		e = s.finish()
	}
	if e != nil {
		return s.abort(e)
	}
	c.out = append(c.out, c.notices...)
	c.notices = c.notices[:0]
	tag := ""
	for _, p := range s.parts {
		if s.split != nil {
			tag = sum(tag, p.tag)
			continue
		}
		if tag = s.parts[0].tag; p.tag != tag {
			return unlike(s.parts[0].b.slot, p.b.slot, tag, p.tag)
		}
	}
	c.complete(x, tag)
	return nil
}

// begin opens the COPY on a first shard, which tells the session its columns, or what is wrong with the statement.
func (s *copySplit) begin(slot *fib.Slot) *pg.Error {
	c, x := s.c, s.x
	b, e := c.branch(slot, true)
	if e != nil {
		return e
	}
	if s.plan.Fan.Everywhere {
		e = s.checker(b)
	} else {
		e = s.splitter(b)
	}
	if e != nil {
		return e
	}
	c.marks0(x, b)
	b.send = pg.AppendFlush(x.appendRun(b.send, s.text(), "", 0))
	b.begin()
	if e := b.flush(); e != nil {
		return c.ended(x, b, e)
	}
	for taking := false; !taking; {
		typ, size, err := b.header()
		switch {
		case err != nil:
			e = b.lost(err)
		case typ == pg.TypeErrorResponse:
			var fatal bool
			if e, fatal = b.error(size); !fatal {
				e = s.synced(b, e)
			}
			if s.text() != x.stmt.sql { // it is a place in that
				e = e.WithPosition(0)
			}
		case b.quiet > 0 && typ != pg.TypeNoticeResponse:
			var f []byte
			if f, err = b.frame(size); err != nil {
				e = b.lost(err)
			} else if f[0] == pg.TypeCommandComplete {
				b.quiet--
			}
		case typ == pg.TypeCopyInResponse && s.given() > 0:
			e, taking = s.asked(b, size), true
		default:
			e, taking = c.relay(x, b, typ, size), typ == pg.TypeCopyInResponse
		}
		if e != nil {
			b.done()
			return c.ended(x, b, e)
		}
	}
	c.copying = !x.simple
	s.join(b)
	_ = c.flush()
	return nil
}

// splitter makes what takes the data apart, with what a first shard says of the table.
func (s *copySplit) splitter(b *branch) *pg.Error {
	c, say := s.c, s.plan.Fan.Copy
	config, e := s.config(b)
	if e == nil {
		e = s.bigints(b)
	}
	if e == nil && say.Format == sqlkey.CopyBinary {
		e = s.carrying(b, config.Columns)
	}
	if e != nil {
		return c.ended(s.x, b, e)
	}
	config.Given, config.Next = say.Given, c.cfg.Host.Unique
	if s.types != nil {
		config.Values = s.renumber
	}
	split, err := copysplit.New(config, s)
	if err != nil {
		return asError(err)
	}
	s.split = split
	return nil
}

// config is what takes the data apart needs to know of them.
func (s *copySplit) config(b *branch) (config copysplit.Config, e *pg.Error) {
	say := s.plan.Fan.Copy
	encoding := say.Encoding
	if encoding == "" {
		encoding = b.conn.Params["client_encoding"]
	}
	if !sqlkey.Splits(encoding) {
		return config, pg.NewError(pg.CodeFeatureNotSupported, "COPY into several shards cannot take data in "+encoding+" apart").
			WithHint("Convert the data to UTF-8, and SET client_encoding = 'UTF8' or say ENCODING 'UTF8'.")
	}
	columns := say.Columns
	if columns == nil {
		if columns, e = s.c.columnsOf(b, say.Schema, say.Name, false); e != nil {
			return config, e
		}
	}
	major, _, _ := strings.Cut(b.conn.Params["server_version"], ".")
	version, err := strconv.Atoi(major)
	return copysplit.Config{Copy: say, Columns: columns, UTF8: sqlkey.IsUTF8(encoding), MarkerInCSV: err == nil && version < 18}, nil
}

// synced ends what an error has ended.
func (s *copySplit) synced(b *branch, e *pg.Error) *pg.Error {
	b.send = pg.AppendSync(b.send)
	if lost := b.flush(); lost != nil {
		return lost
	}
	if lost := b.receive(func(_ byte, size int) *pg.Error {
		if _, err := b.frame(size); err != nil {
			return b.lost(err)
		}
		return nil
	}); lost != nil && b.broken {
		return lost
	}
	return e
}

// columnsOf asks a shard for a table's columns, those that are generated if generated says so.
func (c *Coordinator) columnsOf(b *branch, schema, table string, generated bool) (columns []string, _ *pg.Error) {
	name := rib.QuoteLiteral(rib.QuoteIdent(schema) + "." + rib.QuoteIdent(table))
	b.send = appendCommand(b.send, "SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = "+name+
		"::pg_catalog.regclass AND attnum > 0 AND NOT attisdropped AND (attgenerated = '' OR "+strconv.FormatBool(generated)+") ORDER BY attnum")
	b.send = pg.AppendSync(b.send)
	e := b.answer(func(values [][]byte, err error) *pg.Error {
		if err != nil || len(values) != 1 {
			return pg.NewError(pg.CodeProtocolViolation, "a shard has answered with other columns than it was asked for")
		}
		columns = append(columns, string(values[0]))
		return nil
	})
	return columns, e
}

// notice keeps a notice of a shard for the session.
func (c *Coordinator) notice(frame []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.notices) < maxNotices {
		c.notices = append(c.notices, frame...)
	}
}

// awake takes back what failed has done to wake the coordinator.
func (s *copySplit) awake() (failed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.woken {
		return false
	}
	_ = s.c.nc.SetReadDeadline(time.Time{})
	for _, p := range s.parts {
		p.b.mu.Lock()
		if !p.b.struck {
			_ = p.b.conn.Net.SetWriteDeadline(time.Time{})
		}
		p.b.mu.Unlock()
	}
	return true
}

// errShard stands for the error that a shard has said, which abort finds.
var errShard = pg.NewError(pg.CodeInternalError, "a shard has refused the rows")

// feed takes the session's data up to their end.
func (s *copySplit) feed() *pg.Error {
	c := s.c
	for {
		buf := c.in[c.off:]
		switch {
		case s.left > 0 && len(buf) > 0:
			n := min(s.left, len(buf))
			s.left, c.off = s.left-n, c.off+n
			if err := s.write(buf[:n]); err != nil {
				return asError(err)
			}
			continue
		case s.left == 0 && len(buf) >= pg.HeaderSize && buf[0] == pg.TypeCopyData && pg.Want(buf) > 0:
			s.left = pg.Want(buf) - pg.HeaderSize
			c.off += pg.HeaderSize
			continue
		case s.left > 0 || len(buf) < pg.HeaderSize:
			if err := c.read(copyMessage); err != nil {
				return s.silent(err)
			}
			continue
		}
		typ, body, err := c.next()
		if err != nil {
			return s.silent(err)
		}
		switch typ {
		case pg.TypeCopyDone:
			return nil
		case pg.TypeCopyFail:
			text, _, _ := strings.Cut(string(body), "\x00")
			e := pg.NewError(pg.CodeQueryCanceled, "COPY from stdin failed: "+text)
			if s.split != nil {
				e.Where = fmt.Sprintf("COPY %s, line %d", s.plan.Fan.Copy.Name, s.split.Line()+1)
			}
			return e
		case pg.TypeSync, pg.TypeFlush: // ignored, as PostgreSQL does
		default: // it belongs to what comes next: the session has given up
			c.off -= pg.HeaderSize + len(body)
			return errCanceled
		}
	}
}

// write hands on some of the data.
func (s *copySplit) write(data []byte) error {
	if s.split != nil {
		return s.split.Write(data)
	}
	if s.check != nil {
		if err := s.check.Write(data); err != nil {
			return err
		}
	}
	for _, p := range s.parts {
		if p.append(data); len(p.out) >= copyMessage {
			if err := p.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// silent is the error when nothing more came from the session.
func (s *copySplit) silent(err error) *pg.Error {
	if s.awake() {
		return errShard
	}
	s.c.gone = err
	return gone()
}

// Owner is copysplit.Sink's.
func (s *copySplit) Owner(key rib.Key) (int, error) {
	slot, e := s.c.cfg.Host.Owner(s.plan, key)
	if e != nil {
		return 0, e
	}
	for i, p := range s.parts {
		if p.b.slot == slot {
			return i, nil
		}
	}
	if _, e := s.open(slot); e != nil {
		return 0, e
	}
	return len(s.parts) - 1, nil
}

// Row is copysplit.Sink's.
func (s *copySplit) Row(shard int, b []byte, line uint64, count int) error {
	p := s.parts[shard]
	if !p.lines.begun {
		p.lines.begun = true
		if h := s.split.Header(); len(h) > 0 {
			p.append(h)
			if s.plan.Fan.Copy.Format != sqlkey.CopyBinary {
				p.lines.local = s.split.HeaderLines()
			}
		}
	}
	p.append(b)
	if count > 0 {
		p.lines.add(line, count)
	}
	if len(p.out) >= copyMessage {
		return p.flush()
	}
	return nil
}

// finish ends the data on all shards, and waits for what they say.
func (s *copySplit) finish() *pg.Error {
	if s.check != nil {
		if err := s.check.Close(); err != nil {
			return asError(err)
		}
	}
	if s.split != nil {
		if err := s.split.Close(); err != nil {
			return asError(err)
		}
		if p := s.parts[0]; !p.lines.begun { // a header alone is to be checked as well
			p.append(s.split.Header())
		}
	}
	for _, p := range s.parts {
		if p.append(nil); s.split != nil {
			p.append(s.split.Trailer())
		}
		if len(p.out) == pg.HeaderSize {
			p.out = p.out[:0]
		}
		if err := p.flush(); err != nil {
			return asError(err)
		}
		if err := p.send(pg.AppendSync(pg.AppendCopyDone(nil))); err != nil {
			return asError(err)
		}
	}
	failed := false
	for _, p := range s.parts {
		<-p.done
		p.b.done()
		failed = failed || p.err != nil
	}
	if failed {
		return errShard
	}
	return nil
}

// abort ends the COPY on all shards without its rows. It returns the error that the session gets.
func (s *copySplit) abort(e *pg.Error) *pg.Error {
	s.awake()
	s.c.unread = s.left
	late := time.AfterFunc(abandonLimit, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, p := range s.parts {
			p.b.strike()
		}
	})
	for _, p := range s.parts {
		select {
		case <-p.done:
			continue
		default:
		}
		if p.broken {
			p.b.strike()
			continue
		}
		if _, err := p.b.conn.Net.Write(pg.AppendSync(pg.AppendCopyFail(nil, "COPY has failed on another shard"))); err != nil {
			p.b.strike()
		}
	}
	for _, p := range s.parts {
		<-p.done
		p.b.done()
		if p.broken {
			p.b.broken = true
		}
	}
	late.Stop()
	s.awake() // what they said woke somebody again
	s.mu.Lock()
	said := s.first
	s.mu.Unlock()
	if e != errShard || said == nil {
		return e
	}
	s.c.cfg.Host.Failed(said.b.hop, said.err.Code)
	return said.translate(said.err)
}
