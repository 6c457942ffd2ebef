package sqloracle

import (
	"fmt"
	"slices"
	"strings"
)

// write makes an INSERT, UPDATE or DELETE, and names the table that it changes.
func write(c *choices) (*statement, string) {
	g := newGenerator(c)
	sql, table := g.write()
	return g.statement(sql, order{}), table
}

func (g *generator) write() (sql, table string) {
	all := ofGroup(g.group())
	t := all[g.n(len(all))]
	switch g.weigh(45, 35, 20) {
	case 0:
		sql = g.insert(t)
	case 1:
		sql = g.updates(t)
	case 2:
		sql = g.deletes(t)
	}
	return sql, t.name
}

// returning is the clause, in some cases.
func (g *generator) returning(s *source) string {
	if !g.chance(35) {
		return ""
	}
	if g.chance(30) {
		return " RETURNING " + s.alias + ".*" // of which of the other table's rows it is that a row has met, nothing is said
	}
	var items []item
	for range 1 + g.n(3) {
		items = append(items, g.expression([]*source{s}, ""))
	}
	text, _ := list(items, g.chance(50))
	return " RETURNING " + text
}

func (g *generator) insert(t *table) string {
	if t.name == "order_lines" && g.chance(15) {
		return "INSERT INTO order_lines (customer_id, order_id, line, sku) SELECT customer_id, id, 9, item FROM orders t" + where(g.keyed("customer_id", t))
	}
	var columns []column
	for _, c := range t.columns {
		if slices.Contains(t.unique, c.name) || g.chance(60) {
			columns = append(columns, c)
		}
	}
	key := ""
	same := g.chance(40)
	var rows []string
	for range 1 + g.weigh(65, 20, 15) {
		var values []string
		for _, c := range columns {
			switch {
			case c.name == t.key:
				if key == "" || !same {
					key = oneOf(g.choices, t.keys...)
				}
				values = append(values, g.constant(c.typ, key))
			case slices.Contains(t.unique, c.name) && c.typ == "int":
				values = append(values, g.constant(c.typ, fmt.Sprint(1+g.n(30))))
			case slices.Contains(t.unique, c.name) && c.typ == "text":
				values = append(values, g.constant(c.typ, fmt.Sprintf("k%d", 1+g.n(20))))
			case g.chance(15):
				values = append(values, "NULL")
			default:
				values = append(values, g.constant(c.typ, g.value(c.typ)))
			}
		}
		rows = append(rows, "("+strings.Join(values, ", ")+")")
	}
	var names []string
	for _, c := range columns {
		names = append(names, c.name)
	}
	sql := fmt.Sprintf("INSERT INTO %s AS t (%s) VALUES %s", t.name, strings.Join(names, ", "), strings.Join(rows, ", "))
	switch g.weigh(65, 15, 20) {
	case 1:
		sql += oneOf(g.choices, " ON CONFLICT DO NOTHING", fmt.Sprintf(" ON CONFLICT (%s) DO NOTHING", strings.Join(t.unique, ", ")))
	case 2:
		if set := slices.DeleteFunc(slices.Clone(columns), func(c column) bool { return slices.Contains(t.unique, c.name) }); len(set) > 0 {
			c := set[g.n(len(set))]
			sql += fmt.Sprintf(" ON CONFLICT (%s) DO UPDATE SET %s = EXCLUDED.%[2]s", strings.Join(t.unique, ", "), c.name)
			if g.chance(30) {
				sql += fmt.Sprintf(" WHERE t.%s IS NOT NULL", c.name)
			}
		}
	}
	return sql + g.returning(&source{alias: "t", table: t, columns: t.columns})
}

// set assigns to columns that are not the key.
func (g *generator) set(t *table, s *source) string {
	free := slices.DeleteFunc(slices.Clone(t.columns), func(c column) bool { return slices.Contains(t.unique, c.name) })
	var texts, done []string
	for range 1 + g.n(2) {
		c := free[g.n(len(free))]
		if slices.Contains(done, c.name) {
			continue
		}
		done = append(done, c.name)
		value := g.expression([]*source{s}, c.typ).text
		if g.chance(40) {
			value = g.constant(c.typ, g.value(c.typ))
		}
		texts = append(texts, c.name+" = "+value)
	}
	return strings.Join(texts, ", ")
}

func (g *generator) updates(t *table) string {
	s := &source{alias: "t", table: t, columns: t.columns}
	all := ofGroup(t.group)
	if t.key != "" && len(all) > 1 && g.chance(15) {
		o := all[g.n(len(all))]
		other := &source{alias: "o", table: o, columns: o.columns}
		return fmt.Sprintf("UPDATE %s t SET %s FROM %s o", t.name, g.set(t, s), o.name) +
			where(s.named(t.key)+" = "+other.named(o.key), g.keyed(s.named(t.key), t), g.condition([]*source{other}, 0)) + g.returning(s)
	}
	set := g.set(t, s)
	if t.key != "" && g.chance(8) {
		key := g.constant(t.columns[0].typ, oneOf(g.choices, t.keys...))
		if t.columns[0].typ != "text" && g.chance(60) { // each row gets another
			key = fmt.Sprintf("%s + %d", s.named(t.key), 100+g.n(30))
		}
		set = strings.TrimSuffix(t.key+" = "+key+", "+oneOf(g.choices, set, ""), ", ")
	}
	return fmt.Sprintf("UPDATE %s t SET %s", t.name, set) + where(g.keyed(s.named(t.key), t), oneOf(g.choices, "", g.condition([]*source{s}, 1))) + g.returning(s)
}

func (g *generator) deletes(t *table) string {
	s := &source{alias: "t", table: t, columns: t.columns}
	all := ofGroup(t.group)
	if t.key != "" && len(all) > 1 && g.chance(15) {
		o := all[g.n(len(all))]
		other := &source{alias: "o", table: o, columns: o.columns}
		return fmt.Sprintf("DELETE FROM %s t USING %s o", t.name, o.name) +
			where(s.named(t.key)+" = "+other.named(o.key), g.keyed(s.named(t.key), t), g.condition([]*source{other}, 0)) + g.returning(s)
	}
	return fmt.Sprintf("DELETE FROM %s t", t.name) + where(g.keyed(s.named(t.key), t), g.condition([]*source{s}, 1)) + g.returning(s)
}
