package sqlkey

import (
	"encoding/binary"
	"errors"

	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// Shards tells set which keys a plan with the target Many needs with these arguments, which are those of AppendKey. buf is scratch,
// returned for the next call; with enough room in it nothing is allocated. If one shard alone is found, it can be asked the statement
// itself, as if its key had been given; if none is, the statement matches no row, and any shard will do. Errors are *pg.Error, and
// set's own.
func (p *Plan) Shards(set Shards, buf rib.Key, args Args, clientUTF8 bool) (rib.Key, error) {
	f := p.Fan
	if f.Split != nil {
		set.Begin()
		for i := range f.Split.Rows {
			var err error
			if buf, err = p.appendRef(buf[:0], &f.Split.Rows[i], args, clientUTF8); err == nil {
				err = set.Key(buf)
			}
			if err != nil {
				return buf, err
			}
		}
		return buf, nil
	}
	if len(f.Within) == 0 {
		set.Begin()
		return buf, set.Range(nil, nil)
	}
	for i := range f.Within {
		set.Begin()
		var err error
		if buf, err = p.within(&f.Within[i], set, buf, args, clientUTF8); err != nil {
			return buf, err
		}
	}
	return buf, nil
}

// errUnreadable: what the keys are cannot be told here, so they may be anywhere. PostgreSQL says what is wrong, if anything is.
var errUnreadable = errors.New("not a key that can be read")

func (p *Plan) within(s *KeySet, set Shards, buf rib.Key, args Args, clientUTF8 bool) (rib.Key, error) {
	for i := range s.Keys {
		ok, err := true, error(nil)
		if buf, ok, err = p.member(buf[:0], &s.Keys[i], args, clientUTF8); err != nil {
			return buf, set.Range(nil, nil)
		}
		if ok {
			if err := set.Key(buf); err != nil {
				return buf, err
			}
		}
	}
	for i := range s.Lists {
		var err error
		if buf, err = p.elements(&s.Lists[i], set, buf, args, clientUTF8); err == errUnreadable {
			return buf, set.Range(nil, nil)
		} else if err != nil {
			return buf, err
		}
	}
	for i := range s.Bounds {
		b := &s.Bounds[i]
		from, to, ok, err := p.bounds(buf[:0], b, args, clientUTF8)
		if err != nil {
			return buf, set.Range(nil, nil)
		}
		if ok {
			if err := set.Range(from, to); err != nil {
				return buf, err
			}
		}
		if cap(from)+cap(to) > cap(buf) {
			buf = from[:0]
		}
	}
	return buf, nil
}

// member is the key that k means. ok is false if that is NULL, so that no row has it.
func (p *Plan) member(dst rib.Key, k *KeyRef, args Args, clientUTF8 bool) (_ rib.Key, ok bool, err error) {
	if dst, err = p.appendRef(dst, k, args, clientUTF8); err == nil {
		return dst, true, nil
	}
	var e *pg.Error
	if errors.As(err, &e) && e.Code == pg.CodeNullValueNotAllowed {
		return dst, false, nil
	}
	return dst, false, err
}

// bounds are what b says, as [from, to). ok is false if no key lies there.
func (p *Plan) bounds(buf rib.Key, b *KeyBounds, args Args, clientUTF8 bool) (from, to rib.Key, ok bool, err error) {
	if b.From != nil {
		if buf, ok, err = p.member(buf, b.From, args, clientUTF8); err != nil || !ok {
			return buf, nil, false, err
		}
		if b.FromOpen && !advance(buf) {
			return buf, nil, false, nil
		}
	}
	from = buf
	if b.To == nil {
		return from, nil, true, nil
	}
	if buf, ok, err = p.member(buf, b.To, args, clientUTF8); err != nil || !ok {
		return buf, nil, false, err
	}
	from, to = buf[:len(from):len(from)], buf[len(from):]
	if b.ToClosed && !advance(to) {
		return from, nil, true, nil
	}
	return from, to, len(to) > 0 && from.Compare(to) < 0, nil
}

// advance makes of k the first key after all that begin with it. It returns false if there is none.
func advance(k rib.Key) bool {
	for i := len(k) - 1; i >= 0; i-- {
		if k[i]++; k[i] != 0 {
			return true
		}
	}
	return false
}

// The types of arrays of keys.
const (
	oidByteaArray       = 1001
	oidInt2Array        = 1005
	oidInt4Array        = 1007
	oidTextArray        = 1009
	oidVarcharArray     = 1015
	oidInt8Array        = 1016
	oidDateArray        = 1182
	oidTimestamptzArray = 1185
	oidUUIDArray        = 2951
)

// elementOf is the type of an array's elements; 0 if it is left open. ok is false for arrays of what is no key.
func elementOf(array uint32) (oid uint32, ok bool) {
	switch array {
	case 0, oidUnknown:
		return 0, true
	case oidByteaArray:
		return oidBytea, true
	case oidInt2Array:
		return oidInt2, true
	case oidInt4Array:
		return oidInt4, true
	case oidInt8Array:
		return oidInt8, true
	case oidTextArray:
		return oidText, true
	case oidVarcharArray:
		return oidVarchar, true
	case oidDateArray:
		return oidDate, true
	case oidTimestamptzArray:
		return oidTimestamptz, true
	case oidUUIDArray:
		return oidUUID, true
	}
	return 0, false
}

// elements tells set the keys of an array's elements. NULL among them matches nothing.
func (p *Plan) elements(k *KeyRef, set Shards, buf rib.Key, args Args, clientUTF8 bool) (rib.Key, error) {
	if args == nil {
		return buf, errUnreadable
	}
	val, format, oid, null, ok := args.Arg(k.Param)
	switch {
	case !ok:
		return buf, errUnreadable
	case null:
		return buf, nil
	}
	element, ok := elementOf(oid)
	if !ok {
		return buf, errUnreadable
	}
	var a arrayReader
	switch format {
	case 0:
		a = arrayReader{rest: val, text: true, scratch: a.room[:0]}
		if !a.openText() {
			return buf, errUnreadable
		}
	case 1:
		a = arrayReader{rest: val}
		if !a.openBinary() {
			return buf, errUnreadable
		}
	default:
		return buf, errUnreadable
	}
	for {
		v, null, more, ok := a.next()
		switch {
		case !ok:
			return buf, errUnreadable
		case !more:
			return buf, nil
		case null:
			continue
		}
		var err error
		if buf, err = p.appendValue(buf[:0], k, v, format, element, clientUTF8); err != nil {
			return buf, errUnreadable
		}
		if err := set.Key(buf); err != nil {
			return buf, err
		}
	}
}

// arrayReader reads an array's elements, of all dimensions alike.
type arrayReader struct {
	rest    []byte
	text    bool
	left    int // elements, in binary format
	depth   int // of braces, in text format
	scratch []byte
	room    [64]byte
}

// openBinary reads the header: dimensions, a flag, the elements' type, and each dimension's length and first index.
func (a *arrayReader) openBinary() bool {
	if len(a.rest) < 12 {
		return false
	}
	dims := binary.BigEndian.Uint32(a.rest)
	a.rest = a.rest[12:]
	if dims > 6 || len(a.rest) < int(dims)*8 {
		return false
	}
	a.left = min(int(dims), 1)
	for range dims {
		n := int(binary.BigEndian.Uint32(a.rest))
		if n > len(a.rest) { // each element takes four bytes at least
			return false
		}
		if a.left *= n; a.left > len(a.rest) {
			return false
		}
		a.rest = a.rest[8:]
	}
	return true
}

func (a *arrayReader) nextBinary() (v []byte, null, more, ok bool) {
	if a.left == 0 {
		return nil, false, false, len(a.rest) == 0
	}
	if a.left--; len(a.rest) < 4 {
		return nil, false, false, false
	}
	n := int32(binary.BigEndian.Uint32(a.rest))
	a.rest = a.rest[4:]
	if n == -1 {
		return nil, true, true, true
	}
	if n < 0 || int(n) > len(a.rest) {
		return nil, false, false, false
	}
	v, a.rest = a.rest[:n], a.rest[n:]
	return v, false, true, true
}

func (a *arrayReader) blanks() {
	for len(a.rest) > 0 && (a.rest[0] == ' ' || a.rest[0] >= '\t' && a.rest[0] <= '\r') {
		a.rest = a.rest[1:]
	}
}

// openText passes the first brace. Bounds before it ("[2:3]={1,2}") are not read.
func (a *arrayReader) openText() bool {
	a.blanks()
	if len(a.rest) == 0 || a.rest[0] != '{' {
		return false
	}
	a.rest, a.depth = a.rest[1:], 1
	return true
}

// next is the next element. more is false at the end; ok is false for what is no array.
func (a *arrayReader) next() (v []byte, null, more, ok bool) {
	if !a.text {
		return a.nextBinary()
	}
	for {
		a.blanks()
		if len(a.rest) == 0 {
			return nil, false, false, a.depth == 0
		}
		if a.depth == 0 {
			return nil, false, false, false
		}
		switch c := a.rest[0]; c {
		case '{':
			a.depth++
		case '}':
			a.depth--
		case ',':
		case '"':
			v, ok = a.quoted()
			return v, false, ok, ok
		default:
			return a.bare()
		}
		a.rest = a.rest[1:]
	}
}

func (a *arrayReader) quoted() (v []byte, ok bool) {
	a.scratch = a.scratch[:0]
	for i := 1; i < len(a.rest); i++ {
		switch c := a.rest[i]; c {
		case '"':
			a.rest = a.rest[i+1:]
			return a.scratch, true
		case '\\':
			if i++; i == len(a.rest) {
				return nil, false
			}
			a.scratch = append(a.scratch, a.rest[i])
		default:
			a.scratch = append(a.scratch, c)
		}
	}
	return nil, false
}

func (a *arrayReader) bare() (v []byte, null, more, ok bool) {
	n := 0
	for n < len(a.rest) && a.rest[n] != ',' && a.rest[n] != '}' {
		if c := a.rest[n]; c == '{' || c == '"' || c == '\\' { // rare, or wrong
			return nil, false, false, false
		}
		n++
	}
	v, a.rest = a.rest[:n], a.rest[n:]
	for len(v) > 0 && (v[len(v)-1] == ' ' || v[len(v)-1] >= '\t' && v[len(v)-1] <= '\r') {
		v = v[:len(v)-1]
	}
	return v, len(v) == 4 && LowerASCII(string(v)) == "null", true, true
}
