package sqlkey

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"rangefinder/rib"
)

// Leave makes what a shard is asked that has rows whose keys are another shard's by now, or still: it is to leave them out. While a range moves,
// its new owner has copies of its rows, and its old one keeps them for a while after.
//
// Each row of what a statement gives on several shards is of one key, which is that of one table of each of its query levels that are spread over
// the shards (see spread). So one condition on that table's key leaves out all that comes of a key, whatever else the statement names.
type Leave struct {
	// constant
	pieces []string   // of the text; between them stand conditions on keys
	keys   [][]string // of each condition: the key's columns, as SQL writes them there
	method rib.Method
	types  []rib.Type
}

// Gap are the keys of [From, To); an empty bound is open.
type Gap struct{ From, To rib.Key }

// SQL is the text that leaves out the rows of some keys.
func (l *Leave) SQL(gaps []Gap) string {
	var b strings.Builder
	for i, piece := range l.pieces {
		b.WriteString(piece)
		if i == len(l.keys) {
			break
		}
		b.WriteString("((")
		for j, g := range gaps {
			if j > 0 {
				b.WriteString(" OR ")
			}
			b.WriteString(l.method.Predicate(l.keys[i], l.types, g.From, g.To))
		}
		b.WriteString(") IS NOT TRUE)")
	}
	return b.String()
}

// lazyLeave is a plan's Leave, which is made when it is first asked for.
type lazyLeave struct {
	once  sync.Once
	leave *Leave
	err   error
}

// Leave is what the shards are asked that are to leave out rows of a plan that Plan has made of the same catalog and environment. The error says, as a
// clause, why that cannot be written. Plans whose rows each have a shard of their own (Fan.Split, a COPY FROM) need none, and those that
// concern whole tables (Fan.Everywhere) have none.
func (p *Planner) Leave(c *Catalog, env *Env, plan *Plan) (*Leave, error) {
	lazy := plan.Fan.leave
	if lazy == nil {
		lazy = new(lazyLeave)
	}
	lazy.once.Do(func() {
		under := *env
		under.Foreign = plan.foreign
		lazy.leave, lazy.err = p.leave(c.find(env.Database), &under, plan)
	})
	return lazy.leave, lazy.err
}

// keepsLeave has the plan keep its Leave once that was made.
func (p *Plan) keepsLeave() {
	if p.Target == Many && p.Fan != nil {
		p.Fan.leave = new(lazyLeave)
	}
}

func (p *Planner) leave(db *database, env *Env, plan *Plan) (*Leave, error) {
	if strings.Contains(plan.SQL, leaveMark) {
		return nil, fmt.Errorf("it holds a text like %s", leaveMark)
	}
	var again *Plan
	var l *leaving
	if c, tree := p.readFolded(db, env, plan.SQL); c != nil {
		c.leaves = new(leaving)
		if again, l = c.plan(tree), c.leaves; c.fold.restore(again) {
			l.text = c.fold.unfold(l.text)
		} else {
			again = nil
		}
	}
	if again == nil {
		c, tree, early := p.read(db, env, plan.SQL)
		if early != nil {
			return nil, errors.New("it is not read as a whole")
		}
		c.leaves = new(leaving)
		again, l = c.plan(tree), c.leaves
	}
	switch {
	case l.err != nil:
		return nil, l.err
	case l.text == "" || again.Target != Many:
		return nil, errors.New("statements of its kind are not rewritten")
	case !alike(plan.Fan, again.Fan):
		return nil, errors.New("with a condition more it would be put together otherwise")
	}
	out := &Leave{method: plan.method, types: l.types}
	rest := l.text
	for {
		before, after, more := strings.Cut(rest, `"`+leaveMark)
		out.pieces = append(out.pieces, before)
		if !more {
			break
		}
		number, end, ok := strings.Cut(after, `}"`)
		n, err := strconv.Atoi(number)
		if !ok || err != nil || n < 1 || n > len(l.keys) {
			return nil, errors.New("the text cannot be taken apart")
		}
		out.keys, rest = append(out.keys, l.keys[n-1]), end
	}
	if len(out.keys) == 0 || out.method == nil {
		return nil, errors.New("no place for a condition on its keys was found")
	}
	return out, nil
}

// alike tells whether answers of shards are put together in the same way.
func alike(a, b *Fan) bool {
	return a.Hidden == b.Hidden && a.Final == b.Final && slices.Equal(a.Order, b.Order) && a.Offset == b.Offset && a.Limit == b.Limit &&
		a.Writes == b.Writes && (a.Rekey == nil) == (b.Rekey == nil) && (a.Copy == nil) == (b.Copy == nil) && reflect.DeepEqual(a.Within, b.Within)
}

// leaveMark, then a number from 1 and "}", is the name of a column that stands for a condition in a text that is not a Leave yet.
const leaveMark = "{leave "

// leaving is what the compiler finds when it is asked for a Leave.
type leaving struct {
	keys  [][]string // the key's columns of each mark, by number
	types []rib.Type
	text  string // with the marks
	err   error
}

func (l *leaving) fail(err error) {
	if l.err == nil {
		l.err = err
	}
}

// take takes what each shard is asked, with marks in it. Nothing happens unless a Leave is asked for.
func (c *compiler) takeLeave(n *pgquery.Node) {
	l := c.leaves
	if l == nil {
		return
	}
	text, err := deparse(n)
	if err == nil && !same(n, text) {
		err = errors.New("it would be written in words that mean something else")
	}
	if err != nil {
		l.fail(err)
		return
	}
	l.text = text
}

// same tells whether a text is read as the statement that it was made of.
func same(n *pgquery.Node, text string) bool {
	tree, err := pgquery.Parse(text)
	return err == nil && len(tree.GetStmts()) == 1 && proto.Equal(cloned(tree.GetStmts()[0].GetStmt()), cloned(n))
}

// markLeave puts the conditions on the key of the table that was picked into the tree. Nothing happens unless a Leave is asked for.
func (c *compiler) markLeave(a *analysis) {
	l := c.leaves
	if l == nil {
		return
	}
	if !c.path.builtinsFirst {
		l.fail(errors.New("the search path may have other functions by the names of PostgreSQL's own"))
		return
	}
	for _, p := range a.parts { // each changes rows by itself
		c.markLeave(p)
	}
	for _, r := range a.spread.picked {
		if r.returned { // by one of these
			continue
		}
		name, ok := r.level.qualifier(r)
		if !ok {
			l.fail(errors.New("its table cannot be named where the condition has to stand"))
			return
		}
		var key []string
		for _, column := range r.table.columns {
			key = append(key, name+"."+rib.QuoteIdent(column))
		}
		l.keys, l.types = append(l.keys, key), r.table.keyspace.types
		if err := r.level.restrict(r, columnRef(leaveMark+itoa(len(l.keys))+"}")); err != nil {
			l.fail(err)
			return
		}
	}
}

// qualifier is how an expression of the level names one of its items, if it can.
func (l *built) qualifier(r *ref) (string, bool) {
	if l == nil || r.renames {
		return "", false
	}
	if found, _ := l.scope.named(func(x *ref) bool { return x.alias == r.alias }); found == r {
		return rib.QuoteIdent(r.alias), true
	}
	same := func(x *ref) bool { return x.schema == r.schema && x.table != nil && x.table.name == r.table.name }
	if found, _ := l.scope.named(same); found == r && r.schema != "" {
		return rib.QuoteIdent(r.schema) + "." + rib.QuoteIdent(r.table.name), true
	}
	return "", false
}

// restrict leaves the level with the rows alone for which a condition on one of its items holds.
func (l *built) restrict(r *ref, condition *pgquery.Node) error {
	also := func(where *pgquery.Node) *pgquery.Node {
		terms := []*pgquery.Node{where}
		switch b := where.GetBoolExpr(); {
		case where == nil:
			return condition
		case b.GetBoolop() == pgquery.BoolExprType_AND_EXPR: // as the parser has it
			terms = slices.Clone(b.GetArgs())
		}
		return pgquery.MakeBoolExprNode(pgquery.BoolExprType_AND_EXPR, append(terms, condition), 0)
	}
	switch s := l.owner.(type) {
	case *pgquery.SelectStmt:
		s.WhereClause = also(s.GetWhereClause())
	case *pgquery.UpdateStmt:
		s.WhereClause = also(s.GetWhereClause())
	case *pgquery.DeleteStmt:
		s.WhereClause = also(s.GetWhereClause())
	case *pgquery.MergeStmt: // what does nothing may do so
		for _, n := range s.GetMergeWhenClauses() {
			w := n.GetMergeWhenClause()
			if w.GetCommandType() == pgquery.CmdType_CMD_NOTHING {
				continue
			}
			if w.GetMatchKind() != pgquery.MergeMatchKind_MERGE_WHEN_MATCHED && r == l.items[0].right.ref {
				return errors.New("MERGE cannot name its target's columns where nothing matches")
			}
			w.Condition = also(w.GetCondition())
		}
	default:
		return errors.New("statements of its kind have no place for a condition")
	}
	return nil
}
