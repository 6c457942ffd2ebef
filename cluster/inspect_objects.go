package cluster

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"rangefinder/rib"
)

// maxObjects bounds what is compared of one shard.
const maxObjects = 50_000

// object is what tables are made of, or stands on them: a type, a function, a view, a trigger, a sequence.
type object struct {
	kind, name string
	table      string // of the keyspace that it is bound to, as tableName has it; ""
}

func (o object) String() string { return o.kind + " " + o.name }

// objectsSQL describes what a database has beside tables: what all shards are to have alike, and of that which is bound to tables what is bound to
// those of the keyspace, $1 (schemas) and $2 (names). What belongs to an extension comes with it; what is rangefinder's is no client's. Long
// definitions are told by their sum.
const objectsSQL = `
WITH RECURSIVE keyed AS (
	SELECT c.oid, quote_ident(k.schema) || '.' || quote_ident(k.name) AS name, k.schema, k.name AS bare
	FROM unnest($1::text[], $2::text[]) AS k(schema, name) JOIN pg_namespace n ON n.nspname = k.schema::name JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = k.name::name
), reads(oid, root) AS (
	SELECT oid, oid FROM keyed
	UNION SELECT w.ev_class, r.root FROM reads r JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = r.oid AND d.classid = 'pg_rewrite'::regclass
	     JOIN pg_rewrite w ON w.oid = d.objid JOIN pg_class v ON v.oid = w.ev_class AND v.relkind IN ('v', 'm')
), others AS (
	SELECT n.oid, quote_ident(n.nspname) || '.' AS dot FROM pg_namespace n WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'rangefinder')
), extended AS (SELECT classid, objid FROM pg_depend WHERE deptype = 'e')
SELECT * FROM (
SELECT 'extension' AS kind, extname::text AS name, '' AS schema, '' AS bare, 'version ' || extversion AS declared FROM pg_extension
UNION ALL
SELECT 'type', o.dot || quote_ident(t.typname), '', '', 'labels ' || coalesce((SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid), 'none')
FROM pg_type t JOIN others o ON o.oid = t.typnamespace WHERE t.typtype = 'e' AND ('pg_type'::regclass, t.oid) NOT IN (SELECT classid, objid FROM extended)
UNION ALL
SELECT 'domain', o.dot || quote_ident(t.typname), '', '', format_type(t.typbasetype, t.typtypmod) || CASE WHEN t.typcollation <> b.typcollation THEN ' COLLATE ' || t.typcollation::regcollation ELSE '' END
	|| CASE WHEN t.typnotnull THEN ' NOT NULL' ELSE '' END || coalesce(' DEFAULT ' || t.typdefault, '')
	|| coalesce((SELECT ' ' || string_agg(pg_get_constraintdef(c.oid), ' ' ORDER BY c.conname) FROM pg_constraint c WHERE c.contypid = t.oid AND c.contype = 'c'), '')
FROM pg_type t JOIN others o ON o.oid = t.typnamespace JOIN pg_type b ON b.oid = t.typbasetype WHERE t.typtype = 'd' AND ('pg_type'::regclass, t.oid) NOT IN (SELECT classid, objid FROM extended)
UNION ALL
SELECT 'type', o.dot || quote_ident(t.typname), '', '',
	'(' || coalesce((SELECT string_agg(quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '') || ')'
FROM pg_type t JOIN others o ON o.oid = t.typnamespace JOIN pg_class c ON c.oid = t.typrelid AND c.relkind = 'c' WHERE ('pg_type'::regclass, t.oid) NOT IN (SELECT classid, objid FROM extended)
UNION ALL
SELECT 'type', o.dot || quote_ident(t.typname), '', '', 'ranges of ' || format_type(r.rngsubtype, NULL)
FROM pg_type t JOIN others o ON o.oid = t.typnamespace JOIN pg_range r ON r.rngtypid = t.oid WHERE ('pg_type'::regclass, t.oid) NOT IN (SELECT classid, objid FROM extended)
UNION ALL
SELECT CASE p.prokind WHEN 'a' THEN 'aggregate' WHEN 'p' THEN 'procedure' ELSE 'function' END, o.dot || quote_ident(p.proname) || '(' || pg_get_function_identity_arguments(p.oid) || ')', '', '',
	CASE WHEN p.prokind = 'a' THEN coalesce(format_type(p.prorettype, NULL), '') ELSE 'the definition of md5 ' || md5(pg_get_functiondef(p.oid)) END
FROM pg_proc p JOIN others o ON o.oid = p.pronamespace WHERE ('pg_proc'::regclass, p.oid) NOT IN (SELECT classid, objid FROM extended)
UNION ALL
SELECT CASE c.relkind WHEN 'm' THEN 'materialized view' ELSE 'view' END, quote_ident(n.nspname) || '.' || quote_ident(c.relname), min(k.schema), min(k.bare), 'the definition of md5 ' || md5(pg_get_viewdef(c.oid))
FROM reads r JOIN keyed k ON k.oid = r.root JOIN pg_class c ON c.oid = r.oid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('v', 'm') GROUP BY c.oid, c.relkind, n.nspname, c.relname
UNION ALL
SELECT 'trigger', quote_ident(t.tgname), k.schema, k.bare, pg_get_triggerdef(t.oid) || CASE t.tgenabled WHEN 'O' THEN '' WHEN 'D' THEN ' (disabled)' ELSE ' (enabled ' || t.tgenabled::text || ')' END
FROM pg_trigger t JOIN keyed k ON k.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND p.pronamespace IN (SELECT oid FROM others)
UNION ALL
SELECT 'policy', quote_ident(p.polname), k.schema, k.bare, p.polcmd::text || CASE WHEN p.polpermissive THEN '' ELSE ' restrictive' END || coalesce(' USING ' || pg_get_expr(p.polqual, p.polrelid), '') || coalesce(' WITH CHECK ' || pg_get_expr(p.polwithcheck, p.polrelid), '')
	|| ' TO ' || (SELECT string_agg(CASE x WHEN 0 THEN 'public' ELSE x::regrole::text END, ', ' ORDER BY 1) FROM unnest(p.polroles) x)
FROM pg_policy p JOIN keyed k ON k.oid = p.polrelid
UNION ALL
SELECT 'row security', 'of the table', k.schema, k.bare, c.relrowsecurity::text || c.relforcerowsecurity::text FROM keyed k JOIN pg_class c ON c.oid = k.oid
UNION ALL
SELECT 'sequence', quote_ident(n.nspname) || '.' || quote_ident(c.relname) || ' of column ' || a.attname, k.schema, k.bare,
	concat_ws(' ', format_type(s.seqtypid, NULL), s.seqincrement, s.seqmin, s.seqmax, s.seqcycle, s.seqstart)
FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
     JOIN keyed k ON k.oid = d.refobjid JOIN pg_attribute a ON a.attrelid = k.oid AND a.attnum = d.refobjsubid
) AS x ORDER BY 1, 2, 3, 4 LIMIT $3`

// objects reads what one shard has.
func (in *inspector) objects(ctx context.Context, conn *pgx.Conn) (map[object]string, error) {
	var schemas, names []string
	for i := range in.ks.Tables {
		schemas, names = append(schemas, in.ks.Tables[i].Schema), append(names, in.ks.Tables[i].Name)
	}
	rows, err := conn.Query(ctx, objectsSQL, pgx.QueryExecModeExec, schemas, names, maxObjects+1)
	if err != nil {
		return nil, err
	}
	found := make(map[object]string)
	var o object
	var schema, bare, declared string
	if _, err := pgx.ForEachRow(rows, []any{&o.kind, &o.name, &schema, &bare, &declared}, func() error {
		if o.table = ""; bare != "" {
			o.table = (&rib.KeyedTable{Schema: schema, Name: bare}).SQL()
		}
		found[o] = declared
		return nil
	}); err != nil {
		return nil, err
	}
	if len(found) > maxObjects {
		return nil, fmt.Errorf("it has more than %d types, functions and the like", maxObjects)
	}
	return found, nil
}

// objectDrift compares the shards' objects with those of the first one that could be asked.
func (in *inspector) objectDrift() {
	first := slices.IndexFunc(in.has, func(m map[object]string) bool { return m != nil })
	if first < 0 {
		return
	}
	all := make(map[object]bool)
	for _, m := range in.has {
		for o := range m {
			all[o] = true
		}
	}
	for o := range all {
		is, there := in.has[first][o]
		if o.kind == "sequence" { // where each begins is for each to choose
			is = withoutLast(is)
		}
		for number, shard := range in.shards[first+1:] {
			m := in.has[first+1+number]
			if m == nil {
				continue
			}
			other, here := m[o]
			if o.kind == "sequence" {
				other = withoutLast(other)
			}
			f := problem{severity: SeverityError, table: o.table}
			if o.kind == "extension" || o.kind == "sequence" {
				f.severity = SeverityWarning
			}
			where := "/* rangefinder: shard=" + shard + " */"
			switch {
			case here && !there:
				f.text = fmt.Sprintf("%s is here, and not on %s", o, in.shards[first])
				f.fix = fmt.Sprintf("Drop it here, with %s before the statement, or make it on %s likewise.", where, in.shards[first])
			case there && !here:
				f.text = fmt.Sprintf("%s is not here, and is on %s", o, in.shards[first])
				f.fix = fmt.Sprintf("Make it here as it is on %s, with %s before the statement. Statements without such a comment reach all shards.", in.shards[first], where)
			case here && is != other:
				f.text = fmt.Sprintf("%s is another one than on %s: here %s, there %s", o, in.shards[first], other, is)
				f.fix = fmt.Sprintf("Alter it here, with %s before the statement, or on all shards by one statement without such a comment.", where)
			default:
				continue
			}
			in.add(shard, f)
		}
	}
}

// withoutLast cuts the last word off.
func withoutLast(s string) string { return s[:max(0, strings.LastIndexByte(s, ' '))] }

// apart tells whether a column's sequences give each shard numbers of its own: all take the same step, no smaller than the number of shards, each from
// another place.
func (in *inspector) apart(table, column string) bool {
	seen := make(map[int64]bool)
	var step int64
	for _, m := range in.has {
		found := false
		for o, declared := range m {
			if o.kind != "sequence" || o.table != table || !strings.HasSuffix(o.name, " of column "+column) {
				continue
			}
			words := strings.Fields(declared)
			if len(words) < 6 {
				return false
			}
			by, err := strconv.ParseInt(words[len(words)-5], 10, 64)
			start, err2 := strconv.ParseInt(words[len(words)-1], 10, 64)
			if err != nil || err2 != nil || by < int64(len(in.shards)) || step != 0 && by != step {
				return false
			}
			step, found = by, true
			at := ((start % by) + by) % by
			if seen[at] {
				return false
			}
			seen[at] = true
		}
		if !found {
			return false
		}
	}
	return len(in.has) > 0
}

// counting warns of columns that count by themselves.
func (in *inspector) counting() {
	for i := range in.ks.Tables {
		name := in.ks.Tables[i].SQL()
		for number, shard := range in.shards {
			if i >= len(in.seen[number]) {
				continue
			}
			for _, column := range in.seen[number][i].counts {
				switch {
				case in.ks.Reference():
					in.add(shard, problem{SeverityWarning, name, fmt.Sprintf("column %s counts by itself, on each shard from its own number", column),
						"INSERT must give it: rangefinder.unique_id() makes numbers that no shard makes twice."})
				case !in.apart(name, column) && len(in.shards) > 1:
					in.add(shard, problem{SeverityWarning, name, fmt.Sprintf("column %s counts by itself, so the shards give the same numbers", column),
						"Have rangefinder.unique_id() be its default, or give each shard's sequence its own numbers (INCREMENT BY the number of shards, each with another START)."})
				}
			}
		}
	}
}
