package sqlkey

import (
	"reflect"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// constant is what an item is, as evaluate would have it.
func (f *fold) constant(it *foldItem, p *path) (c constant, problem *issue) {
	switch {
	case it.param > 0:
		return constant{param: it.param}, nil
	case it.word == "null":
		return constant{null: true}, nil
	case it.word != "":
		return c, issuef("a boolean is no key")
	case it.at.class == classNumeric:
		return c, issuef("%s is of type numeric", clip(f.sql[it.at.start:it.at.end]))
	case it.at.class == classString:
		c.str = f.sql[it.at.start+1 : it.at.end-1]
		if it.at.doubled {
			c.str = string(it.at.appendString(nil, f.sql))
		}
	default:
		c = constant{family: integers, number: it.at.number}
		if it.minus {
			c.number = -c.number
		}
	}
	if it.cast == "" {
		return c, nil
	}
	// Only what the parser does not give another name: it makes pg_catalog.int8 of bigint.
	if t := keyTypeOf(it.cast); t != nil && p.builtinsFirst && isOneOf(it.cast, "int8", "int4", "int2", "text", "uuid", "date", "timestamptz", "bytea") {
		return c.castTo(t)
	}
	f.doubt = true
	return c, errNotConstant
}

// each calls do for the items of a list that is none of rows.
func (f *fold) each(l *foldedList, p *path, do func(constant, *issue)) {
	for i := l.start; i < l.end; {
		it, _ := f.item(i)
		do(f.constant(&it, p))
		if i = endOfSpace(f.sql, it.end); i < l.end {
			i = endOfSpace(f.sql, i+1) // the comma
		}
	}
}

// eachRow calls do for the rows of a list: the items, which hold until it returns, and where the row stands in the text.
func (f *fold) eachRow(l *foldedList, do func(items []foldItem, start, end int)) {
	items, end := make([]foldItem, 0, l.width), 0
	for i := l.start; i < l.end; {
		items, end = f.row(i, items[:0])
		do(items, i, end)
		if i = endOfSpace(f.sql, end); i < l.end {
			i = endOfSpace(f.sql, i+1)
		}
	}
}

// of is the list that an expression stands for; nil: it stands for none.
func (f *fold) of(n *pgquery.Node) *foldedList {
	if f == nil {
		return nil
	}
	number, ok := strings.CutPrefix(n.GetAConst().GetSval().GetSval(), foldMark)
	if !ok {
		return nil
	}
	for i := range f.lists {
		if number == itoa(i+1) {
			return &f.lists[i]
		}
	}
	return nil
}

// rowsOf are the rows that a row of VALUES stands for; nil: it stands for itself.
func (f *fold) rowsOf(row *pgquery.Node) *foldedList {
	items := row.GetList().GetItems()
	if len(items) == 0 {
		return nil
	}
	if l := f.of(items[0]); l != nil && l.width == len(items) {
		return l
	}
	return nil
}

// size is how many items a list of the parse tree has with what was taken out of it.
func (f *fold) size(items []*pgquery.Node) int {
	n := len(items)
	if n == 2 {
		if l := f.of(items[1]); l != nil {
			n += l.count - 1
		}
	}
	return n
}

// parse is the parse tree of a text whose long lists are taken out; nil if that does not tell it.
func (f *fold) parse() (*pgquery.ParseResult, error) {
	if f == nil {
		return nil, nil
	}
	tree, err := pgquery.Parse(f.text)
	if err != nil || !f.placed(tree) {
		return nil, nil
	}
	return tree, nil
}

// placed tells whether all marks stand in a parse tree where they mean what they are to mean.
func (f *fold) placed(tree *pgquery.ParseResult) bool {
	if f.doubt || len(tree.GetStmts()) != 1 || !onlyQueries(tree) {
		return false
	}
	found, right := 0, 0
	list := func(items []*pgquery.Node) {
		if len(items) == 2 {
			if l := f.of(items[1]); l != nil && l.width == 0 {
				right++
			}
		}
	}
	walk(tree, func(n any) bool {
		switch n := n.(type) {
		case *pgquery.A_Const:
			if strings.HasPrefix(n.GetSval().GetSval(), foldMark) {
				found++
			}
		case *pgquery.A_Expr:
			if n.GetKind() == pgquery.A_Expr_Kind_AEXPR_IN {
				list(n.GetRexpr().GetList().GetItems())
			}
		case *pgquery.A_ArrayExpr:
			list(n.GetElements())
		case *pgquery.InsertStmt:
			for i, row := range n.GetSelectStmt().GetSelectStmt().GetValuesLists() {
				if l := f.rowsOf(row); l != nil && i > 0 {
					right++
				}
			}
		}
		return true
	})
	return found == f.marks && right == found
}

// compileFolded makes the plan of a text whose long lists are taken out. It returns nil if that does not tell it.
func (p *Planner) compileFolded(db *database, env *Env, sql string) *Plan {
	c, tree := p.readFolded(db, env, sql)
	if c == nil {
		return nil
	}
	plan := c.plan(tree)
	if !c.fold.restore(plan) {
		return nil
	}
	plan.keepsLeave()
	return plan
}

// readFolded is read of a text whose long lists are taken out. The results are nil if there are none, or in doubt.
func (p *Planner) readFolded(db *database, env *Env, sql string) (*compiler, *pgquery.ParseResult) {
	f := foldLists(sql)
	if f == nil || unreadable(env, sql) != nil {
		return nil, nil
	}
	c, tree, early := p.read(db, env, f.text)
	if early != nil || !f.placed(tree) {
		return nil, nil
	}
	c.fold, c.path.tree = f, nil
	return c, tree
}

// restore puts the lists back into the texts of a plan. It returns false if the plan is not to be used.
func (f *fold) restore(p *Plan) bool {
	if f.doubt {
		return false
	}
	if fan := p.Fan; fan != nil {
		texts := []*string{&fan.SQL, &fan.Final, &fan.Unasked}
		if fan.Once != nil {
			texts = append(texts, &fan.Once.SQL)
		}
		if fan.Rekey != nil {
			texts = append(texts, &fan.Rekey.SQL, &fan.Rekey.Returning)
		}
		if fan.Deal != nil {
			texts = append(texts, &fan.Deal.query, &fan.Deal.Insert)
		}
		if s := fan.Split; s != nil {
			for i := range s.head {
				texts = append(texts, &s.head[i].text)
			}
			for i := range s.tail {
				texts = append(texts, &s.tail[i].text)
			}
		}
		final := fan.Final
		for _, text := range texts {
			*text = f.unfold(*text)
		}
		if (fan.Final != final || fan.Deal != nil) && strings.Contains(f.sql, "{") { // which might be taken for a mark of theirs
			return false
		}
	}
	return !marked(reflect.ValueOf(p))
}

// unfold puts the lists back into a text that was made of the parse tree.
func (f *fold) unfold(text string) string {
	if f == nil || !strings.Contains(text, foldMark) {
		return text
	}
	list := make([]string, 0, 4*len(f.lists))
	for i := range f.lists {
		l, mark := &f.lists[i], "'"+foldMark+itoa(i+1)+"'"
		if l.width > 0 {
			mark = "(" + mark + strings.Repeat(", NULL", l.width-1) + ")"
		}
		list = append(list, mark, f.sql[l.start:l.end])
	}
	return strings.NewReplacer(list...).Replace(text)
}

// marked tells whether a mark is left in what a plan says.
func marked(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.String:
		return strings.Contains(v.String(), foldMark)
	case reflect.Pointer:
		return !v.IsNil() && marked(v.Elem())
	case reflect.Slice:
		if v.Type() == reflect.TypeFor[[]KeyRef]() { // which hold no list
			return false
		}
		for i := range v.Len() {
			if marked(v.Index(i)) {
				return true
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && marked(v.Field(i)) {
				return true
			}
		}
	}
	return false
}

// foldedRows finds the keys of rows that are taken out of an INSERT. at are the places of the key's columns. What cannot be a key the whole text is parsed for,
// for its own message.
func (a *analysis) foldedRows(t *table, at []int, l *foldedList) {
	rows := make([]row, 0, l.count)
	keys := make([]*binding, 0, l.count*len(at))
	bindings := make([]binding, 0, l.count*len(at))
	a.fold.eachRow(l, func(items []foldItem, _, _ int) {
		if a.fold.doubt {
			return
		}
		first := len(keys)
		for i, j := range at {
			if j >= len(items) {
				a.fold.doubt = true
				return
			}
			v, problem := a.fold.constant(&items[j], a.path)
			var key KeyRef
			if problem == nil {
				key, problem = v.key(t.keyspace.types[i], t.keyspace.method)
			}
			if problem != nil {
				a.fold.doubt = true
				return
			}
			key.column, key.Text = t.columns[i], quoteName(t.columns[i])+" = "+v.String()
			bindings = append(bindings, binding{key})
			keys = append(keys, &bindings[len(bindings)-1])
		}
		rows = append(rows, row{table: t, keys: keys[first:len(keys):len(keys)]})
	})
	a.rows = append(a.rows, rows...)
}

// pieces are the rows of a list as a Split has them.
func (f *fold) pieces(l *foldedList) [][]piece {
	list := make([][]piece, 0, l.count)
	room := make([]piece, 0, l.count)
	f.eachRow(l, func(items []foldItem, start, end int) {
		first := len(room)
		for _, it := range items {
			if it.param > 0 {
				room = append(room, piece{f.sql[start:it.at.start], it.param})
				start = it.at.end
			}
		}
		room = append(room, piece{text: f.sql[start:end]})
		list = append(list, room[first:len(room):len(room)])
	})
	return list
}
