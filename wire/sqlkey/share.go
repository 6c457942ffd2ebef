package sqlkey

import (
	"reflect"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// maxShared bounds how many of its constants a shared plan compares with keys, and so what a Constants keeps.
const maxShared = 128

// share makes the plan that all texts of n's normal form share, from the parse tree of one of them, sql, which it changes.
// exact is sql's own plan. The result is nil if the plan cannot be shared; lasting tells whether that holds for all texts of
// the normal form.
//
// The constants are taken out of the tree before it is planned, so nothing in the plan can depend on their values: what is
// left of the tree is the same for all these texts. What makes the plan right for them is that planning looks at constants
// only in evaluate, which knows the ones taken out, and in SET and set_config, whose plans are not shared; and that a plan is
// used only for texts of which every constant that is compared with a key column can be a key (see Constants.take). Beyond
// that the plan, with sql's constants, has to be sql's own.
func (c *compiler) share(tree *pgquery.ParseResult, sql string, n *normal, exact *Plan) (shared *Plan, lasting bool) {
	b := blanker{sql: sql, normal: n, found: make([]bool, len(n.constants))}
	if !onlyQueries(tree) || !b.blank(tree) {
		return nil, true
	}
	c.sharing = true
	p := c.plan(tree)
	if p.Target == None || p.Target == Many || p.Session != SessNone || p.Tx != TxNone || p.fixed || p.NumParams != 0 {
		return nil, true
	}
	p.shared = len(p.bound) <= maxShared
	for i := range p.bound {
		p.bound[i].origin.value = i
	}
	for i := range p.Keys {
		p.Keys[i].eachPart(func(k *KeyRef) { p.shared = p.shared && (k.origin != nil || k.Literal != nil || k.Session) }) // a literal is a hint's
	}
	if !p.shared {
		return nil, true
	}
	var values Constants
	if !values.take(p, n, sql) {
		return nil, false
	}
	if !values.agree(exact) { // by a constant of this text: another one's may do
		return nil, false
	}
	return p, true
}

// onlyQueries tells whether a text's statements are all of the kinds whose plans are shared.
func onlyQueries(tree *pgquery.ParseResult) bool {
	for _, s := range tree.GetStmts() {
		n := s.GetStmt()
		if n.GetSelectStmt() == nil && n.GetInsertStmt() == nil && n.GetUpdateStmt() == nil && n.GetDeleteStmt() == nil {
			return false
		}
	}
	return len(tree.GetStmts()) > 0
}

// blanker takes the constants of a text's normal form out of its parse tree.
type blanker struct {
	sql    string
	normal *normal
	found  []bool // by place
	wrong  bool   // the tree and the normal form contradict each other
}

// blank reports whether every constant was found in the tree. One that is not has become something else than a constant,
// which may decide the plan: the name of a file, a type's precision.
func (b *blanker) blank(tree *pgquery.ParseResult) bool {
	at := make(map[int]int, len(b.normal.constants))
	for place := range b.normal.constants {
		at[b.normal.constants[place].start] = place
	}
	walk(tree, func(n any) bool {
		if n, ok := n.(*pgquery.Node); ok && n.GetAConst() != nil {
			b.constant(n, at)
			return false
		}
		return true
	})
	for _, found := range b.found {
		if !found {
			return false
		}
	}
	return !b.wrong
}

// constant puts a mark in the place of a constant. The grammar has folded the minus signs before a number into it, whose
// place is then the first sign's.
func (b *blanker) constant(n *pgquery.Node, at map[int]int) {
	c := n.GetAConst()
	start, minus := int(c.GetLocation()), false
	if start < 0 || start >= len(b.sql) {
		return
	}
	if b.sql[start] == '-' {
		for ; start < len(b.sql)-1 && (b.sql[start] == '-' || kinds[b.sql[start]] == kindSpace); start++ {
			minus = minus != (b.sql[start] == '-')
		}
	}
	place, ok := at[start]
	if !ok {
		return // not from a constant of the text, or from one that was left in the normal form
	}
	k := &b.normal.constants[place]
	if !b.same(c, k, minus) {
		b.wrong = true
		return
	}
	b.found[place] = true
	n.Node = &pgquery.Node_ParamRef{ParamRef: &pgquery.ParamRef{Number: blank(place, k.class)}}
	if minus {
		mark := &pgquery.Node{Node: n.Node}
		n.Node = &pgquery.Node_AExpr{AExpr: &pgquery.A_Expr{Kind: pgquery.A_Expr_Kind_AEXPR_OP, Name: []*pgquery.Node{pgquery.MakeStrNode("-")}, Rexpr: mark}}
	}
}

// same tells whether a constant of the tree is the one that was read from the text.
func (b *blanker) same(c *pgquery.A_Const, k *constantAt, minus bool) bool {
	written, sign := b.sql[k.start:k.end], ""
	if minus {
		sign = "-"
	}
	switch v := c.GetVal().(type) {
	case *pgquery.A_Const_Ival:
		number := int64(v.Ival.GetIval())
		if minus {
			number = -number
		}
		return k.class == classInt && number == k.number
	case *pgquery.A_Const_Fval:
		return (k.class == classBig || k.class == classNumeric) && v.Fval.GetFval() == sign+written
	case *pgquery.A_Const_Sval:
		return k.class == classString && v.Sval.GetSval() == string(k.appendString(nil, b.sql))
	}
	return false
}

// blank is what stands in a tree for the constant at a place: the number of a parameter, below zero as no text can have it.
func blank(place int, c class) int32 { return -int32(place<<8|int(c)) - 1 }

// blanked is the constant that blank stands for. Its value is not known.
func blanked(number int32) (constant, *issue) {
	place, c := int(-(number+1))>>8, class(-(number + 1))
	switch c {
	case classInt, classBig:
		return constant{family: integers, origin: &origin{place: place}}, nil
	case classString:
		return constant{origin: &origin{place: place}}, nil
	}
	return constant{}, issuef("a number is of type numeric")
}

// eachPart calls f for the parts of a key of several columns, or for the key.
func (k *KeyRef) eachPart(f func(*KeyRef)) {
	if k.Parts == nil {
		f(k)
		return
	}
	for i := range k.Parts {
		f(&k.Parts[i])
	}
}

// agree tells whether a shared plan with k's constants is the plan that the text has by itself.
func (k *Constants) agree(exact *Plan) bool {
	if exact.Fan != nil && exact.Fan.Split != nil { // of which one is planned by itself only if its rows belong to several shards
		together := *exact.Fan.together
		together.SQL, together.Statements = exact.SQL, exact.Statements
		exact = &together
	}
	p := *k.plan
	p.Apart = exact.Apart
	p.SQL, p.Keys, p.Reason, p.shared, p.bound = exact.SQL, exact.Keys, exact.Reason, false, nil
	if !reflect.DeepEqual(&p, exact) {
		return false
	}
	if p.Target != Keyed && k.plan.Reason != exact.Reason {
		return false
	}
	// Which keys are none twice depends on the constants.
	want := make(map[string]*KeyRef)
	for i := range exact.Keys {
		if w := &exact.Keys[i]; !w.Session && want[string(w.Literal)] == nil {
			want[string(w.Literal)] = w
		}
	}
	seen := make(map[string]bool)
	for i := range k.plan.Keys {
		ref := &k.plan.Keys[i]
		if ref.Session {
			continue
		}
		key, err := k.plan.AppendKey(nil, i, k, true)
		w := want[string(key)]
		if err != nil || w == nil || w.Literal == nil || ref.Type != w.Type || k.beyondASCII(ref) != w.nonASCII {
			return false
		}
		if !seen[string(key)] && k.plan.KeyText(i, k) != w.Text {
			return false
		}
		seen[string(key)] = true
	}
	return len(seen) == len(want)
}
