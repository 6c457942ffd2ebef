package sqloracle

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// story is what is asked one after the other on one connection, which has no transaction open at its begin and at its end.
type story struct {
	statements []*statement
	writes     []string // the tables that it may change
	sets       bool     // it changes settings
}

func (s *story) add(st *statement) { s.statements = append(s.statements, st) }

// write adds a statement that writes.
func (s *story) write(c *choices) {
	st, table := write(c)
	s.add(st)
	if !slices.Contains(s.writes, table) {
		s.writes = append(s.writes, table)
	}
}

// control adds a statement about the transaction.
func (s *story) control(sql string) { s.add(&statement{sql: sql}) }

// controls tells whether a statement is about the transaction alone: it is not counted.
func (s *statement) controls() bool {
	word, _, _ := strings.Cut(s.sql, " ")
	return slices.Contains([]string{"BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "SET"}, word)
}

// generator makes one statement.
type generator struct {
	*choices
	how   protocol
	args  []arg
	alias int
}

// newStory makes a read, a write, or a transaction of some of both.
func newStory(c *choices) *story {
	s := &story{}
	switch c.weigh(58, 24, 10, 4, 2, 2) {
	case 0:
		s.add(read(c))
	case 1:
		for range 1 + c.n(2) {
			s.write(c)
			if c.chance(20) {
				s.add(read(c))
			}
		}
	case 2:
		s.transaction(c)
	case 3:
		s.set(c)
	case 4, 5:
		s.several(c)
	}
	return s
}

// set reads under other settings.
func (s *story) set(c *choices) {
	s.sets = true
	for range 1 + c.n(2) {
		s.control(oneOf(c, "SET TimeZone = 'Asia/Tokyo'", "SET DateStyle = 'German'", "SET DateStyle = 'SQL, DMY'", "SET extra_float_digits = 0", "SET IntervalStyle = 'iso_8601'", "SET TimeZone = 'America/New_York'"))
		s.add(read(c))
	}
}

// several makes statements that go together, in one text or in one pipeline.
func (s *story) several(c *choices) {
	all := &statement{how: oneOf(c, simple, pipeline)}
	var texts []string
	for range 2 + c.n(2) {
		g := newGenerator(c)
		g.how = oneOf(c, extended, binaries)
		if all.how == simple {
			g.how = simple
		}
		var part *statement
		if c.chance(40) {
			sql, t := g.write()
			part = g.statement(sql, order{})
			s.writes = append(s.writes, t)
		} else {
			sql, o := g.query()
			part = g.statement(sql, o)
		}
		all.parts, texts = append(all.parts, part), append(texts, part.sql)
	}
	if all.how == simple {
		all.sql = strings.Join(texts, "; ")
	}
	slices.Sort(s.writes)
	s.writes = slices.Compact(s.writes)
	s.add(all)
}

func (s *story) transaction(c *choices) {
	s.control("BEGIN")
	saved := 0
	for range 1 + c.n(5) {
		switch c.weigh(45, 35, 20) {
		case 0:
			s.write(c)
		case 1:
			s.add(read(c))
		case 2:
			switch {
			case saved == 0 || c.chance(40):
				saved++
				s.control(fmt.Sprintf("SAVEPOINT s%d", saved))
			case c.chance(50):
				s.control(fmt.Sprintf("ROLLBACK TO SAVEPOINT s%d", saved))
			default:
				s.control(fmt.Sprintf("RELEASE SAVEPOINT s%d", saved))
				saved--
			}
		}
	}
	s.control(oneOf(c, "COMMIT", "COMMIT", "ROLLBACK"))
}

func newGenerator(c *choices) *generator {
	return &generator{choices: c, how: oneOf(c, simple, extended, binaries, prepared)}
}

var placeholder = regexp.MustCompile(`\$[0-9]+`)

// statement makes it one, with the parameters that its text names, numbered anew.
func (g *generator) statement(sql string, o order) *statement {
	var args []arg
	number := map[string]string{}
	sql = placeholder.ReplaceAllStringFunc(sql, func(p string) string {
		if number[p] == "" {
			i, _ := strconv.Atoi(p[1:])
			args = append(args, g.args[i-1])
			number[p] = fmt.Sprintf("$%d", len(args))
		}
		return number[p]
	})
	return &statement{sql: sql, args: args, how: g.how, order: o}
}

func read(c *choices) *statement {
	g := newGenerator(c)
	sql, o := g.query()
	return g.statement(sql, o)
}

// constant is a value in the text or, in the extended protocol, mostly as a parameter.
func (g *generator) constant(typ, value string) string {
	if g.how != simple && g.chance(70) {
		return g.parameter(typ, value)
	}
	return literal(typ, value)
}

func (g *generator) parameter(typ, value string) string {
	g.args = append(g.args, arg{oid: oids[typ], text: value})
	return fmt.Sprintf("$%d", len(g.args))
}

// typed is a value whose type is told.
func (g *generator) typed(typ, value string) string {
	text := g.constant(typ, value)
	if strings.HasPrefix(text, "$") || strings.HasPrefix(text, "'") || typ != "int" && !strings.Contains(text, "::") {
		return text + "::" + typ
	}
	return text
}

func literal(typ, value string) string {
	switch typ {
	case "bigint", "int", "numeric", "bool":
		return value
	case "text":
		return quote(value)
	}
	return quote(value) + "::" + typ
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// value is some value of the type.
func (g *generator) value(typ string) string { return oneOf(g.choices, values[typ]...) }

// source is something in FROM.
type source struct {
	alias   string
	table   *table // nil: a subquery or a CTE
	columns []column
}

// named is a column as a statement names it.
func (s *source) named(name string) string { return s.alias + "." + name }

func (g *generator) fresh(prefix string) string {
	g.alias++
	return fmt.Sprintf("%s%d", prefix, g.alias)
}

// ofGroup are the tables that may be joined.
func ofGroup(group string) (out []*table) {
	for _, t := range tables {
		if t.group == group {
			out = append(out, t)
		}
	}
	return out
}

func (g *generator) group() string {
	return []string{"customers", "readings", "stock", "accounts", "notes", "items"}[g.weigh(62, 12, 9, 7, 6, 4)]
}

// keyed is a condition on the key of a table; "": none.
func (g *generator) keyed(named string, t *table) string {
	if t.key == "" {
		return ""
	}
	typ := t.columns[slices.IndexFunc(t.columns, func(c column) bool { return c.name == t.key })].typ
	value := func() string { return g.constant(typ, oneOf(g.choices, t.keys...)) }
	switch g.weigh(38, 44, 7, 3, 3, 3, 2) {
	case 0:
		return named + " = " + value()
	case 2:
		return fmt.Sprintf("%s IN (%s, %s%s)", named, value(), value(), oneOf(g.choices, "", ", "+value()))
	case 3:
		list := fmt.Sprintf("{%s,%s}", quoted(oneOf(g.choices, t.keys...)), quoted(oneOf(g.choices, t.keys...)))
		if typ == "int" || typ == "bigint" {
			list = fmt.Sprintf("{%s,%s}", oneOf(g.choices, t.keys...), oneOf(g.choices, t.keys...))
		}
		return fmt.Sprintf("%s = ANY (%s)", named, g.typed(typ+"[]", list))
	case 4:
		return fmt.Sprintf("(%s = %s OR %s = %s)", named, value(), named, value())
	case 5:
		return fmt.Sprintf("%s BETWEEN %s AND %s", named, value(), value())
	case 6:
		return fmt.Sprintf("%s %s %s", named, oneOf(g.choices, ">", "<", ">=", "<="), value())
	}
	return ""
}

// quoted is an element of an array's text.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// condition is one on columns of the sources. outer says whether subqueries may be in it.
func (g *generator) condition(sources []*source, depth int) string {
	s := sources[g.n(len(sources))]
	c := s.columns[g.n(len(s.columns))]
	name := s.named(c.name)
	if len(values[c.typ]) == 0 {
		return name + " IS NOT NULL"
	}
	value := func() string { return g.constant(c.typ, g.value(c.typ)) }
	switch g.weigh(40, 12, 8, 8, 6, 6, 6, 8) {
	case 1:
		return name + oneOf(g.choices, " IS NOT NULL", " IS NULL")
	case 2:
		return fmt.Sprintf("%s IN (%s, %s)", name, value(), value())
	case 3:
		return fmt.Sprintf("NOT (%s)", g.condition(sources, 0))
	case 4:
		return fmt.Sprintf("(%s OR %s)", g.condition(sources, 0), g.condition(sources, 0))
	case 5:
		if c.typ == "text" {
			return fmt.Sprintf("%s LIKE %s", name, g.constant("text", oneOf(g.choices, "%a%", "p%", "sku_", "%e")))
		}
	case 6:
		return fmt.Sprintf("%s BETWEEN %s AND %s", name, value(), value())
	case 7:
		if sub := g.subcondition(sources, depth); sub != "" {
			return sub
		}
	}
	if c.typ == "bool" && g.chance(50) {
		return name
	}
	return fmt.Sprintf("%s %s %s", name, oneOf(g.choices, "=", "<>", ">", "<", ">=", "<=", "IS DISTINCT FROM"), value())
}

// subcondition is one with a subquery on a table of the same key.
func (g *generator) subcondition(sources []*source, depth int) string {
	s := sources[g.n(len(sources))]
	if depth == 0 || s.table == nil || s.table.key == "" {
		return ""
	}
	all := ofGroup(s.table.group)
	t := all[g.n(len(all))]
	inner := &source{alias: g.fresh("x"), table: t, columns: t.columns}
	from := t.name + " " + inner.alias
	if g.chance(60) {
		return fmt.Sprintf("%sEXISTS (SELECT 1 FROM %s WHERE %s = %s AND %s)", oneOf(g.choices, "", "NOT "), from, inner.named(t.key), s.named(s.table.key), g.condition([]*source{inner}, 0))
	}
	return fmt.Sprintf("%s %sIN (SELECT %s FROM %s WHERE %s)", s.named(s.table.key), oneOf(g.choices, "", "NOT "), inner.named(t.key), from, g.condition([]*source{inner}, 0))
}

// where puts conditions together.
func where(conditions ...string) string {
	conditions = slices.DeleteFunc(conditions, func(c string) bool { return c == "" })
	if len(conditions) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(conditions, " AND ")
}
