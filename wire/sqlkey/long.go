package sqlkey

import (
	"fmt"
	"reflect"
	"strings"

	"rangefinder/wire/pg"
)

// minShortened is the length from which a string, quotes included, is taken out of a text that is too long to be parsed.
const minShortened = 100

// compileLong plans a text that is too long to be parsed. Drivers that write values into the text (psycopg2 knows no other way)
// make such texts of a single large value. So long strings are taken out of it, and what is left is planned, twice, with other words
// in their places: if that makes no difference to the plan, the strings' own contents make none either. A long string that is a key,
// or the value of a setting, does make one, and the text is refused. So is everything but queries: a DO block is such a string too.
func (p *Planner) compileLong(db *database, env *Env, sql string) *Plan {
	if e := unreadable(env, sql); e != nil {
		return (&compiler{db: db}).unread(e)
	}
	var plans [2]*Plan
	for i, other := range []string{"'one long string'", "'another long one'"} {
		short, ok := shorten(sql, other)
		if ok && len(short) <= p.maxStatement {
			c, tree, plan := p.read(db, env, short)
			if plan == nil && onlyQueries(tree) {
				c.path.asWritten = true
				plan = c.plan(tree)
			}
			plans[i] = plan.whole()
		}
		if plans[i] == nil || !reflect.DeepEqual(plans[0], plans[i]) {
			return (&compiler{db: db}).unread(pg.Errorf(pg.CodeProgramLimitExceeded, "the statement of %d bytes is too long to be routed", len(sql)).
				WithDetail(fmt.Sprintf("Statements up to %d bytes are read. Long strings in a query do not count, unless one is a key.", p.maxStatement)).
				WithHint("Use parameters or COPY for large values."))
		}
	}
	return plans[0]
}

// whole is a plan of which nothing is kept that is made of the text's own words, if that is what it can do without.
func (p *Plan) whole() *Plan {
	if p == nil || p.Fan == nil || p.Fan.Split == nil {
		return p
	}
	q, fan := *p, *p.Fan
	fan.Split = &Split{Rows: fan.Split.Rows, Whole: true}
	q.Fan = &fan
	return &q
}

// shorten puts other, a string with its quotes, in the place of every long string of sql. It splits the text as normal does, and
// doubts where that does: ok is then false. It also knows strings with backslashes (E'...'): drivers make them of values that hold some.
func shorten(sql, other string) (short string, ok bool) {
	var b strings.Builder
	copied, afterString := 0, false
	for i := 0; i < len(sql); {
		start, isString := i, false
		switch kinds[sql[i]] {
		case kindSpace:
			i++
			continue
		case kindLetter, kindDigit:
			if sql[i]|0x20 == 'e' && i+1 < len(sql) && sql[i+1] == '\'' {
				isString, i = true, endOfEscaped(sql, i+1)
			} else {
				i = endOfName(sql, i)
			}
		case kindQuote:
			at := constantAt{start: i}
			isString, i = true, at.readString(sql)
		case kindDouble:
			i = endOfQuotedName(sql, i)
		case kindSign:
			switch {
			case strings.HasPrefix(sql[i:], "--"):
				i = endOfLine(sql, i)
				continue
			case strings.HasPrefix(sql[i:], "/*"):
				if i = endOfComment(sql, i); i < 0 {
					return "", false
				}
				continue
			}
			i++
		default:
			if sql[i] != '$' || i+1 == len(sql) || kinds[sql[i+1]] != kindDigit { // a parameter, or a doubt
				return "", false
			}
			i = endOfName(sql, i+1)
		}
		if i < 0 || isString && afterString { // perhaps they are one
			return "", false
		}
		if afterString = isString; isString && i-start >= minShortened && !spellsBytes(sql[start:i]) {
			b.WriteString(sql[copied:start])
			b.WriteString(other)
			copied = i
		}
	}
	b.WriteString(sql[copied:])
	return b.String(), true
}

// spellsBytes tells whether the string may give bytes by their numbers, as E'\000' does: the parser refuses some of those, which it must see.
func spellsBytes(constant string) bool {
	if constant[0]|0x20 != 'e' {
		return false
	}
	for {
		i := strings.IndexByte(constant, '\\')
		if i < 0 {
			return false
		}
		if strings.IndexByte("01234567xuU", constant[i+1]) >= 0 {
			return true
		}
		constant = constant[i+2:]
	}
}

// endOfEscaped is the end of the string whose quote is at i and in which a backslash escapes, -1 if it has none.
func endOfEscaped(sql string, i int) int {
	for i++; i < len(sql); i++ {
		switch {
		case sql[i] == '\\':
			i++
		case sql[i] == '\'' && i+1 < len(sql) && sql[i+1] == '\'':
			i++
		case sql[i] == '\'':
			return i + 1
		}
	}
	return -1
}
