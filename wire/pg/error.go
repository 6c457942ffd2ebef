package pg

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgproto3/v2"
)

// Error is one ErrorResponse or NoticeResponse: what a backend said, or what we say to a client. Every field is as the
// protocol has it; "" means that the field is absent. An Error is not changed once made: the With methods return copies,
// so one Error may be shared (a cached plan's, for instance).
type Error struct {
	Severity         string // ERROR, FATAL, PANIC, or a notice's: never translated where the peer says so
	Code             string // SQLSTATE
	Message          string
	Detail           string
	Hint             string
	Position         string // 1-based character of the statement, decimal
	InternalPosition string
	InternalQuery    string
	Where            string
	Schema           string
	Table            string
	Column           string
	DataType         string
	Constraint       string
	File             string
	Line             string
	Routine          string
}

// NewError makes an Error of severity ERROR.
func NewError(code, message string) *Error {
	return &Error{Severity: "ERROR", Code: code, Message: message}
}

// Errorf is NewError with a formatted message. It does not wrap.
func Errorf(code, format string, args ...any) *Error {
	return NewError(code, fmt.Sprintf(format, args...))
}

// violation is an Error of severity ERROR for bytes that are not the protocol.
func violation(format string, args ...any) *Error {
	return Errorf(CodeProtocolViolation, format, args...)
}

// Error tells severity, message and SQLSTATE.
func (e *Error) Error() string {
	return e.Severity + ": " + e.Message + " (SQLSTATE " + e.Code + ")"
}

// WithDetail returns a copy of e with that detail.
func (e *Error) WithDetail(detail string) *Error {
	c := *e
	c.Detail = detail
	return &c
}

// WithHint returns a copy of e with that hint: what to do about it.
func (e *Error) WithHint(hint string) *Error {
	c := *e
	c.Hint = hint
	return &c
}

// WithPosition returns a copy of e that points at the 1-based character of the statement; 0 points nowhere.
func (e *Error) WithPosition(char int) *Error {
	c := *e
	c.Position = ""
	if char > 0 {
		c.Position = strconv.Itoa(char)
	}
	return &c
}

// WithSeverity returns a copy of e with that severity.
func (e *Error) WithSeverity(severity string) *Error {
	c := *e
	c.Severity = severity
	return &c
}

// Fatal returns a copy of e with severity FATAL: the connection ends with it.
func (e *Error) Fatal() *Error { return e.WithSeverity("FATAL") }

// AppendError appends e as a whole ErrorResponse frame. A text's NUL and what follows it are left out: in the frame it
// would end the field.
func AppendError(dst []byte, e *Error) []byte { return appendReport(dst, TypeErrorResponse, e) }

// AppendNotice appends e as a whole NoticeResponse frame.
func AppendNotice(dst []byte, e *Error) []byte { return appendReport(dst, TypeNoticeResponse, e) }

func appendReport(dst []byte, typ byte, e *Error) []byte {
	r := pgproto3.ErrorResponse{
		Severity:            text(e.Severity),
		SeverityUnlocalized: text(e.Severity),
		Code:                text(e.Code),
		Message:             text(e.Message),
		Detail:              text(e.Detail),
		Hint:                text(e.Hint),
		Position:            number(e.Position),
		InternalPosition:    number(e.InternalPosition),
		InternalQuery:       text(e.InternalQuery),
		Where:               text(e.Where),
		SchemaName:          text(e.Schema),
		TableName:           text(e.Table),
		ColumnName:          text(e.Column),
		DataTypeName:        text(e.DataType),
		ConstraintName:      text(e.Constraint),
		File:                text(e.File),
		Line:                number(e.Line),
		Routine:             text(e.Routine),
	}
	start := len(dst)
	out, err := r.Encode(dst)
	if err != nil { // longer than a frame can be: nothing of it was worth that
		return appendReport(dst[:start], typ, &Error{Severity: e.Severity, Code: e.Code, Message: "message too long"})
	}
	out[start] = typ
	return out
}

// DecodeError decodes the body of an ErrorResponse or NoticeResponse. Fields it does not know are dropped, as the
// protocol asks.
func DecodeError(body []byte) (*Error, error) {
	var r pgproto3.ErrorResponse
	if err := guarded(body, r.Decode); err != nil {
		return nil, violation("malformed ErrorResponse")
	}
	severity := r.SeverityUnlocalized
	if severity == "" {
		severity = r.Severity
	}
	return &Error{
		Severity:         severity,
		Code:             r.Code,
		Message:          r.Message,
		Detail:           r.Detail,
		Hint:             r.Hint,
		Position:         decimal(r.Position),
		InternalPosition: decimal(r.InternalPosition),
		InternalQuery:    r.InternalQuery,
		Where:            r.Where,
		Schema:           r.SchemaName,
		Table:            r.TableName,
		Column:           r.ColumnName,
		DataType:         r.DataTypeName,
		Constraint:       r.ConstraintName,
		File:             r.File,
		Line:             decimal(r.Line),
		Routine:          r.Routine,
	}, nil
}

// OfStandby reports whether a server has refused to take a snapshot for what is serializable, because it is a hot standby. Nothing has run.
func (e *Error) OfStandby() bool {
	return e.Code == CodeFeatureNotSupported && e.Routine == "GetSerializableTransactionSnapshot"
}

// guarded runs one of pgproto3's decoders over bytes that our framer has bounded, and turns a panic into an error.
func guarded(body []byte, decode func([]byte) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = violation("malformed message")
		}
	}()
	return decode(body)
}

func text(s string) string {
	if i := strings.IndexByte(s, 0); i >= 0 {
		return s[:i]
	}
	return s
}

func number(s string) int32 {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil {
		return 0
	}
	return int32(n)
}

func decimal(n int32) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(int(n))
}
