package sqlkey

import (
	"fmt"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"rangefinder/rib"
	"rangefinder/wire/pg"
)

// refuse makes the plan one that cannot be routed.
func (p *Plan) refuse(r *refusal) *Plan {
	p.Target, p.Keys, p.Shard, p.Reason, p.Listen = None, nil, "", r.reason, ListenNone
	message, detail := "the statement cannot be routed", upperFirst(r.reason)
	if r.table != nil {
		message += ": " + r.table.what()
		detail = r.table.rule() + ": " + r.reason
	}
	switch r.code {
	case pg.CodeNullValueNotAllowed:
		message = "the sharding key is NULL"
	case pg.CodeNumericValueOutOfRange, pg.CodeDatetimeFieldOverflow:
		message = "the sharding key is out of range"
	case pg.CodeInvalidTextRepresentation, pg.CodeInvalidParameterValue:
		message = "the sharding key is not of the key's type"
	}
	detail += "."
	if r.many != "" {
		detail += " " + upperFirst(r.many) + "."
	}
	p.Err = pg.NewError(r.code, message).WithDetail(detail).WithHint(r.hint)
	if r.table != nil && (r.code == pg.CodeFeatureNotSupported || r.code == pg.CodeNumericValueOutOfRange) { // where a hint sends it, PostgreSQL says what it is
		if p.about = r.table.keyspace; r.table.of != nil {
			p.about = r.table.of.keyspace
		}
	}
	return p
}

// what says why a table is not to be used as others are.
func (t *table) what() string {
	if t.of != nil {
		return t.String() + " depends on a sharded table"
	}
	if t.keyspace.whole {
		return "table " + t.String() + " is whole on several shards"
	}
	return "table " + t.String() + " is sharded"
}

// rule says by what a table is sharded.
func (t *table) rule() string {
	if t.of != nil {
		return fmt.Sprintf("%s, which is sharded by keyspace %s", upperFirst(t.dependent.String()), t.of.keyspace.name)
	}
	if t.keyspace.whole {
		return fmt.Sprintf("Table %s of keyspace %s is whole on %s", t, t.keyspace.name, clip(strings.Join(t.keyspace.shards, ", ")))
	}
	columns := make([]string, len(t.columns))
	for i, c := range t.columns {
		columns[i] = quoteName(c) + " (" + t.keyspace.types[i].String() + ")"
	}
	return fmt.Sprintf("Table %s of keyspace %s is sharded by %s", t, t.keyspace.name, strings.Join(columns, ", "))
}

// keyed makes the keys of all references to sharded tables the plan's, or spreads the statement m over the shards, or refuses.
func (c *compiler) keyed(m proto.Message, p *Plan, a *analysis, s *survey) *Plan {
	first := a.firstTable()
	if len(a.plain) > 0 {
		return p.refuse(&refusal{issue: issue{pg.CodeFeatureNotSupported,
			"it names " + strings.Join(a.plain, ", ") + ", which no keyspace holds, together with a sharded table",
			"Ask for the tables one by one, or make a keyspace that holds both."}, table: first})
	}
	ks := first.keyspace
	if ks.method == nil {
		return p.refuse(&refusal{issue: issue{pg.CodeFeatureNotSupported, "its keyspace uses a sharding method that this version does not know", "Upgrade this node."}, table: first})
	}
	if n, ok := m.(*pgquery.Node); ok && a.rekeyed != nil {
		return c.rekey(n, p, a, s)
	}
	p.Keyspace, p.KeyspaceName, p.method = ks.id, ks.name, ks.method
	add := newKeys(p)
	for _, r := range a.rows {
		if r.table.keyspace != ks {
			return p.refuse(twoKeyspaces(first, r.table))
		}
		if r.issue != nil {
			return c.many(m, p, a, s, &refusal{issue: *r.issue, table: r.table})
		}
		add.key(r.keys)
	}
	if len(p.Keys) > 1 && len(a.keyed) == 0 && c.hint == nil && c.env.HintShard == "" && !c.env.HintKey {
		together := *p
		together.byKeys()
		if together.Apart = c.sharing; c.sharing {
			return &together
		}
		return c.split(m, p, &together, a, s)
	}
	for _, r := range a.keyed {
		if r.table.keyspace != ks {
			return p.refuse(twoKeyspaces(first, r.table))
		}
		for i, v := range r.keys {
			if v == nil {
				return c.many(m, p, a, s, r.noKey(i))
			}
		}
		add.key(r.keys)
	}
	if q := c.parted(m, p, a, s); q != nil {
		return q
	}
	if q := c.computed(m, p, a, s); q != nil {
		return q
	}
	p.byKeys()
	return p
}

// byKeys makes the plan one that runs where its keys are.
func (p *Plan) byKeys() {
	p.Target = Keyed
	texts := make([]string, 0, min(len(p.Keys), 5))
	for i, k := range p.Keys {
		if i == 4 && len(p.Keys) > 5 {
			texts = append(texts, fmt.Sprintf("%d more", len(p.Keys)-i))
			break
		}
		texts = append(texts, k.Text)
	}
	p.Reason = "keyspace " + p.KeyspaceName + " by " + strings.Join(texts, "; ")
}

func (a *analysis) firstTable() *table {
	if len(a.rows) > 0 {
		return a.rows[0].table
	}
	return a.keyed[0].table
}

func twoKeyspaces(a, b *table) *refusal {
	return &refusal{issue: issue{pg.CodeFeatureNotSupported, fmt.Sprintf("it names tables of two keyspaces, %s and %s", a.keyspace.name, b.keyspace.name),
		"Ask for the tables one by one, or make one keyspace that holds both."}, table: a}
}

// noKey says why a reference has no value for key column i, and what to add.
func (r *ref) noKey(i int) *refusal {
	name := quoteName(r.table.columns[i])
	n := &refusal{issue: issue{pg.CodeFeatureNotSupported, "no condition says which " + name + " is meant", ""}, table: r.table}
	missing := r.missing()
	switch {
	case r.renames:
		n.reason = "the alias " + quoteName(r.alias) + " renames its columns, so its key cannot be told"
		n.hint = "Leave out the alias's list of columns."
		return n
	case r.issue != nil:
		n.issue = *r.issue
	case len(missing) < len(r.table.columns):
		n.reason = "the key has several columns, and no condition says which " + strings.Join(missing, " and which ") + " is meant"
	case r.alias != r.table.name:
		n.reason = "no condition says which " + quoteName(r.alias) + "." + name + " is meant"
	}
	switch {
	case n.hint != "":
	case n.code == pg.CodeFeatureNotSupported:
		terms := make([]string, len(missing))
		for j, column := range missing {
			terms[j] = quoteName(r.alias) + "." + column + " = ..."
		}
		n.hint = "Add " + strings.Join(terms, " AND ") + " to WHERE, with a constant or a parameter."
	default:
		n.hint = "Compare " + name + " with a value of type " + r.table.keyspace.types[i].String() + "."
	}
	return n
}

// missing are the key columns of which no value is known.
func (r *ref) missing() (names []string) {
	for i, c := range r.table.columns {
		if r.keys[i] == nil {
			names = append(names, quoteName(c))
		}
	}
	return names
}

// keys collects a plan's keys, each once.
type keys struct {
	plan *Plan
	seen map[string]bool
}

func newKeys(p *Plan) *keys { return &keys{p, make(map[string]bool)} }

// key adds the key that has the columns' values.
func (k *keys) key(columns []*binding) {
	id := ""
	for _, c := range columns {
		id += c.identity() + ";"
	}
	if !k.seen[id] {
		k.seen[id] = true
		k.plan.Keys = append(k.plan.Keys, composed(columns, k.plan.method))
	}
}

// composed is the key that has the columns' values.
func composed(columns []*binding, m rib.Method) KeyRef {
	ref := columns[0].KeyRef
	if len(columns) == 1 {
		return ref
	}
	ref = KeyRef{Type: ref.Type}
	var texts []string
	constant := true
	for _, c := range columns {
		part := c.KeyRef
		texts = append(texts, part.Text)
		constant = constant && part.Literal != nil
		ref.Literal = append(ref.Literal, part.Literal...)
		ref.nonASCII = ref.nonASCII || part.nonASCII
		ref.Parts = append(ref.Parts, part)
	}
	ref.Text = strings.Join(texts, ", ")
	if constant {
		ref.Parts, ref.Literal = nil, m.Join(ref.Literal, 0)
	} else {
		ref.Literal = nil
	}
	return ref
}

// identity is the same for keys that must be equal.
func (r *KeyRef) identity() string {
	if r.origin != nil {
		return fmt.Sprintf("#%d %d", r.origin.place, len(r.origin.steps))
	}
	if r.made != nil {
		return "(" + r.formula()
	}
	if r.Param > 0 {
		return fmt.Sprintf("$%d %d", r.Param, r.cast)
	}
	return "=" + string(r.Literal)
}
