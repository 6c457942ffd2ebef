package console

import (
	"encoding/binary"
	"strconv"

	"rangefinder/wire/pg"
)

// What one client may keep here. Drivers prepare what they send, and forget to close it.
const (
	maxStatements = 256
	maxPortals    = 16
)

// Session is one client's console as a state machine: frames in, frames out. One goroutine uses it.
type Session struct {
	// Out are the frames for the client. The caller takes them.
	Out []byte
	// Closed is set when the client has said goodbye, or the session has failed.
	Closed bool
	// Failed is set by Fail, and when the client has sent what is not the protocol.
	Failed bool

	run        func(Command) (Table, *pg.Error)
	statements map[string]*prepared
	portals    map[string]*portal
	bind       pg.Bind
	skip       bool // discard extended messages up to the next Sync: one of them failed
}

// prepared is one statement of the extended protocol.
type prepared struct {
	command Command
	empty   bool
}

// portal is a statement that was bound.
type portal struct {
	*prepared
	fields []pg.Field
	ran    bool
	rows   [][]string // still to be sent
}

// NewSession returns the session of a client whose commands are carried out by run. Its answer need not hold columns.
func NewSession(run func(Command) (Table, *pg.Error)) *Session {
	return &Session{run: run, statements: map[string]*prepared{}, portals: map[string]*portal{}}
}

// Message takes one message of the client.
func (s *Session) Message(typ byte, body []byte) {
	if s.skip && skipped(typ) {
		return
	}
	switch typ {
	case pg.TypeQuery:
		s.query(body)
	case pg.TypeParse, pg.TypeBind, pg.TypeDescribe, pg.TypeExecute, pg.TypeClose:
		if err := s.extended(typ, body); err != nil {
			s.Out = pg.AppendError(s.Out, err)
			s.skip = true
		}
	case pg.TypeSync:
		s.skip = false
		clear(s.portals) // the transaction is over
		if len(body) > 0 {
			s.Out = pg.AppendError(s.Out, pg.NewError(pg.CodeProtocolViolation, "invalid message format"))
		}
		s.Out = pg.AppendReady(s.Out, pg.StatusIdle)
	case pg.TypeFlush:
		if len(body) > 0 {
			s.Out = pg.AppendError(s.Out, pg.NewError(pg.CodeProtocolViolation, "invalid message format"))
			s.skip = true
		}
	case pg.TypeTerminate:
		s.Closed = true
	case pg.TypeFunction:
		s.Out = pg.AppendError(s.Out, pg.NewError(pg.CodeFeatureNotSupported, "the console has no functions").WithHint(available()))
		s.Out = pg.AppendReady(s.Out, pg.StatusIdle)
	case pg.TypeCopyData, pg.TypeCopyDone, pg.TypeCopyFail: // PostgreSQL ignores them too
	default:
		s.Fail(pg.Errorf(pg.CodeProtocolViolation, "invalid frontend message type %d", typ))
	}
}

// skipped tells which messages are discarded after an error, up to the next Sync. What is no message of a client's is not.
func skipped(typ byte) bool {
	switch typ {
	case pg.TypeQuery, pg.TypeParse, pg.TypeBind, pg.TypeDescribe, pg.TypeExecute, pg.TypeClose, pg.TypeFlush, pg.TypeFunction,
		pg.TypeCopyData, pg.TypeCopyDone, pg.TypeCopyFail:
		return true
	}
	return false
}

// Fail ends the session with an error.
func (s *Session) Fail(e *pg.Error) {
	s.Out = pg.AppendError(s.Out, e.Fatal())
	s.Closed, s.Failed = true, true
}

// query answers a simple Query: each command in its turn, up to the first that fails.
func (s *Session) query(body []byte) {
	sql, err := pg.DecodeQuery(body)
	if err != nil {
		s.Out = pg.AppendReady(pg.AppendError(s.Out, pg.NewError(pg.CodeProtocolViolation, "invalid string in message")), pg.StatusIdle)
		return
	}
	delete(s.statements, "") // as PostgreSQL does
	clear(s.portals)
	commands, e := Parse(string(sql))
	if e == nil && len(commands) == 0 {
		s.Out = pg.AppendEmptyQuery(s.Out)
	}
	for _, c := range commands {
		var t Table
		if t, e = s.run(c); e != nil {
			break
		}
		if columns := c.Columns(); columns != nil {
			fields := describe(columns, nil)
			s.Out = pg.AppendRowDescription(s.Out, fields)
			s.rows(fields, t.Rows)
		}
		s.Out = pg.AppendCommandComplete(s.Out, c.tag())
	}
	if e != nil {
		s.Out = pg.AppendError(s.Out, e)
	}
	s.Out = pg.AppendReady(s.Out, pg.StatusIdle)
}

func (s *Session) extended(typ byte, body []byte) *pg.Error {
	switch typ {
	case pg.TypeParse:
		return s.parse(body)
	case pg.TypeBind:
		return s.bound(body)
	case pg.TypeDescribe:
		return s.described(body)
	case pg.TypeExecute:
		return s.execute(body)
	}
	m, err := pg.DecodeClose(body)
	if err != nil {
		return asError(err)
	}
	if m.Kind == pg.KindStatement {
		delete(s.statements, string(m.Name))
	} else {
		delete(s.portals, string(m.Name))
	}
	s.Out = pg.AppendCloseComplete(s.Out)
	return nil
}

func (s *Session) parse(body []byte) *pg.Error {
	v, err := pg.DecodeParseView(body)
	if err != nil {
		return asError(err)
	}
	m := v.Copy()
	if len(m.OIDs) > 0 {
		return noParameters()
	}
	if _, taken := s.statements[m.Name]; taken && m.Name != "" {
		return pg.Errorf(pg.CodeDuplicateStatement, "prepared statement %q already exists", clip(m.Name))
	}
	if len(s.statements) >= maxStatements {
		return pg.NewError(pg.CodeProgramLimitExceeded, "too many prepared statements in one session").WithHint("Close statements that are not used any more.")
	}
	commands, e := Parse(m.SQL)
	switch {
	case e != nil:
		return e
	case len(commands) > 1:
		return pg.NewError(pg.CodeSyntaxError, "cannot insert multiple commands into a prepared statement")
	case len(commands) == 1:
		s.statements[m.Name] = &prepared{command: commands[0]}
	default:
		s.statements[m.Name] = &prepared{empty: true}
	}
	s.Out = pg.AppendParseComplete(s.Out)
	return nil
}

func noParameters() *pg.Error {
	return pg.NewError(pg.CodeFeatureNotSupported, "the console takes no parameters").WithHint(`Write the name into the command: PAUSE "app".`)
}

func (s *Session) bound(body []byte) *pg.Error {
	if err := s.bind.Decode(body); err != nil {
		return asError(err)
	}
	st := s.statements[string(s.bind.Statement)]
	if st == nil {
		return pg.Errorf(pg.CodeInvalidStatementName, "prepared statement %q does not exist", clip(string(s.bind.Statement)))
	}
	if s.bind.NumParams() > 0 {
		return noParameters()
	}
	name := string(s.bind.Portal)
	if _, taken := s.portals[name]; taken && name != "" {
		return pg.Errorf(pg.CodeDuplicateCursor, "portal %q already exists", clip(name))
	}
	if len(s.portals) >= maxPortals {
		return pg.NewError(pg.CodeProgramLimitExceeded, "too many portals").WithHint("Send a Sync more often.")
	}
	columns := st.command.Columns()
	if n := s.bind.NumResults(); n > 1 && n != len(columns) {
		return pg.Errorf(pg.CodeProtocolViolation, "bind message has %d result formats but query has %d columns", n, len(columns))
	}
	for i := range s.bind.NumResults() {
		if f := s.bind.Result(i); f != pg.FormatText && f != pg.FormatBinary {
			return pg.Errorf(pg.CodeInvalidParameterValue, "invalid format code: %d", f)
		}
	}
	s.portals[name] = &portal{prepared: st, fields: describe(columns, &s.bind)}
	s.Out = pg.AppendBindComplete(s.Out)
	return nil
}

func (s *Session) described(body []byte) *pg.Error {
	m, err := pg.DecodeDescribe(body)
	if err != nil {
		return asError(err)
	}
	var fields []pg.Field
	if m.Kind == pg.KindStatement {
		st := s.statements[string(m.Name)]
		if st == nil {
			return pg.Errorf(pg.CodeInvalidStatementName, "prepared statement %q does not exist", clip(string(m.Name)))
		}
		s.Out = pg.AppendNoParameters(s.Out)
		fields = describe(st.command.Columns(), nil)
	} else {
		p := s.portals[string(m.Name)]
		if p == nil {
			return pg.Errorf(pg.CodeInvalidCursorName, "portal %q does not exist", clip(string(m.Name)))
		}
		fields = p.fields
	}
	if len(fields) == 0 {
		s.Out = pg.AppendNoData(s.Out)
		return nil
	}
	s.Out = pg.AppendRowDescription(s.Out, fields)
	return nil
}

func (s *Session) execute(body []byte) *pg.Error {
	m, err := pg.DecodeExecute(body)
	if err != nil {
		return asError(err)
	}
	p := s.portals[string(m.Portal)]
	switch {
	case p == nil:
		return pg.Errorf(pg.CodeInvalidCursorName, "portal %q does not exist", clip(string(m.Portal)))
	case p.empty:
		s.Out = pg.AppendEmptyQuery(s.Out)
		return nil
	case !p.ran:
		t, e := s.run(p.command)
		if e != nil {
			return e
		}
		p.ran, p.rows = true, t.Rows
	case len(p.fields) == 0:
		return pg.Errorf(pg.CodeObjectNotInPrerequisiteState, "portal %q cannot be run", clip(string(m.Portal)))
	}
	rows := p.rows
	if m.MaxRows > 0 && uint64(m.MaxRows) < uint64(len(rows)) {
		rows = rows[:m.MaxRows]
	}
	s.rows(p.fields, rows)
	if p.rows = p.rows[len(rows):]; len(p.rows) > 0 {
		s.Out = pg.AppendPortalSuspended(s.Out)
		return nil
	}
	s.Out = pg.AppendCommandComplete(s.Out, p.command.tag())
	return nil
}

// describe makes the fields of columns, in the formats that a Bind asks for; without one, in text.
func describe(columns []Column, b *pg.Bind) []pg.Field {
	fields := make([]pg.Field, len(columns))
	for i, c := range columns {
		f := pg.Field{Name: c.Name, OID: pg.OIDText, Size: -1}
		if c.Number {
			f.OID, f.Size = pg.OIDBigint, 8
		}
		if b != nil && b.NumResults() > 0 {
			f.Format = b.Result(min(i, b.NumResults()-1))
		}
		fields[i] = f
	}
	return fields
}

// rows appends rows in the fields' formats.
func (s *Session) rows(fields []pg.Field, rows [][]string) {
	values := make([][]byte, len(fields))
	for _, row := range rows {
		for i, v := range row {
			values[i] = []byte(v)
			if n, err := strconv.ParseInt(v, 10, 64); fields[i].OID == pg.OIDBigint && fields[i].Format == pg.FormatBinary && err == nil {
				values[i] = binary.BigEndian.AppendUint64(nil, uint64(n))
			}
		}
		s.Out = pg.AppendDataRow(s.Out, values)
	}
}

// asError is a decoder's error, as it is told to the client: the rest of the segment is skipped, as PostgreSQL does.
func asError(err error) *pg.Error {
	if e, ok := err.(*pg.Error); ok {
		return e
	}
	return pg.NewError(pg.CodeProtocolViolation, err.Error())
}
