package cluster

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"

	"rangefinder/rib"
)

// codeSQL lists what PostgreSQL runs on a shard without the node's seeing it: a table's triggers and rules, rules of others that name it, and functions that do. Of a function
// whose body was parsed when it was made the catalogs know the tables; of all others (plpgsql among them) there is only the text, which is searched for the table's
// name. What a text makes at run time nobody knows.
const codeSQL = `
SELECT CASE WHEN t.tgtype & 66 = 2 AND t.tgtype & 1 = 1 THEN 'before' ELSE 'trigger' END, t.tgname::text, t.tgfoid::regprocedure::text
FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE t.tgrelid = $1::regclass AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND n.nspname <> 'rangefinder'
UNION ALL
SELECT DISTINCT 'rule', w.rulename::text, w.ev_class::regclass::text
FROM pg_rewrite AS w LEFT JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1::regclass
WHERE w.rulename <> '_RETURN' AND w.ev_enabled <> 'D' AND (w.ev_class = $1::regclass OR d.objid IS NOT NULL)
UNION ALL
SELECT CASE WHEN d.objid IS NOT NULL THEN 'function' ELSE 'text' END, p.oid::regprocedure::text, ''
FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
     LEFT JOIN (SELECT DISTINCT objid FROM pg_depend WHERE classid = 'pg_proc'::regclass AND refclassid = 'pg_class'::regclass AND refobjid = $1::regclass) AS d ON d.objid = p.oid
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'rangefinder')
  AND (d.objid IS NOT NULL OR p.prosqlbody IS NULL AND lower($2) = ANY (regexp_split_to_array(lower(p.prosrc), '[^[:alnum:]_$]+')))
ORDER BY 1, 2, 3`

// code warns about what runs on one shard and may mean rows of all.
func (in *inspector) code(ctx context.Context, conn *pgx.Conn, t *rib.KeyedTable, add adder) error {
	rows, err := conn.Query(ctx, codeSQL, pgx.QueryExecModeExec, t.SQL(), t.Name)
	if err != nil {
		return err
	}
	key := strings.Join(t.Columns, ", ")
	var kind, name, of string
	_, err = pgx.ForEachRow(rows, []any{&kind, &name, &of}, func() error {
		switch {
		case kind == "rule":
			add(SeverityWarning, "Drop it, and have applications write what it writes by statements of their own, which the node routes.",
				"rule %s of %s: nodes do not see what it makes of a statement: its commands run on the statement's shards alone, whatever the key of the rows that they write", name, of)
		case in.ks.Reference() && (kind == "before" || kind == "trigger"):
			add(SeverityWarning, "Have it make the same of the same row on every server: no now(), no random(), no sequence, and no rows of tables that are not whole there.",
				"trigger %s calls %s on each copy by itself, so the copies may come to differ", name, of)
		case in.ks.Reference(): // every shard has all rows that a function can read, and what it writes is refused or the same
		case kind == "before":
			add(SeverityWarning, "Have it leave "+key+" as it is, and read and write rows of this key alone.",
				"trigger %s calls %s before a row is stored: if that gives the row another key, it stays on the shard of the statement's, where no statement with the new key finds it; and it sees that shard's rows alone", name, of)
		case kind == "trigger":
			add(SeverityWarning, "Have it read and write rows of the same key alone: what it does over all shards is for a statement of the application's.",
				"trigger %s calls %s on the row's shard: it sees that shard's rows alone, and what it writes is stored there, whatever the key", name, of)
		default:
			names := "names the table"
			if kind == "text" {
				names = "has the table's name in its text"
			}
			add(SeverityWarning, "Have it read and write rows of one key alone, and call it in a statement that gives this key, or with a hint: /* rangefinder: key=... */ SELECT ...",
				"function %s %s: it runs on one shard, sees the rows of that one alone, and what it writes is stored there, whatever the key", name, names)
		}
		return nil
	})
	return err
}
