package pg

import (
	"bytes"
	"encoding/binary"
)

// Parse is a decoded Parse message.
type Parse struct {
	Name string
	SQL  string
	OIDs []uint32 // the parameter types the client gave; 0 leaves a type to PostgreSQL
}

// ParseView is a Parse message that was checked but not copied: it aliases the body it was decoded from.
type ParseView struct {
	Name []byte
	SQL  []byte
	oids []byte
}

// DecodeParseView decodes the body of a Parse message without allocating.
func DecodeParseView(body []byte) (ParseView, error) {
	r := reader{rest: body}
	v := ParseView{Name: r.cstring(), SQL: r.cstring()}
	v.oids = r.take(4 * int64(r.uint16()))
	return v, r.end()
}

// Copy returns the message with memory of its own.
func (v *ParseView) Copy() Parse {
	p := Parse{Name: string(v.Name), SQL: string(v.SQL)}
	if n := v.NumOIDs(); n > 0 {
		p.OIDs = make([]uint32, n)
		for i := range p.OIDs {
			p.OIDs[i] = v.OID(i)
		}
	}
	return p
}

// NumOIDs is the number of parameter types the client gave.
func (v *ParseView) NumOIDs() int { return len(v.oids) / 4 }

// OID is the type the client gave for the parameter with that 0-based index.
func (v *ParseView) OID(i int) uint32 { return binary.BigEndian.Uint32(v.oids[4*i:]) }

// Describe is a decoded Describe message. Name aliases the body.
type Describe struct {
	Kind byte // KindStatement or KindPortal
	Name []byte
}

// DecodeDescribe decodes the body of a Describe message.
func DecodeDescribe(body []byte) (Describe, error) {
	kind, name, err := named(body, "DESCRIBE")
	return Describe{kind, name}, err
}

// Close is a decoded Close message. Name aliases the body.
type Close struct {
	Kind byte // KindStatement or KindPortal
	Name []byte
}

// DecodeClose decodes the body of a Close message.
func DecodeClose(body []byte) (Close, error) {
	kind, name, err := named(body, "CLOSE")
	return Close{kind, name}, err
}

func named(body []byte, message string) (kind byte, name []byte, err error) {
	r := reader{rest: body}
	kind = r.byte()
	name = r.cstring()
	if err := r.end(); err != nil {
		return 0, nil, err
	}
	if kind != KindStatement && kind != KindPortal {
		return 0, nil, violation("invalid %s message subtype %d", message, kind)
	}
	return kind, name, nil
}

// Execute is a decoded Execute message. Portal aliases the body.
type Execute struct {
	Portal  []byte
	MaxRows uint32 // 0: all of them
}

// DecodeExecute decodes the body of an Execute message.
func DecodeExecute(body []byte) (Execute, error) {
	r := reader{rest: body}
	e := Execute{Portal: r.cstring(), MaxRows: r.uint32()}
	return e, r.end()
}

// DecodeQuery decodes the body of a simple Query message: the text, which aliases the body.
func DecodeQuery(body []byte) ([]byte, error) {
	r := reader{rest: body}
	sql := r.cstring()
	return sql, r.end()
}

// DecodeReady decodes the body of a ReadyForQuery message: StatusIdle, StatusInTx or StatusFailed.
func DecodeReady(body []byte) (byte, error) {
	if len(body) != 1 || body[0] != StatusIdle && body[0] != StatusInTx && body[0] != StatusFailed {
		return 0, violation("malformed ReadyForQuery")
	}
	return body[0], nil
}

// DecodeParameterStatus decodes the body of a ParameterStatus message.
func DecodeParameterStatus(body []byte) (key, value string, err error) {
	r := reader{rest: body}
	k, v := r.cstring(), r.cstring()
	if err := r.end(); err != nil {
		return "", "", err
	}
	return string(k), string(v), nil
}

// DecodeBackendKeyData decodes the body of a BackendKeyData message. The secret aliases the body.
func DecodeBackendKeyData(body []byte) (pid uint32, secret []byte, err error) {
	if len(body) < 4+minSecret || len(body) > 4+MaxSecret {
		return 0, nil, violation("malformed BackendKeyData")
	}
	return binary.BigEndian.Uint32(body), body[4:], nil
}

// CommandTag is the tag in the body of a CommandComplete message, such as "UPDATE 1"; it aliases the body.
func CommandTag(body []byte) []byte {
	if i := bytes.IndexByte(body, 0); i >= 0 {
		return body[:i]
	}
	return body
}

// TagRows is the number of rows that a tag tells of: "INSERT 0 5" of five, "BEGIN" of none.
func TagRows(tag []byte) uint64 {
	i := len(tag)
	for i > 0 && '0' <= tag[i-1] && tag[i-1] <= '9' {
		i--
	}
	if i == 0 || tag[i-1] != ' ' {
		return 0
	}
	n := uint64(0)
	for _, c := range tag[i:] {
		n = n*10 + uint64(c-'0')
	}
	return n
}

// reader walks the body of one message. After the first mistake it yields zeros and end tells the mistake, so a decoder
// reads straight down and asks once.
type reader struct {
	rest []byte
	err  *Error
}

func (r *reader) take(n int64) []byte {
	if r.err != nil || n < 0 || n > int64(len(r.rest)) {
		r.fail("insufficient data left in message")
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) cstring() []byte {
	i := bytes.IndexByte(r.rest, 0)
	if r.err != nil || i < 0 {
		r.fail("invalid string in message")
		return nil
	}
	s := r.rest[:i:i]
	r.rest = r.rest[i+1:]
	return s
}

func (r *reader) fail(message string) {
	if r.err == nil {
		r.err = violation("%s", message)
		r.rest = nil
	}
}

// end tells the first mistake, or that bytes are left over.
func (r *reader) end() error {
	if len(r.rest) > 0 {
		r.fail("invalid message format")
	}
	if r.err != nil {
		return r.err
	}
	return nil
}

// DecodeNotification decodes the body of a NotificationResponse.
func DecodeNotification(body []byte) (pid uint32, channel, payload string, err error) {
	if len(body) < 4 {
		return 0, "", "", violation("invalid NotificationResponse")
	}
	r := reader{rest: body[4:]}
	channel, payload = string(r.cstring()), string(r.cstring())
	return binary.BigEndian.Uint32(body), channel, payload, r.end()
}
