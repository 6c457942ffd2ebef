package sqlkey

import (
	"strings"
	"unsafe"

	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// Constants are the constants of one text that a shared plan may make keys of. It is the caller's scratch:
// PlanQuery fills it, and AppendKey and KeyText take it as their arguments. Its contents hold until the next PlanQuery. The
// zero value is ready for use. It must not be used concurrently, and keeps little: a statement's keys.
type Constants struct {
	// owned by one goroutine
	plan   *Plan // whose keys they are for; nil: none
	values []keyConstant
	texts  []byte // what the strings among them hold, one after another
}

// keyConstant is one of them.
type keyConstant struct {
	number     int64 // of an integer
	start, end int   // of a string, in texts
	text       bool
}

// maxKeyText is the length up to which a string can be the key of a shared plan.
const maxKeyText = 1 << 10

// Arg tells that there are no parameters: a Query message has none.
func (k *Constants) Arg(int) (val []byte, format int16, oid uint32, null, ok bool) {
	return nil, 0, 0, false, false
}

// take keeps what p, a shared plan, needs of the constants of a text. It returns false if one of them cannot be a key: then
// the text's own plan says why.
func (k *Constants) take(p *Plan, n *normal, sql string) bool {
	k.plan, k.values, k.texts = nil, k.values[:0], k.texts[:0]
	for _, b := range p.bound {
		at := &n.constants[b.origin.place]
		v := keyConstant{number: at.number, text: at.class == classString, start: len(k.texts)}
		if v.text {
			if at.end-at.start > maxKeyText {
				return false
			}
			k.texts = at.appendString(k.texts, sql)
		}
		v.end = len(k.texts)
		k.values = append(k.values, v)
	}
	for _, b := range p.bound {
		c, problem := k.constant(b.origin)
		if problem != nil {
			return false
		}
		if _, err := c.value(b.typ); err != nil {
			return false
		}
	}
	k.plan = p
	return true
}

// constant is what the statement says that a key column is, made as the parse tree's constants are.
func (k *Constants) constant(s *origin) (c constant, problem *issue) {
	v := &k.values[s.value]
	if v.text {
		held := k.texts[v.start:v.end]
		c = constant{str: unsafe.String(unsafe.SliceData(held), len(held))} // not kept beyond the caller's use
	} else {
		c = constant{family: integers, number: v.number}
	}
	for _, st := range s.steps {
		if c, problem = st.apply(c); problem != nil {
			return c, problem
		}
	}
	return c, nil
}

// appendKey appends the key, or the part of one, that ref means.
func (k *Constants) appendKey(dst rib.Key, ref *KeyRef, m rib.Method) (rib.Key, error) {
	c, problem := k.constant(ref.origin)
	if problem != nil { // take has made sure that there is none
		return dst, pg.NewError(problem.code, problem.reason)
	}
	v, err := c.value(ref.Type)
	if err == nil {
		dst, err = m.AppendKey(dst, v)
	}
	if err != nil {
		return dst, ref.value(err, 0)
	}
	return dst, nil
}

// beyondASCII tells whether ref's bytes depend on the client's encoding.
func (k *Constants) beyondASCII(ref *KeyRef) (is bool) {
	if ref.Literal != nil {
		return ref.nonASCII
	}
	ref.eachPart(func(part *KeyRef) {
		c, _ := k.constant(part.origin)
		is = is || c.beyondASCII(part.Type)
	})
	return is
}

// appendShared is AppendKey for a shared plan.
func (p *Plan) appendShared(dst rib.Key, i int, args Args, clientUTF8 bool) (rib.Key, error) {
	k, ok := args.(*Constants)
	if !ok || k.plan != p {
		return dst, pg.NewError(pg.CodeInternalError, "a plan that texts share was used without this text's constants")
	}
	ref := &p.Keys[i]
	if ref.Session {
		return dst, errSessionKey
	}
	if !clientUTF8 && k.beyondASCII(ref) {
		return dst, encodingError(p.KeyText(i, k))
	}
	if ref.Literal != nil {
		return append(dst, ref.Literal...), nil
	}
	if ref.Parts == nil {
		return k.appendKey(dst, ref, p.method)
	}
	start := len(dst)
	for j := range ref.Parts {
		var err error
		if dst, err = k.appendKey(dst, &ref.Parts[j], p.method); err != nil {
			return dst[:start], err
		}
	}
	return p.method.Join(dst, start), nil
}

// KeyText is the condition that gives p.Keys[i], for messages. args are those of AppendKey.
func (p *Plan) KeyText(i int, args Args) string {
	ref := &p.Keys[i]
	k, ok := args.(*Constants)
	if !ok || !p.shared || k.plan != p || ref.Literal != nil || ref.Session {
		return ref.Text
	}
	var texts []string
	ref.eachPart(func(part *KeyRef) {
		c, _ := k.constant(part.origin)
		texts = append(texts, quoteName(part.column)+" = "+c.String())
	})
	return strings.Join(texts, ", ")
}
