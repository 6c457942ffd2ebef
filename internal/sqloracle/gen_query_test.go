package sqloracle

import (
	"fmt"
	"slices"
	"strings"
)

// item is one column of a select list.
type item struct {
	text string
	typ  string
}

// query makes a whole SELECT with all that may stand around it.
func (g *generator) query() (string, order) {
	switch g.weigh(80, 7, 8, 3, 2) {
	case 1:
		return g.union()
	case 2:
		return g.with()
	case 3:
		return "SELECT " + g.typed("int", g.value("int")) + " + 1 AS a, upper(" + g.typed("text", g.value("text")) + ") AS b", order{}
	case 4:
		group := g.group()
		sql, _, _ := g.selects(group, nil, false, 1)
		return fmt.Sprintf("SELECT count(*) FROM (%s) q", sql), order{}
	}
	sql, _, o := g.selects(g.group(), nil, true, 1)
	return sql, o
}

// union puts two queries or three together by set operations.
func (g *generator) union() (string, order) {
	group := g.group()
	types := make([]string, 1+g.n(3))
	for i := range types {
		types[i] = oneOf(g.choices, "int", "text", "bigint", "numeric", "bool", "timestamptz")
	}
	a, _, _ := g.selects(group, types, false, 0)
	b, _, _ := g.selects(group, types, false, 0)
	op := func() string {
		return oneOf(g.choices, " UNION ALL ", " UNION ALL ", " UNION ", " EXCEPT ", " INTERSECT ")
	}
	sql := a + op() + b
	if g.chance(30) {
		c, _, _ := g.selects(group, types, false, 0)
		switch g.n(3) {
		case 0:
			sql = "(" + sql + ")" + op() + c
		case 1:
			sql = c + op() + "(" + sql + ")"
		default:
			sql += op() + c
		}
	}
	if g.chance(50) {
		by, keys := g.byColumns(len(types))
		o := order{byKeys, keys}
		if sql += by; g.chance(30) {
			sql += fmt.Sprintf(" LIMIT %d", 1+g.n(8))
			o.kind = byKeysCut
		}
		return sql, o
	}
	return sql, order{}
}

// with names a query and asks it.
func (g *generator) with() (string, order) {
	sql, columns, _ := g.selects(g.group(), nil, false, 1)
	w := &source{alias: "w", columns: columns}
	head := "WITH w AS (" + sql + ") "
	if g.chance(40) {
		return head + "SELECT count(*) AS n, " + g.aggregate([]*source{w}).text + " FROM w", order{}
	}
	tail := "SELECT * FROM w"
	if g.chance(40) {
		tail += where(g.condition([]*source{w}, 0))
	}
	if g.chance(40) {
		by, keys := g.byColumns(len(columns))
		return head + tail + by, order{byKeys, keys}
	}
	return head + tail, order{}
}

// selects makes a SELECT over tables of a group. types, if given, are those of its columns. Only if outermost may it have names of its
// columns that are no good in a subquery, and an order.
func (g *generator) selects(group string, types []string, outermost bool, depth int) (string, []column, order) {
	from, sources, key := g.from(group)
	conditions := []string{key}
	for range g.weigh(45, 35, 20) {
		conditions = append(conditions, g.condition(sources, depth))
	}
	tail := from + where(conditions...)
	if types == nil {
		switch g.weigh(55, 18, 22, 5) {
		case 1:
			return g.totals(sources, tail)
		case 2:
			return g.groups(sources, tail, outermost)
		case 3:
			return g.windows(sources, tail)
		}
	}
	return g.plain(sources, tail, types, outermost)
}

// from makes FROM, and the condition on the key.
func (g *generator) from(group string) (text string, sources []*source, key string) {
	all := ofGroup(group)
	first := all[g.n(len(all))]
	s := &source{alias: g.fresh("t"), table: first, columns: first.columns}
	sources = []*source{s}
	key = g.keyed(s.named(first.key), first)
	text = " FROM " + first.name + " " + s.alias
	if first.key == "" || len(all) == 1 {
		return text, sources, key
	}
	for range g.weigh(60, 30, 10) {
		t := all[g.n(len(all))]
		n := &source{alias: g.fresh("t"), table: t, columns: t.columns}
		kind := oneOf(g.choices, "JOIN", "JOIN", "LEFT JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN")
		on := fmt.Sprintf("%s = %s", s.named(first.key), n.named(t.key))
		if strings.HasPrefix(t.name, "order") && strings.HasPrefix(first.name, "order") && g.chance(60) {
			number := map[string]string{"orders": "id", "order_lines": "order_id"}
			on += fmt.Sprintf(" AND %s = %s", s.named(number[first.name]), n.named(number[t.name]))
		}
		if g.chance(2) && kind == "JOIN" {
			on = fmt.Sprintf("%s = %s", s.named(first.columns[1].name), n.named(t.columns[1].name))
			if first.columns[1].typ != t.columns[1].typ {
				on = "true"
			}
		}
		text += fmt.Sprintf(" %s %s %s ON %s", kind, t.name, n.alias, on)
		sources = append(sources, n)
	}
	if first.group == "customers" && g.chance(12) {
		join, n := g.reference(sources)
		text, sources = text+join, append(sources, n)
	}
	return text, sources, key
}

// reference joins a reference table.
func (g *generator) reference(sources []*source) (string, *source) {
	t := tables[slices.IndexFunc(tables, func(t *table) bool { return t.name == "items" })]
	named, _, ok := g.column(sources, "text")
	if tier, _, is := g.column(sources, "tier"); is && (!ok || g.chance(50)) {
		t, named = tables[slices.IndexFunc(tables, func(t *table) bool { return t.name == "tiers" })], tier
	}
	n := &source{alias: g.fresh("t"), table: t, columns: t.columns}
	return fmt.Sprintf(" %s %s %s ON %s = %s", oneOf(g.choices, "JOIN", "JOIN", "LEFT JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"), t.name, n.alias, named, n.named(t.unique[0])), n
}

// column chooses a column of the sources, of a type if that is not "".
func (g *generator) column(sources []*source, typ string) (named string, c column, ok bool) {
	var all []column
	var names []string
	for _, s := range sources {
		for _, c := range s.columns {
			if typ == "" || c.typ == typ {
				all, names = append(all, c), append(names, s.named(c.name))
			}
		}
	}
	if len(all) == 0 {
		return "", column{}, false
	}
	i := g.n(len(all))
	return names[i], all[i], true
}

// expression is one of a type; "": of any.
func (g *generator) expression(sources []*source, typ string) item {
	name, c, ok := g.column(sources, typ)
	if !ok {
		return item{g.typed(typ, g.value(typ)), typ}
	}
	if !g.chance(30) || len(values[c.typ]) == 0 {
		return item{name, c.typ}
	}
	switch c.typ {
	case "int", "bigint", "numeric", "float8":
		switch g.n(4) {
		case 0:
			return item{fmt.Sprintf("%s %s %s", name, oneOf(g.choices, "+", "-", "*"), literal(c.typ, oneOf(g.choices, "1", "2", "3"))), c.typ}
		case 1:
			return item{"abs(" + name + ")", c.typ}
		case 2:
			return item{fmt.Sprintf("CASE WHEN %s > %s THEN %s ELSE 0 END", name, g.constant(c.typ, g.value(c.typ)), name), c.typ}
		}
	case "text":
		switch g.n(4) {
		case 0:
			return item{"upper(" + name + ")", "text"}
		case 1:
			return item{name + " || " + quote("!"), "text"}
		case 2:
			if typ == "" {
				return item{"length(" + name + ")", "int"}
			}
		}
	case "timestamptz":
		if typ == "" {
			return item{"(" + name + " AT TIME ZONE 'UTC')::date", "date"}
		}
	case "jsonb":
		if typ == "" {
			return item{"(" + name + " ->> 'n')", "text"}
		}
	}
	if c.typ == "text[]" || c.typ == "int[]" {
		return item{name, c.typ}
	}
	return item{fmt.Sprintf("coalesce(%s, %s)", name, g.constant(c.typ, g.value(c.typ))), c.typ}
}

// list writes a select list, its columns named if they have to be.
func list(items []item, named bool) (string, []column) {
	var texts []string
	var columns []column
	for i, it := range items {
		name := fmt.Sprintf("c%d", i+1)
		if named {
			it.text += " AS " + name
		}
		texts, columns = append(texts, it.text), append(columns, column{name, it.typ})
	}
	return strings.Join(texts, ", "), columns
}

// direction is how a column is ordered.
func (g *generator) direction() string {
	return oneOf(g.choices, "", "", " DESC", " NULLS FIRST", " DESC NULLS LAST")
}

// byColumns orders by some columns of the result.
func (g *generator) byColumns(n int) (string, []int) {
	var texts []string
	var keys []int
	for range 1 + g.n(min(n, 3)) {
		k := g.n(n)
		if slices.Contains(keys, k) {
			continue
		}
		keys = append(keys, k)
		texts = append(texts, fmt.Sprintf("%d%s", k+1, g.direction()))
	}
	return " ORDER BY " + strings.Join(texts, ", "), keys
}

// limit cuts the result, and says what is left of its order.
func (g *generator) limit(o order) (string, order) {
	if !g.chance(35) {
		return "", o
	}
	text := " LIMIT " + g.constant("bigint", oneOf(g.choices, "1", "2", "3", "5", "10", "0"))
	if g.chance(35) {
		text += " OFFSET " + g.constant("bigint", oneOf(g.choices, "1", "2", "5", "0"))
	}
	switch o.kind {
	case bag:
		o.kind = counted
	case byKeys:
		o.kind = byKeysCut
	}
	return text, o
}

// plain makes a SELECT without aggregates.
func (g *generator) plain(sources []*source, tail string, types []string, outermost bool) (string, []column, order) {
	var items []item
	if types == nil && outermost && len(sources) == 1 && g.chance(12) {
		for _, c := range sources[0].columns {
			items = append(items, item{sources[0].named(c.name), c.typ})
		}
		sql, o := g.ordered("SELECT *"+tail, sources, len(items), false)
		return sql, sources[0].columns, o
	}
	for _, typ := range types {
		items = append(items, g.expression(sources, typ))
	}
	if types == nil {
		for range 1 + g.n(4) {
			items = append(items, g.expression(sources, ""))
		}
	}
	distinct := types == nil && g.chance(12)
	word := "SELECT "
	if distinct {
		word += "DISTINCT "
	}
	text, columns := list(items, !outermost || g.chance(40))
	if !outermost {
		return word + text + tail, columns, order{}
	}
	sql, o := g.ordered(word+text+tail, sources, len(items), distinct)
	return sql, columns, o
}

// ordered adds ORDER BY, LIMIT, and FOR UPDATE.
func (g *generator) ordered(sql string, sources []*source, n int, distinct bool) (string, order) {
	o := order{}
	switch g.weigh(40, 35, 25) {
	case 1:
		by, keys := g.byColumns(n)
		sql, o = sql+by, order{byKeys, keys}
	case 2:
		if distinct {
			break
		}
		var texts []string
		if g.chance(50) {
			texts = append(texts, g.expression(sources, "").text+g.direction())
		}
		// A constant in ORDER BY is the number of a column, and a parameter no order at all.
		texts = slices.DeleteFunc(texts, func(s string) bool { return strings.HasPrefix(s, "$") || strings.HasPrefix(s, "'") })
		for _, s := range sources {
			for _, u := range s.table.unique {
				texts = append(texts, s.named(u)+g.direction())
			}
		}
		sql, o = sql+" ORDER BY "+strings.Join(texts, ", "), order{kind: exact}
	}
	cut, o := g.limit(o)
	sql += cut
	if !distinct && len(sources) == 1 && g.chance(4) {
		sql += oneOf(g.choices, " FOR UPDATE", " FOR SHARE", " FOR NO KEY UPDATE")
	}
	return sql, o
}

// aggregate is one over the sources.
func (g *generator) aggregate(sources []*source) item {
	if g.chance(25) {
		return item{"count(*)", "bigint"}
	}
	it := g.expression(sources, "")
	var out item
	switch it.typ {
	case "int", "bigint", "numeric", "float8":
		sum := map[string]string{"int": "bigint", "bigint": "numeric", "numeric": "numeric", "float8": "float8"}[it.typ]
		avg := "numeric"
		if it.typ == "float8" {
			avg = "float8"
		}
		out = oneOf(g.choices, item{"sum(" + it.text + ")", sum}, item{"avg(" + it.text + ")", avg}, item{"min(" + it.text + ")", it.typ}, item{"max(" + it.text + ")", it.typ},
			item{"count(DISTINCT " + it.text + ")", "bigint"}, item{"stddev(" + it.text + ")", avg}, item{"var_pop(" + it.text + ")", avg}, item{"sum(DISTINCT " + it.text + ")", sum},
			item{fmt.Sprintf("array_agg(%[1]s ORDER BY %[1]s)", it.text), "other"})
		if it.typ == "float8" && strings.HasPrefix(out.text, "array_agg") {
			out = item{"count(" + it.text + ")", "bigint"}
		}
	case "bool":
		out = oneOf(g.choices, item{"bool_and(" + it.text + ")", "bool"}, item{"bool_or(" + it.text + ")", "bool"}, item{"count(" + it.text + ")", "bigint"}, item{"every(" + it.text + ")", "bool"})
	case "text":
		out = oneOf(g.choices, item{"max(" + it.text + ")", "text"}, item{"min(" + it.text + ")", "text"}, item{"count(DISTINCT " + it.text + ")", "bigint"},
			item{fmt.Sprintf("string_agg(%[1]s, ',' ORDER BY %[1]s)", it.text), "text"}, item{fmt.Sprintf("string_agg(DISTINCT %[1]s, ',' ORDER BY %[1]s DESC)", it.text), "text"})
		if strings.HasPrefix(it.text, "$") {
			out = item{"count(" + it.text + ")", "bigint"}
		}
	case "date", "timestamptz", "tier":
		out = oneOf(g.choices, item{"max(" + it.text + ")", it.typ}, item{"min(" + it.text + ")", it.typ}, item{"count(" + it.text + ")", "bigint"})
	default:
		out = item{"count(" + it.text + ")", "bigint"}
	}
	if g.chance(12) {
		out.text += " FILTER (WHERE " + g.condition(sources, 0) + ")"
	}
	return out
}

// totals makes a SELECT of aggregates alone.
func (g *generator) totals(sources []*source, tail string) (string, []column, order) {
	var items []item
	for range 1 + g.n(3) {
		items = append(items, g.aggregate(sources))
	}
	text, columns := list(items, true)
	sql := "SELECT " + text + tail
	if g.chance(8) {
		sql += fmt.Sprintf(" HAVING count(*) > %d", g.n(4))
	}
	return sql, scalars(columns), order{}
}

// scalars are the columns that a query around may use.
func scalars(columns []column) (out []column) {
	for _, c := range columns {
		if c.typ != "other" {
			out = append(out, c)
		}
	}
	if len(out) == 0 {
		return []column{{columns[0].name, "other"}}
	}
	return out
}

// groups makes a SELECT with GROUP BY.
func (g *generator) groups(sources []*source, tail string, outermost bool) (string, []column, order) {
	var items []item
	var by []string
	for i := range 1 + g.n(2) {
		name, c, _ := g.column(sources, "")
		items = append(items, item{name, c.typ})
		by = append(by, oneOf(g.choices, name, fmt.Sprint(i+1)))
	}
	for range 1 + g.n(3) {
		items = append(items, g.aggregate(sources))
	}
	text, columns := list(items, true)
	sql := "SELECT " + text + tail + " GROUP BY " + strings.Join(by, ", ")
	if g.chance(25) {
		sql += " HAVING " + oneOf(g.choices, "count(*) > 1", "count(*) < 3", g.aggregate(sources).text+" IS NOT NULL")
	}
	if !outermost {
		return sql, scalars(columns), order{}
	}
	o := order{}
	if g.chance(50) {
		by, keys := g.byColumns(len(items))
		sql, o = sql+by, order{byKeys, keys}
	}
	cut, o := g.limit(o)
	return sql + cut, columns, o
}

// windows makes a SELECT with window functions, most over the rows of a key.
func (g *generator) windows(sources []*source, tail string) (string, []column, order) {
	s := sources[0]
	over := ""
	if s.table.key != "" && g.chance(85) {
		over = "PARTITION BY " + s.named(s.table.key) + " "
	}
	var by []string
	for _, s := range sources {
		for _, u := range s.table.unique {
			by = append(by, s.named(u))
		}
	}
	name, c, _ := g.column(sources, "")
	items := []item{{name, c.typ}}
	switch g.n(3) {
	case 0:
		items = append(items, item{"row_number() OVER (" + over + "ORDER BY " + strings.Join(by, ", ") + ")", "bigint"})
	case 1:
		items = append(items, item{"count(*) OVER (" + over + ")", "bigint"})
	case 2:
		items = append(items, item{"rank() OVER (" + over + "ORDER BY " + name + g.direction() + ")", "bigint"})
	}
	text, columns := list(items, true)
	return "SELECT " + text + tail, columns, order{}
}
