package sqlkey

import "strings"

// A list of constants says little, and a parser makes a tree of it that takes a hundred times its text. So long ones are taken out of a text before it
// is parsed: what an IN or an ARRAY holds behind its first item, and the rows of an INSERT's VALUES behind the first. A mark stands in their place, and
// our own lexer, which reads such constants for normal forms as well, tells what they are. Where it doubts, the text is parsed as a whole.

// The bounds of what is taken out.
const (
	minFoldText = 4 << 10 // bytes of a text
	minFold     = 64      // items of a list, or rows
)

// foldMark, then the number of a list from 1, is the string that stands for it.
const foldMark = "rangefinder_fold_"

// fold is a text with its long lists taken out.
type fold struct {
	sql    string
	least  int
	text   string // with marks
	lists  []foldedList
	marks  int // in text
	tried  int // up to here there is no long list of rows
	params int // the highest $n in the lists
	doubt  bool
}

// foldedList is a list that was taken out.
type foldedList struct {
	start, end int // bytes of fold.sql: from its first item or row that was taken out to the end of the last
	count      int // of items, or rows
	width      int // of rows: how many items each has; 0: it is no list of rows
}

// foldItem is a constant, or a parameter, where it stands in fold.sql.
type foldItem struct {
	at    constantAt // class 0: a parameter, or a word
	minus bool
	param int
	word  string // null, true or false
	cast  string // the name of a type; "": it is not cast
	end   int    // of the cast
}

// foldLists takes a text's long lists out. It returns nil if there are none, or in doubt.
func foldLists(sql string) *fold {
	if len(sql) < minFoldText {
		return nil
	}
	return foldFrom(sql, minFold)
}

// foldFrom takes lists out of a text that have more items than least.
func foldFrom(sql string, least int) *fold {
	if strings.Contains(sql, foldMark) {
		return nil
	}
	f := &fold{sql: sql, least: least}
	var b strings.Builder
	known := make(map[string]int)
	copied, depth, values := 0, 0, -1 // values: the depth at which VALUES has rows; -1: nowhere
	word := ""                        // the one before, if that is what came last
	// out puts a mark in the place of a list, the last of f.lists, with what stands around it there.
	out := func(before, after string) {
		l := f.lists[len(f.lists)-1]
		text := sql[l.start:l.end]
		n, ok := known[text]
		if ok {
			f.lists = f.lists[:len(f.lists)-1]
		} else {
			n = len(f.lists)
			known[text] = n
		}
		f.marks++
		b.WriteString(sql[copied:l.start])
		b.WriteString(before + "'" + foldMark + itoa(n) + "'" + after)
		copied = l.end
	}
	for i := 0; i < len(sql); {
		before := word
		if kinds[sql[i]] == kindSpace {
			i++
			continue
		}
		start := i
		word = ""
		if values >= 0 && values == depth && sql[i] != '(' && sql[i] != ',' {
			values = -1
		}
		switch kinds[sql[i]] {
		case kindLetter, kindDigit:
			if sql[i]|0x20 == 'e' && i+1 < len(sql) && sql[i+1] == '\'' {
				i = endOfEscaped(sql, i+1)
				break
			}
			if i = endOfName(sql, i); i < 0 {
				return nil
			}
			if word = sql[start:i]; strings.EqualFold(word, "values") {
				values = depth
			}
		case kindQuote:
			at := constantAt{start: i}
			i = at.readString(sql)
		case kindDouble:
			i = endOfQuotedName(sql, i)
		case kindSign:
			switch {
			case strings.HasPrefix(sql[i:], "--"):
				i = endOfLine(sql, i)
				continue
			case strings.HasPrefix(sql[i:], "/*"):
				i = endOfComment(sql, i)
			case sql[i] == '(' && values >= 0 && values == depth:
				if end := f.rows(i); end > 0 {
					out("(", strings.Repeat(", NULL", f.lists[len(f.lists)-1].width-1)+")")
					i = end
					break
				}
				depth++
				i++
			case sql[i] == '(':
				depth++
				if i++; strings.EqualFold(before, "in") {
					if end := f.list(i, ')'); end > 0 {
						out("", "")
						i = end
					}
				}
			case sql[i] == '[':
				if i++; strings.EqualFold(before, "array") {
					if end := f.list(i, ']'); end > 0 {
						out("", "")
						i = end
					}
				}
			case sql[i] == ')':
				depth--
				i++
			default:
				i++
			}
		default:
			if sql[i] != '$' || i+1 == len(sql) || kinds[sql[i+1]] != kindDigit {
				return nil
			}
			i = endOfName(sql, i+1)
		}
		if i < 0 {
			return nil
		}
	}
	if f.marks == 0 {
		return nil
	}
	b.WriteString(sql[copied:])
	f.text = b.String()
	return f
}

// list takes the list that begins at i, behind its bracket, out of the text, its first item excepted. It returns the end of the last item; 0: it is not
// taken out.
func (f *fold) list(i int, closes byte) int {
	l, params := foldedList{}, 0
	i = endOfSpace(f.sql, i)
	for n := 0; ; n++ {
		it, ok := f.item(i)
		if !ok {
			return 0
		}
		params = max(params, it.param)
		if n == 1 {
			l.start = it.at.start
		}
		switch i = endOfSpace(f.sql, it.end); {
		case i == len(f.sql):
			return 0
		case f.sql[i] == closes && n < f.least:
			return 0
		case f.sql[i] == closes:
			l.end, l.count = it.end, n
			f.lists, f.params = append(f.lists, l), max(f.params, params)
			return l.end
		case f.sql[i] != ',':
			return 0
		}
		i = endOfSpace(f.sql, i+1)
	}
}

// rows takes the rows from the second on out of the text, the first of which begins at i, up to one that is not all constants. It returns the end of the
// last; 0: they are not taken out.
func (f *fold) rows(i int) int {
	if i < f.tried {
		return 0
	}
	var items []foldItem
	l, params := foldedList{}, 0
	for n := 0; ; n++ {
		var end int
		f.tried = i
		if items, end = f.row(i, items[:0]); end == 0 || n > 0 && len(items) != l.width {
			break
		}
		l.width = len(items)
		if n == 1 {
			l.start = i
		}
		if n > 0 {
			for _, it := range items {
				params = max(params, it.param)
			}
			l.end, l.count = end, n
		}
		if end = endOfSpace(f.sql, end); end == len(f.sql) || f.sql[end] != ',' {
			break
		}
		if i = endOfSpace(f.sql, end+1); i == len(f.sql) || f.sql[i] != '(' {
			break
		}
	}
	if l.count < f.least {
		return 0
	}
	f.lists, f.params = append(f.lists, l), max(f.params, params)
	return l.end
}

// row appends the items of the row that begins at i, with its bracket. end is 0 if they are not all constants.
func (f *fold) row(i int, items []foldItem) (list []foldItem, end int) {
	for i = endOfSpace(f.sql, i+1); ; i = endOfSpace(f.sql, i+1) {
		it, ok := f.item(i)
		if !ok {
			return items, 0
		}
		items = append(items, it)
		if i = endOfSpace(f.sql, it.end); i == len(f.sql) {
			return items, 0
		}
		switch f.sql[i] {
		case ')':
			return items, i + 1
		case ',':
		default:
			return items, 0
		}
	}
}

func endOfSpace(sql string, i int) int {
	for i < len(sql) && kinds[sql[i]] == kindSpace {
		i++
	}
	return i
}

// item reads the constant or parameter at i, which has to end there.
func (f *fold) item(i int) (it foldItem, ok bool) {
	sql := f.sql
	if it.at.start = i; i == len(sql) {
		return it, false
	}
	if sql[i] == '-' {
		it.minus = true
		if i = endOfSpace(sql, i+1); i == len(sql) || kinds[sql[i]] != kindDigit {
			return it, false
		}
	}
	c := constantAt{start: i}
	switch kinds[sql[i]] {
	case kindDigit:
		c.end = c.readNumber(sql)
	case kindQuote:
		if c.end = c.readString(sql); c.end > 0 && TellsNow(string(c.appendString(nil, sql))) {
			return it, false
		}
	case kindLetter:
		if c.end = endOfName(sql, i); c.end < 0 {
			return it, false
		}
		if it.word = LowerASCII(sql[i:c.end]); !isOneOf(it.word, "null", "true", "false") {
			return it, false
		}
	default:
		if sql[i] != '$' {
			return it, false
		}
		number := constantAt{start: i + 1}
		if i+1 == len(sql) || kinds[sql[i+1]] != kindDigit {
			return it, false
		}
		if c.end = number.readNumber(sql); number.class != classInt || number.number == 0 || number.number > maxParam {
			return it, false
		}
		it.param = int(number.number)
	}
	if c.end < 0 {
		return it, false
	}
	start := it.at.start
	it.at, it.end = c, c.end
	it.at.start = start
	if c.class != 0 && !it.minus && strings.HasPrefix(sql[c.end:], "::") {
		at := c.end + len("::")
		for it.end = at; it.end < len(sql) && (sql[it.end] == '_' || kinds[sql[it.end]] == kindDigit || 'a' <= sql[it.end] && sql[it.end] <= 'z'); {
			it.end++
		}
		// Of other words some are none of a type's: the parser must see them.
		if it.cast = sql[at:it.end]; !isOneOf(it.cast, "int8", "int4", "int2", "bigint", "int", "integer", "smallint", "text", "varchar", "uuid", "date", "timestamptz", "timestamp",
			"bytea", "numeric", "float8", "float4", "bool", "boolean", "json", "jsonb") {
			return it, false
		}
	}
	return it, true
}

// maxParam is the highest number of a parameter.
const maxParam = 1<<16 - 1
