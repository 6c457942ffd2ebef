package sqlkey

import (
	"math"
	"strings"
	"unicode/utf8"
)

// The bounds on texts whose normal form is made. Beyond them a text is planned by itself.
const (
	maxNormalText = 64 << 10 // bytes of the text
	maxNormal     = 8 << 10  // bytes of the normal form
	maxConstants  = 512
)

// class is what a constant is to the parser, as far as a value of it could make another tree of it. It stands in the normal
// form in the constant's place.
type class byte

const (
	classInt     class = 'i' // an integer up to 2147483647
	classBig     class = 'l' // an integer beyond, up to 9223372036854775807
	classNumeric class = 'n' // with a point or an exponent
	classString  class = 's' // 'in plain quotes'
)

// constantAt is a constant where it stands in a text.
type constantAt struct {
	start, end int   // bytes, the quotes included
	number     int64 // of classInt and classBig
	class      class
	doubled    bool // a string that holds a quote, written twice
}

// normal is a text's normal form: the text, each constant replaced by a NUL byte, which no text holds, and its class. All
// else stays byte for byte, white space and comments too: programs that send a statement again write it alike.
//
// Two texts of one normal form are split into the same tokens by PostgreSQL's scanner but for the constants' values. So the
// lexer need not know what tokens mean, only where each ends that may hold a digit or a quote. Where it would have to
// know more, it doubts, and the text is planned by itself: dollar quotes, parameters, strings with a letter before them or
// in several parts, numbers in other notations or with anything attached to them.
type normal struct {
	text      []byte
	constants []constantAt
}

func newNormal() *normal {
	return &normal{text: make([]byte, 0, 512), constants: make([]constantAt, 0, 16)}
}

// of makes the normal form of sql. ok is false in doubt.
func (n *normal) of(sql string, env *Env) (ok bool) {
	n.text, n.constants = n.text[:0], n.constants[:0]
	return certain(sql, env) && n.scan(sql)
}

// certain tells whether every byte of a text means what it seems to: what unreadable would refuse is doubtful.
func certain(sql string, env *Env) bool {
	if len(sql) > maxNormalText || strings.IndexByte(sql, 0) >= 0 || env.Backslashes && strings.IndexByte(sql, '\\') >= 0 {
		return false
	}
	if env.Encoding == "" || env.Encoding == "UTF8" { // other spellings are as good, but cost an allocation to tell
		return utf8.ValidString(sql)
	}
	return IsASCII(sql)
}

func (n *normal) scan(sql string) bool {
	copied := 0    // of sql, into n.text
	var last class // of the token before; 0 if it is no constant
	for i := 0; i < len(sql); {
		at := constantAt{start: i}
		switch kinds[sql[i]] {
		case kindSpace:
			i++
			continue
		case kindLetter:
			i = endOfName(sql, i)
		case kindDigit:
			i = at.readNumber(sql)
		case kindQuote:
			if last == classString { // perhaps they are one
				return false
			}
			i = at.readString(sql)
		case kindDouble:
			i = endOfQuotedName(sql, i)
		case kindSign:
			switch {
			case strings.HasPrefix(sql[i:], "--"):
				i = endOfLine(sql, i)
				continue
			case strings.HasPrefix(sql[i:], "/*"):
				if i = endOfComment(sql, i); i < 0 {
					return false
				}
				continue
			case sql[i] == '.' && i+1 < len(sql) && (sql[i+1] == '.' || kinds[sql[i+1]] == kindDigit): // "..", ".5"
				return false
			}
			i++
		default:
			return false
		}
		if i < 0 {
			return false
		}
		if last = at.class; last != 0 {
			at.end = i
			n.text = append(append(n.text, sql[copied:at.start]...), 0, byte(at.class))
			n.constants = append(n.constants, at)
			copied = i
			if len(n.constants) > maxConstants || len(n.text) > maxNormal {
				return false
			}
		}
	}
	n.text = append(n.text, sql[copied:]...)
	return len(n.text) <= maxNormal
}

// kind is what a byte begins, outside of everything that has an end of its own.
type kind byte

const (
	kindOther kind = iota // nothing that is understood here
	kindSpace
	kindLetter // and every byte beyond ASCII
	kindDigit
	kindQuote  // '
	kindDouble // "
	kindSign   // operators, brackets and separators; the beginning of a comment
)

// kinds follows the classes of PostgreSQL's scan.l. It never changes.
var kinds = func() (k [256]kind) {
	for c := range k {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '_', c >= 0x80:
			k[c] = kindLetter
		case '0' <= c && c <= '9':
			k[c] = kindDigit
		case strings.IndexByte(" \t\n\r\f\v", byte(c)) >= 0:
			k[c] = kindSpace
		case strings.IndexByte(",()[].;:+-*/%^<>=~!@#&|`?", byte(c)) >= 0:
			k[c] = kindSign
		}
	}
	k['\''], k['"'] = kindQuote, kindDouble
	return k
}()

// endOfName is the end of the word that begins at i, -1 in doubt: a letter before a quote can make another kind of string
// of it (E”, B”, X”, N”, U&”), or of a name (U&"").
func endOfName(sql string, i int) int {
	start := i
	for i < len(sql) && (kinds[sql[i]] == kindLetter || kinds[sql[i]] == kindDigit || sql[i] == '$') {
		i++
	}
	if i < len(sql) && (sql[i] == '\'' || sql[i] == '&' && i-start == 1 && sql[start]|0x20 == 'u') {
		return -1
	}
	return i
}

// endOfQuotedName is the end of the quoted name at i, -1 if it has none. A quote in it is written twice, which looks like
// two names here.
func endOfQuotedName(sql string, i int) int {
	end := strings.IndexByte(sql[i+1:], '"')
	if end < 0 {
		return -1
	}
	return i + 1 + end + 1
}

// endOfLine is the end of the comment at i that reaches to the end of the line.
func endOfLine(sql string, i int) int {
	for i < len(sql) && sql[i] != '\n' && sql[i] != '\r' {
		i++
	}
	return i
}

// endOfComment is the end of the comment at i, which may hold others, -1 if it has none.
func endOfComment(sql string, i int) int {
	depth := 0
	for i+1 < len(sql) {
		switch {
		case sql[i] == '/' && sql[i+1] == '*':
			depth++
			i += 2
		case sql[i] == '*' && sql[i+1] == '/':
			i += 2
			if depth--; depth == 0 {
				return i
			}
		default:
			i++
		}
	}
	return -1
}

// readNumber reads the number at c.start and returns its end, -1 in doubt.
func (c *constantAt) readNumber(sql string) int {
	i, beyond := c.start, false
	for ; i < len(sql) && kinds[sql[i]] == kindDigit; i++ {
		digit := int64(sql[i] - '0')
		beyond = beyond || c.number > (math.MaxInt64-digit)/10
		c.number = c.number*10 + digit
	}
	c.class = classInt
	if c.number > math.MaxInt32 {
		c.class = classBig
	}
	if i < len(sql) && sql[i] == '.' {
		c.class = classNumeric
		i = endOfDigits(sql, i+1)
	}
	if i < len(sql) && sql[i]|0x20 == 'e' {
		c.class = classNumeric
		if i++; i < len(sql) && (sql[i] == '+' || sql[i] == '-') {
			i++
		}
		if i == len(sql) || kinds[sql[i]] != kindDigit {
			return -1
		}
		i = endOfDigits(sql, i)
	}
	if beyond && c.class != classNumeric { // numeric too; but a minus may make it a bigint
		return -1
	}
	// 0x1f, 1_000, 1..2, 1.2.3, 1$1, 12monkeys
	if i < len(sql) && (kinds[sql[i]] == kindLetter || sql[i] == '.' || sql[i] == '$') {
		return -1
	}
	return i
}

func endOfDigits(sql string, i int) int {
	for i < len(sql) && kinds[sql[i]] == kindDigit {
		i++
	}
	return i
}

// readString reads the string at c.start and returns its end, -1 if it has none.
func (c *constantAt) readString(sql string) int {
	c.class = classString
	for i := c.start + 1; ; i += 2 {
		quote := strings.IndexByte(sql[i:], '\'')
		if quote < 0 {
			return -1
		}
		i += quote
		if i+1 == len(sql) || sql[i+1] != '\'' {
			return i + 1
		}
		c.doubled = true
	}
}

// appendString appends what the string c holds.
func (c *constantAt) appendString(dst []byte, sql string) []byte {
	inside := sql[c.start+1 : c.end-1]
	if !c.doubled {
		return append(dst, inside...)
	}
	for i := 0; i < len(inside); i++ {
		if dst = append(dst, inside[i]); inside[i] == '\'' {
			i++ // the second of two
		}
	}
	return dst
}
