package pg

import (
	"encoding/binary"
)

// Parameter formats.
const (
	FormatText   int16 = 0
	FormatBinary int16 = 1
)

// keepParams is how many parameters' offsets a Bind keeps room for between messages: a session that once sent 65535 of
// them does not hold 256 KiB for its life.
const keepParams = 1024

// Bind is a decoded Bind message. It aliases the body it was decoded from, is valid as long as that is, and is meant to
// be reused: then Decode does not allocate. One goroutine uses it.
type Bind struct {
	Portal    []byte
	Statement []byte

	body    []byte
	rest    []byte   // what follows the statement's name in body
	formats []byte   // parameter format codes as sent: none, one for all, or one each
	results []byte   // result format codes, likewise
	offsets []uint32 // where in body each parameter's length stands
}

// Decode checks and indexes the body of a Bind message. Every name, count and length is validated; a mistake is an
// *Error with SQLSTATE 08P01, and b is empty then. Format codes other than 0 and 1 are left to PostgreSQL to refuse.
func (b *Bind) Decode(body []byte) error {
	err := b.decode(body)
	if err != nil {
		*b = Bind{offsets: b.offsets[:0]}
	}
	return err
}

func (b *Bind) decode(body []byte) error {
	offsets := b.offsets[:0]
	if cap(offsets) > keepParams {
		offsets = nil
	}
	*b = Bind{body: body}
	r := reader{rest: body}
	b.Portal = r.cstring()
	b.Statement = r.cstring()
	b.rest = r.rest

	formats := int(r.uint16())
	b.formats = r.take(2 * int64(formats))
	params := int(r.uint16())
	if r.err == nil && formats > 1 && formats != params {
		return violation("bind message has %d parameter formats but %d parameters", formats, params)
	}
	if 4*params > len(r.rest) { // before room is made for what a count merely claims
		r.fail("insufficient data left in message")
	}
	if r.err == nil && cap(offsets) < params {
		offsets = make([]uint32, 0, params)
	}
	for i := 0; i < params && r.err == nil; i++ {
		offsets = append(offsets, uint32(len(body)-len(r.rest)))
		if length := int32(r.uint32()); length != -1 {
			r.take(int64(length)) // any other negative length is refused
		}
	}
	b.offsets = offsets
	b.results = r.take(2 * int64(r.uint16()))
	return r.end()
}

// NumParams is the number of parameters.
func (b *Bind) NumParams() int { return len(b.offsets) }

// Param is the parameter with that 0-based index, which must be below NumParams: its bytes, which alias the body, its
// format, and whether it is NULL.
func (b *Bind) Param(i int) (val []byte, format int16, null bool) {
	switch len(b.formats) {
	case 0:
	case 2:
		format = int16(binary.BigEndian.Uint16(b.formats))
	default:
		format = int16(binary.BigEndian.Uint16(b.formats[2*i:]))
	}
	at := int(b.offsets[i])
	length := int(int32(binary.BigEndian.Uint32(b.body[at:])))
	if length < 0 {
		return nil, format, true
	}
	at += 4
	return b.body[at : at+length : at+length], format, false
}

// Arguments are those of a Bind with the types that its Parse declared, as plans take them (sqlkey.Args).
type Arguments struct {
	Bind *Bind
	OIDs []uint32 // may be fewer than the parameters; 0: not declared
}

// Arg returns the i-th argument, counted from 1; not ok: there is none. oid is 0 if its type was not declared.
func (a *Arguments) Arg(i int) (val []byte, format int16, oid uint32, null, ok bool) {
	if i < 1 || i > a.Bind.NumParams() {
		return nil, 0, 0, false, false
	}
	val, format, null = a.Bind.Param(i - 1)
	if i <= len(a.OIDs) {
		oid = a.OIDs[i-1]
	}
	return val, format, oid, null, true
}

// NumResults is the number of result format codes: 0 is text for all columns, 1 is for all of them alike.
func (b *Bind) NumResults() int { return len(b.results) / 2 }

// Result is the result format code with that 0-based index, which must be below NumResults.
func (b *Bind) Result(i int) int16 { return int16(binary.BigEndian.Uint16(b.results[2*i:])) }

// AppendBindText appends a Bind frame of the unnamed statement and portal: parameters and results in text form.
func AppendBindText(dst []byte, params ...string) []byte {
	dst, start := begin(dst, TypeBind)
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(params)))
	for _, p := range params {
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(p)))
		dst = append(dst, p...)
	}
	return finish(append(dst, 0, 0), start)
}

// AppendBindRenamed appends b as a whole Bind frame under another statement's name, which must not hold a NUL. Every
// other byte is as it came.
func AppendBindRenamed(dst []byte, b *Bind, statement string) []byte {
	dst, start := begin(dst, TypeBind)
	dst = cstring(cstring(dst, b.Portal), statement)
	return finish(append(dst, b.rest...), start)
}

// AppendBindWith appends a Bind frame of the unnamed statement and portal: b's parameters, those that keep does not say as NULL in text form,
// then more in one format, of which nil is NULL. results are the result format codes; nil: b's.
func AppendBindWith(dst []byte, b *Bind, keep []bool, more [][]byte, as int16, results []int16) []byte {
	dst, start := begin(dst, TypeBind)
	dst = append(dst, 0, 0)
	n := b.NumParams()
	dst = binary.BigEndian.AppendUint16(dst, uint16(n+len(more)))
	for i := range n + len(more) {
		format := FormatText
		switch {
		case i >= n:
			format = as
		case keep[i]:
			_, format, _ = b.Param(i)
		}
		dst = binary.BigEndian.AppendUint16(dst, uint16(format))
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(n+len(more)))
	for i := range n + len(more) {
		var val []byte
		null := false
		switch {
		case i >= n:
			val = more[i-n]
			null = val == nil
		case keep[i]:
			val, _, null = b.Param(i)
		default:
			null = true
		}
		if null {
			dst = binary.BigEndian.AppendUint32(dst, 0xffffffff)
			continue
		}
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(val)))
		dst = append(dst, val...)
	}
	if results == nil {
		dst = binary.BigEndian.AppendUint16(dst, uint16(b.NumResults()))
		return finish(append(dst, b.results...), start)
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(results)))
	for _, f := range results {
		dst = binary.BigEndian.AppendUint16(dst, uint16(f))
	}
	return finish(dst, start)
}

// AppendBindOf appends a Bind frame of the unnamed statement and portal with some of b's parameters, by their numbers from 1. One that b
// does not have is NULL.
func AppendBindOf(dst []byte, b *Bind, params []int) []byte {
	dst, start := begin(dst, TypeBind)
	dst = append(dst, 0, 0)
	n := b.NumParams()
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(params)))
	for _, p := range params {
		format := FormatText
		if p <= n {
			_, format, _ = b.Param(p - 1)
		}
		dst = binary.BigEndian.AppendUint16(dst, uint16(format))
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(params)))
	for _, p := range params {
		var val []byte
		null := true
		if p <= n {
			val, _, null = b.Param(p - 1)
		}
		if null {
			dst = binary.BigEndian.AppendUint32(dst, 0xffffffff)
			continue
		}
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(val)))
		dst = append(dst, val...)
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(b.NumResults()))
	return finish(append(dst, b.results...), start)
}

// AppendBindAs is AppendBindRenamed under another portal's name, too.
func AppendBindAs(dst []byte, b *Bind, portal, statement string) []byte {
	dst, start := begin(dst, TypeBind)
	dst = cstring(cstring(dst, portal), statement)
	return finish(append(dst, b.rest...), start)
}
