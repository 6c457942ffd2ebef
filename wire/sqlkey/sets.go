package sqlkey

import (
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"rangefinder/rib"
)

// Sets of keys: conditions that leave several keys, of which Fan.Within is made. One that cannot be read is none: then the statement goes
// to more shards than it must, which is never wrong.

// maxMembers bounds a set's keys: beyond it all shards are asked.
const maxMembers = 10000

// setOf is the condition on a key column that n states, if it does; nil: none.
func (a *analysis) setOf(n *pgquery.Node, s *scope) (c column, set *KeySet) {
	if b := n.GetBoolExpr(); b != nil {
		switch b.GetBoolop() {
		case pgquery.BoolExprType_OR_EXPR:
			return a.anyOf(b.GetArgs(), s)
		case pgquery.BoolExprType_AND_EXPR:
			for _, arg := range b.GetArgs() { // any of them holds
				if ac, as := a.setOf(arg, s); as != nil && (set == nil || as.narrower(set)) {
					c, set = ac, as
				}
			}
		}
		return c, set
	}
	e := n.GetAExpr()
	if e == nil {
		return c, nil
	}
	l, r := e.GetLexpr(), e.GetRexpr()
	op := operator(e.GetName())
	if lr, rr := l.GetRowExpr().GetArgs(), r.GetRowExpr().GetArgs(); len(lr) > 0 && len(lr) == len(rr) && e.GetKind() == pgquery.A_Expr_Kind_AEXPR_OP {
		if op != "=" { // of (a, b) > (1, 2) it is a >= 1 that matters
			op = strings.TrimSuffix(op, "=") + "="
		}
		l, r = lr[0], rr[0]
	}
	c, ok := s.column(l, a.env.Database)
	if !ok && e.GetKind() == pgquery.A_Expr_Kind_AEXPR_OP {
		if c, ok = s.column(r, a.env.Database); ok {
			r, op = l, mirrored(op)
		}
	}
	if !ok {
		return c, nil
	}
	m := &memberOf{a: a, c: c}
	switch e.GetKind() {
	case pgquery.A_Expr_Kind_AEXPR_IN:
		if op != "=" {
			return c, nil
		}
		items := r.GetList().GetItems()
		if a.fold.size(items) > maxMembers {
			return c, nil
		}
		for _, item := range items {
			m.key(item)
		}
	case pgquery.A_Expr_Kind_AEXPR_OP_ANY:
		if op != "=" {
			return c, nil
		}
		m.array(r, nil)
	case pgquery.A_Expr_Kind_AEXPR_OP:
		if op == "=" {
			m.key(r)
		} else {
			m.bound(op, r)
		}
	case pgquery.A_Expr_Kind_AEXPR_BETWEEN:
		if ends := r.GetList().GetItems(); len(ends) == 2 {
			m.bound(">=", ends[0])
			from := m.set.Bounds
			m.set.Bounds = nil
			m.bound("<=", ends[1])
			if len(from) == 1 && len(m.set.Bounds) == 1 {
				m.set.Bounds[0].From = from[0].From
			} else {
				m.set.Bounds = from // one end is enough
			}
		}
	default:
		return c, nil
	}
	return m.done()
}

// mirrored is the operator with its sides exchanged.
func mirrored(op string) string {
	switch op {
	case "<":
		return ">"
	case "<=":
		return ">="
	case ">":
		return "<"
	case ">=":
		return "<="
	}
	return op
}

// rowIn are the facts that (a, b) IN ((1, 2), (3, 4)) states of key columns; nil: n is nothing of the kind, or there are none.
func (a *analysis) rowIn(e *pgquery.A_Expr, s *scope) (list []fact) {
	columns, items := e.GetLexpr().GetRowExpr().GetArgs(), e.GetRexpr().GetList().GetItems()
	if e.GetKind() != pgquery.A_Expr_Kind_AEXPR_IN || operator(e.GetName()) != "=" || len(columns) == 0 || len(items) > maxMembers {
		return nil
	}
	for i, n := range columns {
		c, ok := s.column(n, a.env.Database)
		if !ok {
			continue
		}
		if a.facts++; a.facts > maxFacts {
			return nil
		}
		m := &memberOf{a: a, c: c}
		for _, item := range items {
			values := item.GetRowExpr().GetArgs()
			if len(values) != len(columns) {
				return nil
			}
			m.key(values[i])
		}
		if _, set := m.done(); set != nil {
			if len(set.Keys) == len(items) { // no NULL is among them
				set.row = int(e.GetLocation()) + 1
			}
			list = append(list, fact{a: c, set: set})
		}
	}
	return list
}

// anyOf is the set that the terms of an OR give together: each must give one, of the same column.
func (a *analysis) anyOf(terms []*pgquery.Node, s *scope) (c column, all *KeySet) {
	for _, term := range terms {
		tc, set := a.setOf(term, s)
		if set == nil || all != nil && tc != c {
			return c, nil
		}
		if all == nil {
			c, all = tc, &KeySet{Text: set.Text}
		} else if len(all.Text) <= maxClipped {
			all.Text += " OR " + set.Text
		}
		all.Keys, all.Lists, all.Bounds = append(all.Keys, set.Keys...), append(all.Lists, set.Lists...), append(all.Bounds, set.Bounds...)
		if len(all.Keys) > maxMembers {
			return c, nil
		}
	}
	if all != nil {
		all.Text = clip(all.Text)
	}
	return c, all
}

// narrower tells whether s is likely to have fewer keys than o.
func (s *KeySet) narrower(o *KeySet) bool {
	weight := func(k *KeySet) int { return len(k.Keys) + 1000*len(k.Lists) + 1000000*len(k.Bounds) }
	return weight(s) < weight(o)
}

// memberOf collects what a column may be.
type memberOf struct {
	a      *analysis
	c      column
	set    KeySet
	text   []string
	failed bool
}

// done is the set, or none.
func (m *memberOf) done() (column, *KeySet) {
	if m.failed || len(m.set.Keys) > maxMembers || len(m.text) == 0 {
		return m.c, nil
	}
	name := quoteName(m.c.ref.table.columns[m.c.i])
	switch {
	case len(m.set.Bounds) > 0:
		m.set.Text = strings.Join(m.text, " AND ")
	case len(m.set.Lists) > 0:
		m.set.Text = name + " = ANY (" + m.text[0] + ")"
	case len(m.text) == 1:
		m.set.Text = name + " = " + m.text[0]
	default:
		if len(m.text) > 5 {
			m.text = append(m.text[:4:4], itoa(len(m.text)-4)+" more")
		}
		m.set.Text = name + " IN (" + strings.Join(m.text, ", ") + ")"
	}
	return m.c, &m.set
}

func (m *memberOf) typ() rib.Type { return m.c.typ() }

// key adds an expression's value.
func (m *memberOf) key(n *pgquery.Node) {
	if l := m.a.fold.of(n); l != nil {
		m.a.fold.each(l, m.a.path, m.constant)
		return
	}
	v, problem := evaluate(n, m.a.path)
	m.constant(v, problem)
}

func (m *memberOf) constant(v constant, problem *issue) {
	if problem == nil && v.null { // nothing is equal to it
		m.text = append(m.text, "NULL")
		return
	}
	k, ok := m.ref(v, problem)
	if ok {
		m.set.Keys = append(m.set.Keys, k)
		m.text = append(m.text, v.String())
	}
}

func (m *memberOf) ref(v constant, problem *issue) (k KeyRef, ok bool) {
	t := m.c.ref.table
	if problem == nil {
		k, problem = v.key(m.typ(), t.keyspace.method)
	}
	if problem != nil || m.failed {
		m.failed = true
		return k, false
	}
	k.column = t.columns[m.c.i]
	k.Text = quoteName(k.column) + " = " + v.String()
	return k, true
}

// bound adds a comparison, if the keyspace keeps the order that the server has. Of text it is that of the column's collation.
func (m *memberOf) bound(op string, n *pgquery.Node) {
	t := m.c.ref.table
	if !isOneOf(op, "<", "<=", ">", ">=") || t.keyspace.method == nil || t.keyspace.method.Name() != "range" || m.c.i > 0 || m.typ() == rib.TypeText {
		m.failed = true
		return
	}
	v, problem := evaluate(n, m.a.path)
	if problem == nil && v.null {
		m.text = append(m.text, quoteName(t.columns[m.c.i])+" "+op+" NULL")
		return
	}
	k, ok := m.ref(v, problem)
	if !ok {
		return
	}
	var b KeyBounds
	switch op {
	case "<", "<=":
		b.To, b.ToClosed = &k, op == "<="
	default:
		b.From, b.FromOpen = &k, op == ">"
	}
	m.set.Bounds = append(m.set.Bounds, b)
	m.text = append(m.text, quoteName(t.columns[m.c.i])+" "+op+" "+v.String())
}

// array adds the elements of an array. cast is the type that they are cast to; nil: none.
func (m *memberOf) array(n *pgquery.Node, cast *keyType) {
	element := func(v constant, problem *issue) {
		if problem == nil && cast != nil {
			v, problem = v.castTo(cast)
		}
		m.constant(v, problem)
	}
	switch {
	case n.GetTypeCast() != nil && cast == nil:
		t := cloned(n.GetTypeCast().GetTypeName())
		if len(t.GetArrayBounds()) == 0 {
			m.failed = true
			return
		}
		t.ArrayBounds = nil
		if cast = keyTypeOf(baseTypeName(t, m.a.path)); cast == nil {
			m.failed = true
			return
		}
		m.array(n.GetTypeCast().GetArg(), cast)
	case n.GetParamRef().GetNumber() > 0:
		v := constant{param: int(n.GetParamRef().GetNumber())}
		var problem *issue
		if cast != nil {
			v, problem = v.castTo(cast)
		}
		if k, ok := m.ref(v, problem); ok {
			m.set.Lists = append(m.set.Lists, k)
			m.text = append(m.text, v.String())
		}
	case n.GetAArrayExpr() != nil:
		if m.a.fold.size(n.GetAArrayExpr().GetElements()) > maxMembers {
			m.failed = true
			return
		}
		for _, e := range n.GetAArrayExpr().GetElements() {
			if l := m.a.fold.of(e); l != nil {
				m.a.fold.each(l, m.a.path, element)
				continue
			}
			v, problem := evaluate(e, m.a.path)
			element(v, problem)
		}
		if len(n.GetAArrayExpr().GetElements()) == 0 {
			m.text = append(m.text, "")
		}
	case n.GetAConst().GetSval() != nil:
		r := arrayReader{rest: []byte(n.GetAConst().GetSval().GetSval()), text: true}
		if !r.openText() {
			m.failed = true
			return
		}
		m.text = append(m.text, rib.QuoteLiteral(clip(n.GetAConst().GetSval().GetSval())))
		for {
			v, null, more, ok := r.next()
			switch {
			case !ok || len(m.set.Keys) > maxMembers:
				m.failed = true
				return
			case !more:
				m.text = m.text[:1]
				return
			case !null:
				element(constant{str: string(v)}, nil)
			}
		}
	case n.GetAConst().GetIsnull():
		m.text = append(m.text, "NULL")
	default:
		m.failed = true
	}
}

// sets are the conditions on the unknown key.
func (q *spread) sets() []KeySet {
	columns := make([][]KeySet, len(q.key))
	for at := q.inside.facts; at != nil; at = at.parent {
		for i := range at.list {
			f := &at.list[i]
			if f.within != nil || f.set == nil && (f.value == nil || f.value.unknown > 0) {
				continue
			}
			v := q.inside.facts.value(f.a)
			if v == nil || v.unknown == 0 {
				continue
			}
			if f.set != nil {
				columns[v.unknown-1] = append(columns[v.unknown-1], *f.set)
			} else {
				columns[v.unknown-1] = append(columns[v.unknown-1], KeySet{Keys: []KeyRef{f.value.KeyRef}, Text: f.value.Text})
			}
		}
	}
	if len(columns) == 1 {
		return between(columns[0])
	}
	return q.product(columns)
}

// between joins sets that are bounds from one side each.
func between(sets []KeySet) (list []KeySet) {
	for _, s := range sets {
		joined := false
		if s.isBounds() {
			for i := range list {
				o := &list[i]
				if !o.isBounds() {
					continue
				}
				a, b := &o.Bounds[0], &s.Bounds[0]
				switch {
				case a.From == nil && b.To == nil:
					a.From, a.FromOpen, joined = b.From, b.FromOpen, true
				case a.To == nil && b.From == nil:
					a.To, a.ToClosed, joined = b.To, b.ToClosed, true
				}
				if joined {
					o.Text += " AND " + s.Text
					break
				}
			}
		}
		if !joined {
			s.Bounds = append([]KeyBounds(nil), s.Bounds...)
			list = append(list, s)
		}
	}
	return list
}

func (s *KeySet) isBounds() bool { return len(s.Keys)+len(s.Lists) == 0 && len(s.Bounds) == 1 }

// product makes keys of several columns of what each of these may be. If that is not known of all of them, the range method's order may
// still tell by the first.
func (q *spread) product(columns [][]KeySet) []KeySet {
	t := q.anchor.table
	if s := q.rows(columns); s != nil {
		return []KeySet{*s}
	}
	best := make([]*KeySet, len(columns))
	total := 1
	for i, sets := range columns {
		for j := range sets {
			if s := &sets[j]; len(s.Lists)+len(s.Bounds) == 0 && (best[i] == nil || s.narrower(best[i])) {
				best[i] = s
			}
		}
		if best[i] == nil {
			return q.prefix(columns[0])
		}
		if total *= len(best[i].Keys); total > maxMembers {
			return nil
		}
	}
	out := KeySet{}
	var texts []string
	for _, s := range best {
		texts = append(texts, s.Text)
	}
	out.Text = strings.Join(texts, " AND ")
	parts := make([]*binding, len(best))
	var choose func(i int)
	choose = func(i int) {
		if i == len(best) {
			out.Keys = append(out.Keys, composed(parts, t.keyspace.method))
			return
		}
		for j := range best[i].Keys {
			parts[i] = &binding{best[i].Keys[j]}
			choose(i + 1)
		}
	}
	choose(0)
	return []KeySet{out}
}

// rows are the keys that a list of rows gives which has all columns of the key; nil: there is none.
func (q *spread) rows(columns [][]KeySet) *KeySet {
	of := make([]*KeySet, len(columns))
	for i := range columns[0] {
		found := 0
		for j, sets := range columns {
			for k := range sets {
				if columns[0][i].row > 0 && sets[k].row == columns[0][i].row {
					of[j] = &sets[k]
				}
			}
			if of[j] != nil && of[j].row == columns[0][i].row {
				found++
			}
		}
		if found < len(columns) {
			continue
		}
		out := &KeySet{}
		var texts []string
		parts := make([]*binding, len(of))
		for n := range of[0].Keys {
			for j := range of {
				parts[j] = &binding{of[j].Keys[n]}
			}
			out.Keys = append(out.Keys, composed(parts, q.anchor.table.keyspace.method))
			if n < 4 {
				texts = append(texts, out.Keys[n].Text)
			}
		}
		if out.Text = strings.Join(texts, " OR "); len(out.Keys) > len(texts) {
			out.Text += " OR " + itoa(len(out.Keys)-len(texts)) + " more"
		}
		return out
	}
	return nil
}

// prefix makes bounds of what the first column of a key may be.
func (q *spread) prefix(sets []KeySet) (list []KeySet) {
	if q.anchor.table.keyspace.method.Name() != "range" {
		return nil
	}
	for _, s := range between(sets) {
		if len(s.Lists) > 0 {
			continue
		}
		for i := range s.Keys {
			s.Bounds = append(s.Bounds, KeyBounds{From: &s.Keys[i], To: &s.Keys[i], ToClosed: true})
		}
		s.Keys = nil
		list = append(list, s)
	}
	return list
}
