package scatter

import (
	"encoding/binary"
	"slices"
	"strconv"
	"strings"

	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// copyMade makes the data of a COPY (query) TO STDOUT of the rows that the query has over several shards, as PostgreSQL's COPY writes them.
type copyMade struct {
	c     *Coordinator
	x     *execution
	copy  *sqlkey.Copy
	leads func(byte) bool // see leads

	columns int
	quoted  []bool // CSV: always in quotes
	line    []byte
}

// made is such a statement as its query is run.
func (c *Coordinator) made(x *execution) *execution {
	run := *x
	run.bind, run.max = noArguments, 0
	if x.stmt.plan.Fan.Copy.Format == sqlkey.CopyBinary {
		run.bind = binaryResults
	}
	run.made = &copyMade{c: c, x: x, copy: x.stmt.plan.Fan.Copy}
	return &run
}

// copyable has a shard check the statement's options, which the node takes as it finds them: as a COPY of no rows, whose data are dropped.
func (c *Coordinator) copyable(x *execution, s Share) *pg.Error {
	var b *branch
	var e *pg.Error
	write := c.writeFor(x.stmt.plan)
	if x.alone {
		b, e = c.connect(c.ctx, s.Slot, c.cfg.Host.Choose(s.Slot, write), write, nil)
	} else {
		b, e = c.branch(s.Slot, write)
	}
	if e != nil {
		return e
	}
	if x.alone {
		defer c.release(b)
	}
	run := &execution{stmt: &stmt{}, bind: noArguments}
	if e = c.errands(x, []*errand{{b: b, send: run.appendAsk(nil, x.stmt.plan.Fan.Copy.Check, nil, []int16{})}}); e != nil {
		e = e.WithPosition(0) // it is one of another text
	}
	return e
}

// binaryResults is the Bind of a statement without parameters, all results in binary format.
var binaryResults = func() *pg.Bind {
	b := new(pg.Bind)
	_ = b.Decode([]byte{0, 0, 0, 0, 0, 0, 0, 1, 0, 1})
	return b
}()

// leads tells, for a client's encoding, which bytes begin a character whose second byte may look like a backslash. Servers have no such
// encodings themselves, but clients may.
func leads(encoding string) func(byte) bool {
	switch encoding {
	case "SJIS", "SHIFT_JIS_2004":
		return func(c byte) bool { return c >= 0x80 && c < 0xA1 || c > 0xDF }
	case "BIG5", "GBK", "GB18030", "JOHAB", "UHC":
		return func(c byte) bool { return c >= 0x80 }
	}
	return nil
}

// begin tells the session that data come, of rows of these columns. encoding is the client's.
func (m *copyMade) begin(names []string, encoding string) {
	m.columns, m.leads = len(names), leads(encoding)
	if m.x.columns && !m.x.simple {
		m.c.out = pg.AppendNoData(m.c.out)
	}
	format := uint16(0)
	if m.copy.Format == sqlkey.CopyBinary {
		format = 1
	}
	body := []byte{byte(format)}
	body = binary.BigEndian.AppendUint16(body, uint16(len(names)))
	for range names {
		body = binary.BigEndian.AppendUint16(body, format)
	}
	m.c.out = pg.AppendFrame(m.c.out, pg.TypeCopyOutResponse, body)
	switch {
	case m.copy.Format == sqlkey.CopyBinary:
		m.line = append(m.start(), "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"...)
		_ = m.send()
		return
	case m.copy.Format == sqlkey.CopyCSV:
		m.quoted = make([]bool, len(names))
	}
	if m.copy.Header {
		m.start()
		for i, name := range names {
			m.value(i, []byte(name))
		}
		m.line = append(m.line, '\n')
		_ = m.send()
	}
	for i := range m.quoted {
		m.quoted[i] = m.copy.ForceQuoteAll || slices.Contains(m.copy.ForceQuote, names[i])
	}
}

// start begins a message.
func (m *copyMade) start() []byte {
	m.line = append(m.line[:0], pg.TypeCopyData, 0, 0, 0, 0)
	return m.line
}

func (m *copyMade) send() error {
	pg.SetLength(m.line)
	return m.c.emit(m.line)
}

// row writes one row of which the frame is given.
func (m *copyMade) row(frame []byte) *pg.Error {
	m.start()
	if m.copy.Format == sqlkey.CopyBinary { // the same as in the frame
		m.line = append(m.line, frame[pg.HeaderSize:]...)
	} else {
		at := pg.HeaderSize + 2
		for i := range m.columns {
			if at+4 > len(frame) {
				return malformed()
			}
			size := int(int32(binary.BigEndian.Uint32(frame[at:])))
			if at += 4; size < 0 {
				m.next(i)
				m.line = append(m.line, m.copy.Null...)
				continue
			}
			if at+size > len(frame) {
				return malformed()
			}
			m.value(i, frame[at:at+size])
			at += size
		}
		m.line = append(m.line, '\n')
	}
	if m.send() != nil {
		return gone()
	}
	return nil
}

// next writes what stands before a column.
func (m *copyMade) next(column int) {
	if column > 0 {
		m.line = append(m.line, m.copy.Delimiter)
	}
}

func (m *copyMade) value(column int, v []byte) {
	m.next(column)
	if m.copy.Format == sqlkey.CopyCSV {
		m.csv(column, v)
		return
	}
	second := false // of a character
	for _, b := range v {
		if i := strings.IndexByte("\b\f\n\r\t\v", b); i >= 0 && !second {
			m.line = append(m.line, '\\', "bfnrtv"[i])
			continue
		}
		if !second && (b == '\\' || b == m.copy.Delimiter) {
			m.line = append(m.line, '\\')
		}
		m.line = append(m.line, b)
		second = !second && m.leads != nil && m.leads(b)
	}
}

func (m *copyMade) csv(column int, v []byte) {
	quote := m.quoted[column] || string(v) == m.copy.Null || m.columns == 1 && string(v) == `\.`
	second := false
	for _, b := range v {
		quote = quote || !second && (b == m.copy.Delimiter || b == m.copy.Quote || b == '\n' || b == '\r')
		second = !second && m.leads != nil && m.leads(b)
	}
	if !quote {
		m.line = append(m.line, v...)
		return
	}
	m.line = append(m.line, m.copy.Quote)
	second = false
	for _, b := range v {
		if !second && (b == m.copy.Quote || b == m.copy.Escape) {
			m.line = append(m.line, m.copy.Escape)
		}
		m.line = append(m.line, b)
		second = !second && m.leads != nil && m.leads(b)
	}
	m.line = append(m.line, m.copy.Quote)
}

// end ends the data of so many rows. It returns the command tag.
func (m *copyMade) end(rows int64) string {
	if m.copy.Format == sqlkey.CopyBinary {
		m.line = append(m.start(), binaryTrailer...)
		_ = m.send()
	}
	m.c.out = pg.AppendCopyDone(m.c.out)
	return "COPY " + strconv.FormatInt(rows, 10)
}

// namesOf are the names of the first n columns of a description.
func namesOf(desc []byte, ends []int, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = nameAt(desc, ends, i)
	}
	return names
}
