package sqlkey

import (
	"strconv"
	"strings"
	"unsafe"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"rangefinder/wire/pg"
)

// piece is a part of a statement's text, and the parameter that follows it; 0: none does.
type piece struct {
	text  string
	param int
}

// rowMark stands between the rows of the statement that is taken apart.
const rowMark = "{row}"

// split makes the plan of an INSERT whose rows have several keys.
// together is its plan if they belong to one shard.
func (c *compiler) split(m proto.Message, p, together *Plan, a *analysis, s *survey) *Plan {
	n, _ := m.(*pgquery.Node)
	text := make([]string, 0, 2)
	for _, k := range p.Keys[:2] {
		text = append(text, k.Text)
	}
	one := &refusal{issue: issue{pg.CodeFeatureNotSupported, "its rows have several keys, " + strings.Join(text, " and "), "Send one statement for each key."}, table: a.rows[0].table}
	split := &Split{}
	for _, r := range a.rows {
		split.Rows = append(split.Rows, composed(r.keys, p.method))
	}
	problem := split.takeApart(n.GetInsertStmt(), s, c.fold)
	if problem != nil {
		if fan, how, none := c.deal(n, a, s, problem); none == nil {
			return c.over(p, fan, how, one)
		}
		one.many = problem.reason
		return p.refuse(one)
	}
	refused := *p
	refused.refuse(one)
	p.Target, p.Keys = Many, nil
	p.Fan = &Fan{Writes: true, Split: split, Why: one.reason, Refusal: refused.Err, together: together}
	p.Reason = "keyspace " + p.KeyspaceName + ": " + one.reason + "; each shard gets its rows"
	return p
}

// takeApart writes the statement with marks between its rows, and cuts it there.
func (s *Split) takeApart(insert *pgquery.InsertStmt, found *survey, folded *fold) *issue {
	switch {
	case insert == nil && found.changes > 0:
		return issuef("it changes rows in WITH, and those that it inserts are given as values")
	case insert == nil:
		return issuef("a statement of its kind cannot run on several shards")
	case found.changes > 1:
		return issuef("it changes rows in WITH as well, and its own rows are given as values")
	case found.marks:
		return issuef("it holds a name or text like %s", rowMark)
	case insert.GetSelectStmt().GetSelectStmt().GetLimitCount() != nil, insert.GetSelectStmt().GetSelectStmt().GetLimitOffset() != nil:
		return issuef("LIMIT or OFFSET counts the rows of all shards together")
	}
	if len(insert.GetReturningList()) > 0 && len(insert.GetSelectStmt().GetSelectStmt().GetSortClause()) > 0 {
		return issuef("ORDER BY sorts the rows of all shards together")
	}
	mark := pgquery.MakeListNode([]*pgquery.Node{columnRef(rowMark)})
	list := []*pgquery.Node{mark}
	written := insert.GetSelectStmt().GetSelectStmt().GetValuesLists()
	for _, row := range written {
		list = append(list, row, mark)
	}
	values := surface(insert.GetSelectStmt().GetSelectStmt())
	values.ValuesLists = list
	marked := surface(insert)
	marked.SelectStmt = selectNode(values)
	text, err := deparse(&pgquery.Node{Node: &pgquery.Node_InsertStmt{InsertStmt: marked}})
	if err == nil {
		text, err = withoutBraces(text)
	}
	if err != nil {
		return issuef("what each shard is to be asked cannot be written: %v", err)
	}
	scan, err := pgquery.Scan(text)
	if err != nil {
		return issuef("what each shard is to be asked cannot be written: %v", err)
	}
	tokens := scan.GetTokens()
	cut := func(from, to int) (list []piece) {
		for len(tokens) > 0 && int(tokens[0].GetStart()) < to {
			t := tokens[0]
			tokens = tokens[1:]
			if t.GetToken() != pgquery.Token_PARAM || int(t.GetStart()) < from {
				continue
			}
			number, err := strconv.Atoi(text[t.GetStart()+1 : t.GetEnd()])
			if err != nil {
				continue
			}
			list = append(list, piece{text[from:t.GetStart()], number})
			from = int(t.GetEnd())
		}
		return append(list, piece{text: text[from:to]})
	}
	const between = `("` + rowMark + `")`
	at := 0
	for i := range len(written) + 1 {
		end := strings.Index(text[at:], between)
		if end < 0 {
			return issuef("what each shard is to be asked cannot be taken apart")
		}
		end += at
		if i == 0 {
			s.head = cut(at, end)
		} else {
			row := cut(at+len(", "), end-len(", "))
			if l := folded.rowsOf(written[i-1]); l != nil {
				s.rows = append(s.rows, folded.pieces(l)...)
			} else {
				s.rows = append(s.rows, row)
			}
		}
		at = end + len(between)
	}
	s.tail = cut(at, len(text))
	return nil
}

// Part makes the statement that inserts some of the rows, by their numbers from 0. Its parameters are numbered anew, for one that it
// lacks would have no type: params are the client's numbers of $1, $2, ...
func (s *Split) Part(rows []int) (sql string, params []int) {
	var out []byte
	numbers := make(map[int]int)
	write := func(list []piece) {
		for _, p := range list {
			out = append(out, p.text...)
			if p.param == 0 {
				continue
			}
			i, ok := numbers[p.param]
			if !ok {
				i = len(params)
				numbers[p.param], params = i, append(params, p.param)
			}
			out = strconv.AppendInt(append(out, '$'), int64(i+1), 10)
		}
	}
	write(s.head)
	for i, row := range rows {
		if i > 0 {
			out = append(out, ", "...)
		}
		write(s.rows[row])
	}
	write(s.tail)
	return string(out), params
}

func (s *Split) bytes() (n int) {
	for _, list := range append([][]piece{s.head, s.tail}, s.rows...) {
		for i := range list {
			n += int(unsafe.Sizeof(list[i])) + len(list[i].text)
		}
	}
	return n + int(unsafe.Sizeof(*s))
}
