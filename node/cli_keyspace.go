package node

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"rangefinder/cluster"
	"rangefinder/rib"
)

type keyspaceCmd struct {
	Create keyspaceCreateCmd `cmd:"" help:"Make a keyspace over tables that exist on every shard."`
	Add    keyspaceAddCmd    `cmd:"" help:"Give further values of a list to shards."`

	AddTable keyspaceAddTableCmd `cmd:"" name:"add-table" help:"Give a keyspace another table."`
	Drop     keyspaceDropCmd     `cmd:"" help:"Take a keyspace away; its rows stay."`

	Check keyspaceCheckCmd `cmd:"" help:"Ask every shard what is wrong with a keyspace's tables."`
	Show  keyspaceShowCmd  `cmd:"" help:"Show a keyspace and who owns what of it."`
	List  keyspaceListCmd  `cmd:"" help:"List keyspaces."`
}

// nameRule is how a table is named on the command line and in the API; it is part of help and errors alike.
const nameRule = "NAME is database.schema.table; or two parts: database.table (schema public) if the first part is a configured database, " +
	"else schema.table in the only configured database; or table, in schema public of the only configured database. Quote a part that holds a dot or capitals: app.\"Order.Lines\"."

type keyspaceCreateCmd struct {
	adminFlags
	reasonFlag
	Name      string   `arg:"" help:"The table, which also names the keyspace."`
	Key       []string `placeholder:"COLUMN" help:"The key's columns."`
	Type      []string `placeholder:"TYPE" help:"Their types: bigint, int, smallint, text, varchar, uuid, bytea, date or timestamptz."`
	Method    string   `default:"hash" enum:"hash,range,list" help:"hash (PostgreSQL's own hash, split evenly), range (the type's order) or list (a shard for each value)."`
	Reference bool     `help:"Reference tables: whole on each of --shards, without a key. Those that are there already must be alike and have the same rows."`
	BySchema  bool     `help:"The key is the name of a schema: --value tenant_1=shard_1 puts a schema and all that is in it on a shard."`
	Shards    []string `placeholder:"SHARD" help:"For hash: the shards that share the keys evenly. For --reference: those that have the tables."`
	Range     []string `placeholder:"BOUNDS=SHARD" sep:"none" help:"For range: ..1000=shard_1, 1000..2000=shard_2 (or 1000-2000=shard_2), 2000..=shard_3. From is part of it, to is not. Repeat until every key has a shard."`
	Value     []string `placeholder:"VALUE=SHARD" sep:"none" help:"For list: de=shard_1. May be repeated; more values can be added later."`
	Default   string   `placeholder:"SHARD" help:"For list: the shard of all other values. Without it statements about them are refused."`
	Table     []string `placeholder:"NAME[:COLUMN]" sep:"none" help:"Another table that lives on the same key; its key columns if they are named otherwise. May be repeated."`
	Database  string   `placeholder:"NAME" help:"The database, if NAME does not say it."`
	Planned   bool     `help:"The tables may be missing on all shards: CREATE TABLE through a node makes them on all."`
}

// Help is shown by `rangefinder keyspace create --help`.
func (keyspaceCreateCmd) Help() string {
	return "Examples:\n\n" +
		"  rangefinder keyspace create app.orders --key customer_id --type bigint --method hash --shards shard_1,shard_2,shard_3\n" +
		"  rangefinder keyspace create app.accounts --key id --type bigint --method range --range ..1000=shard_1 --range 1000..2000=shard_2 --range 2000..=shard_3\n" +
		"  rangefinder keyspace create app.sales --key country --type text --method list --value de=shard_1 --value fr=shard_1 --value us=shard_2 --default shard_3\n" +
		"  rangefinder keyspace create app.orders --key customer_id --type bigint --shards shard_1,shard_2 --table app.order_lines:customer\n\n" +
		"  rangefinder keyspace create app.tenants --by-schema --value tenant_1=shard_1 --value tenant_2=shard_2\n" +
		"  rangefinder keyspace create app.countries --reference --shards shard_1,shard_2,shard_3 --table app.currencies\n\n" +
		"The tables must exist on every shard, or on none with --planned. Before anything is changed, each shard counts rows whose key it would not own; if there are any, the keyspace is refused.\n\n" + nameRule
}

// Run makes the keyspace, on whichever node leads.
func (c *keyspaceCreateCmd) Run(e *env) error {
	switch {
	case c.BySchema && (c.Reference || len(c.Key)+len(c.Type)+len(c.Range)+len(c.Shards)+len(c.Table) > 0):
		return &usageError{message: "--by-schema takes --value, --default and --database alone", hint: "For example --by-schema --value tenant_1=shard_1 --value tenant_2=shard_2"}
	case c.BySchema && len(c.Value) == 0:
		return &usageError{message: "--by-schema needs --value", hint: "For example --value tenant_1=shard_1 --value tenant_2=shard_2"}
	case c.BySchema:
		c.Method = rib.MethodSchema
	case c.Reference && len(c.Key)+len(c.Type)+len(c.Range)+len(c.Value) > 0 || c.Reference && c.Default != "":
		return &usageError{message: "--reference takes --shards and --table alone", hint: "A reference table has no key: it is whole on every shard."}
	case c.Reference && len(c.Shards) == 0:
		return &usageError{message: "--reference needs --shards", hint: "For example --shards shard_1,shard_2,shard_3"}
	case c.Reference:
		c.Method = rib.MethodReference
	case len(c.Key) == 0:
		return &usageError{message: "--key is missing", hint: "Name the key's columns and their types, for example --key customer_id --type bigint; or say --reference."}
	}
	if len(c.Key) != len(c.Type) {
		return &usageError{message: fmt.Sprintf("--key names %d columns and --type %d types", len(c.Key), len(c.Type)), hint: "Give one type for each column, in the same order."}
	}
	req := KeyspaceRequest{
		KeyspaceSpec: cluster.KeyspaceSpec{Name: c.Name, Database: c.Database, Method: c.Method, Types: c.Type, Shards: c.Shards, Default: c.Default, Planned: c.Planned, Origin: c.origin()},
		Key:          c.Key,
		Also:         c.Table,
	}
	for _, r := range c.Range {
		bounds, shard, ok := strings.Cut(r, "=")
		if !ok || shard == "" {
			return &usageError{message: fmt.Sprintf("--range %q names no shard", r), hint: "Write it as ..1000=shard_1, 1000..2000=shard_2 or 2000..=shard_3"}
		}
		req.Ranges = append(req.Ranges, cluster.RangeSpec{Bounds: bounds, Shard: shard})
	}
	var err error
	if req.Values, err = valueFlags(c.Value); err != nil {
		return err
	}
	switch {
	case c.Method != "list" && !c.BySchema && (len(c.Value) > 0 || c.Default != ""):
		return &usageError{message: "--value and --default are for --method list", hint: ""}
	case c.Method == "list" && len(c.Value) == 0 && c.Default == "":
		return &usageError{message: "--method list needs --value or --default", hint: "For example --value de=shard_1 --value fr=shard_2 --default shard_3"}
	case c.Method == "list" && len(c.Shards)+len(c.Range) > 0:
		return &usageError{message: "--method list takes its shards from --value and --default", hint: ""}
	case c.Method == "hash" && len(c.Shards) == 0:
		return &usageError{message: "--method hash needs --shards", hint: "For example --shards shard_1,shard_2,shard_3"}
	case c.Method == "hash" && len(c.Range) > 0:
		return &usageError{message: "--method hash splits the keys evenly and takes no --range", hint: "Use --shards, or --method range."}
	case c.Method == "range" && len(c.Range) == 0:
		return &usageError{message: "--method range needs --range", hint: "For example --range ..1000=shard_1 --range 1000..=shard_2"}
	case c.Method == "range" && len(c.Shards) > 0:
		return &usageError{message: "--method range takes its shards from --range, not from --shards", hint: ""}
	}
	var v KeyspaceView
	if err := c.call(e, "/api/v1/keyspaces", req, &v); err != nil || c.JSON {
		return err
	}
	return printMade(e.stdout, &v, "is made")
}

// printMade tells of a keyspace that was made or changed.
func printMade(w io.Writer, v *KeyspaceView, what string) error {
	parts := fmt.Sprintf("%d ranges", v.Ranges)
	if v.Method == "list" {
		parts = fmt.Sprintf("%d values", v.Values)
	}
	text := fmt.Sprintf("keyspace %s %s: %s by %s of %s\n", v.Name, what, parts, v.Method, strings.Join(v.Types, ", "))
	switch {
	case len(v.Copies) > 0:
		text = fmt.Sprintf("keyspace %s %s: reference tables, whole on %s\n", v.Name, what, strings.Join(v.Copies, ", "))
	case v.Method == rib.MethodSchema:
		text = fmt.Sprintf("keyspace %s %s: %d schemas, each with all that is in it on its shard\n", v.Name, what, v.Values)
	}
	for _, w := range v.Warnings {
		text += "warning: " + w + "\n"
	}
	_, err := fmt.Fprint(w, text)
	return err
}

// valueFlags reads VALUE=SHARD.
func valueFlags(flags []string) (values []cluster.ValueSpec, err error) {
	for _, f := range flags {
		at := strings.LastIndexByte(f, '=')
		if at < 0 || at == len(f)-1 {
			return nil, &usageError{message: fmt.Sprintf("--value %q names no shard", f), hint: "Write it as de=shard_1; of several columns as 'de,5=shard_1'."}
		}
		values = append(values, cluster.ValueSpec{Value: f[:at], Shard: f[at+1:]})
	}
	return values, nil
}

type keyspaceAddCmd struct {
	adminFlags
	reasonFlag
	Name  string   `arg:"" help:"The keyspace, which is one of the method list, or by schema."`
	Value []string `required:"" placeholder:"VALUE=SHARD" sep:"none" help:"A value and the shard that owns it from now on. May be repeated."`
}

// Help is shown by `rangefinder keyspace add --help`.
func (keyspaceAddCmd) Help() string {
	return "Example:\n\n  rangefinder keyspace add app.sales --value it=shard_2 --value es=shard_1\n\n" +
		"No row with such a value may be there yet, but on the shard that is to own it. What a default shard owns can be listed for that shard alone."
}

// Run adds the values, on whichever node leads.
func (c *keyspaceAddCmd) Run(e *env) error {
	values, err := valueFlags(c.Value)
	if err != nil {
		return err
	}
	var v KeyspaceView
	if err := c.call(e, "/api/v1/keyspaces/values", cluster.ValuesSpec{Keyspace: c.Name, Values: values, Origin: c.origin()}, &v); err != nil || c.JSON {
		return err
	}
	return printMade(e.stdout, &v, "has the values")
}

type keyspaceCheckCmd struct {
	adminFlags
	Name string `arg:"" help:"The keyspace."`
}

// Help is shown by `rangefinder keyspace check --help`.
func (keyspaceCheckCmd) Help() string {
	return "It looks for unique constraints and primary keys without the key, foreign keys that leave it, columns that count by themselves, triggers,\n" +
		"rules and functions that reach the tables where no node sees it, what differs between the shards, rows that lie on the wrong shard, and\n" +
		"max_prepared_transactions. Each row's key is read once.\n\n" +
		"It ends with status 1 if there are errors; warnings alone are no failure."
}

// Run prints what was found.
func (c *keyspaceCheckCmd) Run(e *env) error {
	var v struct {
		Findings []cluster.Finding `json:"findings"`
	}
	read := c.adminFlags
	read.JSON = false // the findings decide the status in that form too
	if err := read.call(e, "/api/v1/keyspaces/check?"+url.Values{"keyspace": {c.Name}}.Encode(), nil, &v); err != nil {
		return err
	}
	if c.JSON {
		encoder := json.NewEncoder(e.stdout)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(&v); err != nil {
			return err
		}
	}
	errs := 0
	for _, f := range v.Findings {
		if f.Severity == cluster.SeverityError {
			errs++
		}
		if c.JSON {
			continue
		}
		table := ""
		if f.Table != "" {
			table = ", table " + f.Table
		}
		fmt.Fprintf(e.stdout, "%s: on %s%s: %s\n  %s\n", f.Severity, strings.Join(f.Shards, ", "), table, f.Problem, f.Fix)
	}
	switch {
	case errs > 0:
		return &Failure{Message: fmt.Sprintf("keyspace %s has %d errors and %d warnings", c.Name, errs, len(v.Findings)-errs)}
	case !c.JSON:
		fmt.Fprintf(e.stdout, "keyspace %s: no errors, %d warnings\n", c.Name, len(v.Findings))
	}
	return nil
}

type keyspaceShowCmd struct {
	adminFlags
	Name string `arg:"" help:"The keyspace."`
}

// Run prints the keyspace and its ranges or values.
func (c *keyspaceShowCmd) Run(e *env) error {
	var owned struct{ Ranges []RangeView }
	if err := c.call(e, rangesOf(c.Name), nil, &owned); err != nil || c.JSON {
		return err
	}
	var all struct{ Keyspaces []KeyspaceView }
	if err := c.call(e, "/api/v1/keyspaces", nil, &all); err != nil {
		return err
	}
	one := slices.DeleteFunc(all.Keyspaces, func(k KeyspaceView) bool { return k.Name != c.Name })
	if err := printKeyspaces(e.stdout, one); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(e.stdout); err != nil {
		return err
	}
	return printRanges(e.stdout, owned.Ranges)
}

func rangesOf(keyspace string) string {
	return "/api/v1/ranges?" + url.Values{"keyspace": {keyspace}}.Encode()
}

type keyspaceListCmd struct{ adminFlags }

// Run prints the keyspaces.
func (c *keyspaceListCmd) Run(e *env) error {
	var v struct{ Keyspaces []KeyspaceView }
	if err := c.call(e, "/api/v1/keyspaces", nil, &v); err != nil || c.JSON {
		return err
	}
	return printKeyspaces(e.stdout, v.Keyspaces)
}

func printKeyspaces(w io.Writer, list []KeyspaceView) error {
	return table(w, func(row func(...any)) {
		row("KEYSPACE", "DATABASE", "METHOD", "TYPES", "RANGES", "TABLES")
		for _, k := range list {
			var tables []string
			for _, t := range k.Tables {
				if len(k.Copies) > 0 {
					tables = append(tables, t.Schema+"."+t.Name)
					continue
				}
				tables = append(tables, fmt.Sprintf("%s.%s(%s)", t.Schema, t.Name, strings.Join(t.Columns, ", ")))
			}
			row(k.Name, k.Database, k.Method, strings.Join(k.Types, ", "), k.Ranges, strings.Join(tables, " "))
		}
	})
}

func printRanges(w io.Writer, ranges []RangeView) error {
	return table(w, func(row func(...any)) {
		row("KEYSPACE", "FROM", "TO", "SHARD", "EPOCH", "STATEMENTS/S", "HOT KEYS")
		for _, r := range ranges {
			shard := r.Shard
			if shard == "" {
				shard = "(none)"
			}
			if r.Value != "" {
				row(r.Keyspace, r.Value, "", shard, r.Epoch, fmt.Sprintf("%.0f", r.Rate), "")
				continue
			}
			row(r.Keyspace, orDots(r.From), orDots(r.To), shard, r.Epoch, fmt.Sprintf("%.0f", r.Rate), hotText(r.Hot))
		}
	})
}

// orDots writes the open end as the range syntax does.
func orDots(s string) string {
	if s == "" {
		return ".."
	}
	return s
}
