package sqlkey

import (
	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// The parser is C and recurses once a level of the parse tree when it hands the tree over, without looking at its stack:
// 30,000 terms in "1+1+1..." end the process. Its grammar bounds what nests to the right (parentheses, NOT) by itself; what
// nests to the left it does not. So a text's depth is bounded before it is parsed.
const (
	// maxDepth is far above what people and generators write and needs at most 2 MiB of stack, the least that a thread has.
	maxDepth = 4000
	// shallow is the length up to which no text can be deeper than maxDepth: a level takes a byte at least.
	shallow = maxDepth
)

// maxSigns bounds a run of plus and minus signs. The scanner takes such a run for one operator, finds that it cannot end in
// a sign, and gives them back one by one, each time looking at the whole: a thousand take it minutes.
const maxSigns = 64

// manySigns tells whether a text holds a run of signs that would keep the scanner busy.
func manySigns(sql string) bool {
	run := 0
	for i := range len(sql) {
		switch {
		case sql[i] == '+', sql[i] == '-' && (i == 0 || sql[i-1] != '-'):
			if run++; run > maxSigns {
				return true
			}
		default: // two minus signs begin a comment
			run = 0
		}
	}
	return false
}

// tooDeep tells whether a text's parse tree might be deeper than maxDepth. It needs the text's tokens only, which the
// parser's own scanner finds without recursion. A text that cannot be scanned cannot be parsed either.
func tooDeep(sql string) bool {
	if manySigns(sql) {
		return true
	}
	if len(sql) <= shallow {
		return false
	}
	scan, err := pgquery.Scan(sql)
	if err != nil {
		return false
	}
	d := depth{open: []nesting{{}}}
	for _, t := range scan.GetTokens() {
		d.token(t.GetToken())
	}
	for len(d.open) > 1 {
		d.close()
	}
	return d.top().total() > maxDepth
}

// nesting is what was seen at one level of brackets.
type nesting struct {
	chain   int  // tokens since the last separator: each may add a level
	child   int  // the deepest bracket since then
	deepest int  // of the stretches before
	links   int  // UNION, JOIN and their like: they nest over separators
	between int  // BETWEENs whose AND is still to come
	isCase  bool // opened by CASE
}

// separate ends a stretch: what follows stands beside it in the tree, not above.
func (n *nesting) separate() {
	n.deepest = max(n.deepest, n.chain+n.child)
	n.chain, n.child = 0, 0
}

func (n *nesting) total() int {
	n.separate()
	return n.deepest + n.links
}

type depth struct {
	open []nesting
}

func (d *depth) top() *nesting { return &d.open[len(d.open)-1] }

func (d *depth) close() {
	inner := d.top().total()
	d.open = d.open[:len(d.open)-1]
	d.top().child = max(d.top().child, inner)
}

func (d *depth) token(t pgquery.Token) {
	top := d.top()
	switch t {
	case pgquery.Token_ASCII_40, pgquery.Token_ASCII_91: // ( [
		top.chain++
		d.open = append(d.open, nesting{})
	case pgquery.Token_CASE:
		top.chain++
		d.open = append(d.open, nesting{isCase: true})
	case pgquery.Token_ASCII_41, pgquery.Token_ASCII_93: // ) ]
		if len(d.open) > 1 && !top.isCase {
			d.close()
		}
	case pgquery.Token_END_P:
		if top.isCase {
			d.close()
		}
	case pgquery.Token_ASCII_44: // ,
		top.separate()
	case pgquery.Token_WHEN, pgquery.Token_THEN, pgquery.Token_ELSE:
		if top.isCase {
			top.separate()
		}
	case pgquery.Token_ASCII_59: // ;
		*top = nesting{deepest: top.total(), isCase: top.isCase}
	case pgquery.Token_AND, pgquery.Token_OR: // lists of terms, not chains
		if t == pgquery.Token_AND && top.between > 0 {
			top.between--
			top.chain++
			break
		}
		top.separate()
	case pgquery.Token_BETWEEN:
		top.between++
		top.chain++
	case pgquery.Token_UNION, pgquery.Token_INTERSECT, pgquery.Token_EXCEPT, pgquery.Token_JOIN:
		top.links++
	case pgquery.Token_SQL_COMMENT, pgquery.Token_C_COMMENT:
	default:
		top.chain++
	}
}
