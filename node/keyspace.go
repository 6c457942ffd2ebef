package node

import (
	"fmt"
	"slices"
	"strings"

	"rangefinder/cluster"
	"rangefinder/rib"
)

// KeyspaceRequest is the body of POST /api/v1/keyspaces: the ledger's specification as it stands, or its short form. In the
// short form tables is absent, name stands for one table and key names its columns; also adds tables on the same key.
type KeyspaceRequest struct {
	cluster.KeyspaceSpec
	Key  []string `json:"key,omitempty"`  // key columns of the table that name stands for; none of a reference table
	Also []string `json:"also,omitempty"` // "app.order_lines", or "app.order_lines:customer" if its key columns are named otherwise
}

// TablesRequest is the body of POST /api/v1/keyspaces/tables: tables for a keyspace that there is, written out (tables), or by name (also).
type TablesRequest struct {
	cluster.TablesSpec
	Key  []string `json:"key,omitempty"`  // key columns of those in also that name none; if absent, they are called as in the keyspace's first table
	Also []string `json:"also,omitempty"` // as of KeyspaceRequest
}

// resolve turns the request into what the ledger takes.
func (r TablesRequest) resolve(o *rib.Ownership) (cluster.TablesSpec, error) {
	spec := r.TablesSpec
	spec.Tables = slices.Clone(spec.Tables)
	ks := o.KeyspaceByName(spec.Keyspace)
	if ks == nil {
		return spec, nil // With says so
	}
	for _, text := range r.Also {
		columns := r.Key
		if name, list, ok := cutColumns(text); ok {
			text, columns = name, list
		} else if len(columns) == 0 && len(ks.Tables) > 0 && !ks.Reference() {
			columns = ks.Tables[0].Columns
		}
		t, err := resolveTable(text, []string{ks.Database})
		if err != nil {
			return spec, err
		}
		if t.database != ks.Database {
			return spec, badRequest(fmt.Sprintf("%s is in database %s, and keyspace %s is in %s", text, t.database, ks.Name, ks.Database), "A keyspace lives in one database.")
		}
		spec.Tables = append(spec.Tables, cluster.TableSpec{Schema: t.schema, Name: t.table, Columns: slices.Clone(columns)})
	}
	if len(spec.Tables) == 0 {
		return spec, badRequest("no table is named", `For example "also": ["app.order_lines"].`)
	}
	return spec, nil
}

// tableName is a table as database, schema and name. Database may be empty until it is resolved.
type tableName struct{ database, schema, table string }

// resolve turns the request into what the ledger takes: the short form is written out, and the database is filled in.
func (r KeyspaceRequest) resolve(databases []string) (cluster.KeyspaceSpec, error) {
	spec := r.KeyspaceSpec
	if len(spec.Tables) > 0 {
		if len(r.Key) > 0 || len(r.Also) > 0 {
			return spec, badRequest("tables is given, and key or also too", "Either write out tables, or give key (and also) and let name stand for the table.")
		}
		if spec.Database == "" {
			t, err := resolveTable(spec.Name, databases)
			if err != nil {
				return spec, err
			}
			spec.Database = t.database
		}
		return spec, checkDatabase(spec.Database, databases)
	}
	if spec.Method == rib.MethodSchema {
		if len(r.Key)+len(r.Also) > 0 {
			return spec, badRequest("the key of a keyspace by schema is the schema's name", "Leave out key and tables.")
		}
		if spec.Database == "" {
			t, err := resolveTable(spec.Name, databases)
			if err != nil {
				return spec, err
			}
			spec.Database = t.database
		}
		spec.Types = []string{"text"}
		return spec, checkDatabase(spec.Database, databases)
	}
	switch reference := spec.Method == rib.MethodReference; {
	case reference && len(r.Key) > 0:
		return spec, badRequest("a reference table is whole on every shard: it has no key", "Leave out key and types, or choose another method.")
	case !reference && len(r.Key) == 0:
		return spec, badRequest("key is missing: which columns hold the sharding key?", `For example "key": ["customer_id"], or --key customer_id.`)
	}
	known := databases
	if spec.Database != "" {
		known = []string{spec.Database}
	}
	for i, text := range append([]string{spec.Name}, r.Also...) {
		columns := r.Key
		if name, list, ok := cutColumns(text); ok && i > 0 {
			text, columns = name, list
		}
		t, err := resolveTable(text, known)
		if err != nil {
			return spec, err
		}
		if spec.Database == "" {
			spec.Database = t.database
		}
		if t.database != spec.Database {
			return spec, badRequest(fmt.Sprintf("%s is in database %s, and the keyspace is in %s", text, t.database, spec.Database), "A keyspace lives in one database: make another one for the other.")
		}
		spec.Tables = append(spec.Tables, cluster.TableSpec{Schema: t.schema, Name: t.table, Columns: slices.Clone(columns)})
	}
	return spec, checkDatabase(spec.Database, databases)
}

// checkDatabase refuses a keyspace in a database that no client of this node could name: most likely a typing mistake.
func checkDatabase(name string, databases []string) error {
	if slices.Contains(databases, name) {
		return nil
	}
	hint := "The configured databases are " + strings.Join(databases, ", ") + "."
	if len(databases) == 0 {
		hint = "No database is configured: add [[databases]] to the node's configuration."
	}
	return badRequest(fmt.Sprintf("database %q is not configured", name), hint)
}

// resolveTable applies nameRule.
func resolveTable(text string, databases []string) (t tableName, err error) {
	parts, err := splitName(text)
	if err != nil {
		return t, err
	}
	only := func() (string, error) {
		switch len(databases) {
		case 1:
			return databases[0], nil
		case 0:
			return "", badRequest(fmt.Sprintf("%s names no database and none is configured", text), nameRule)
		}
		return "", badRequest(fmt.Sprintf("%s names no database and several are configured: %s", text, strings.Join(databases, ", ")), nameRule)
	}
	switch len(parts) {
	case 1:
		t.schema, t.table = "public", parts[0]
		t.database, err = only()
	case 2:
		if slices.Contains(databases, parts[0]) {
			return tableName{parts[0], "public", parts[1]}, nil
		}
		t.schema, t.table = parts[0], parts[1]
		t.database, err = only()
	case 3:
		t = tableName{parts[0], parts[1], parts[2]}
	default:
		err = badRequest(fmt.Sprintf("%q has %d parts", text, len(parts)), nameRule)
	}
	return t, err
}

// splitName splits at dots outside of quotes. Unquoted parts are folded to lower case, as PostgreSQL does.
func splitName(text string) ([]string, error) {
	bad := func() ([]string, error) {
		return nil, badRequest(fmt.Sprintf("%q is no table's name", text), nameRule)
	}
	var parts []string
	for rest := text; ; {
		var part string
		if strings.HasPrefix(rest, `"`) {
			end := -1
			for i := 1; i < len(rest); i++ {
				if rest[i] != '"' {
					continue
				}
				if i+1 < len(rest) && rest[i+1] == '"' {
					i++
					continue
				}
				end = i
				break
			}
			if end < 0 {
				return bad()
			}
			part, rest = strings.ReplaceAll(rest[1:end], `""`, `"`), rest[end+1:]
		} else {
			end := strings.IndexByte(rest, '.')
			if end < 0 {
				end = len(rest)
			}
			part, rest = foldName(rest[:end]), rest[end:]
			if strings.ContainsAny(part, "\" \t\r\n:,") {
				return bad()
			}
		}
		if part == "" || len(part) > 63 {
			return bad()
		}
		parts = append(parts, part)
		if rest == "" {
			return parts, nil
		}
		if rest[0] != '.' {
			return bad()
		}
		rest = rest[1:]
	}
}

// foldName folds ASCII letters alone, as PostgreSQL does in UTF-8 databases.
func foldName(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// cutColumns splits "name:a,b" at the colon outside of quotes.
func cutColumns(text string) (name string, columns []string, ok bool) {
	quoted := false
	for i := range len(text) {
		switch text[i] {
		case '"':
			quoted = !quoted
		case ':':
			if !quoted {
				for _, c := range strings.Split(text[i+1:], ",") {
					columns = append(columns, strings.TrimSpace(c))
				}
				return text[:i], columns, true
			}
		}
	}
	return text, nil, false
}
