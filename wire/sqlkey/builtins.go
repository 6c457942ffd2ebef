package sqlkey

import (
	_ "embed" // builtins.txt
	"strings"
	"sync"
)

//go:generate go run gen_builtins.go

//go:embed builtins.txt
var builtinsText string

// builtins is what PostgreSQL knows by itself: names in pg_catalog. It never changes.
type builtins struct {
	functions map[string]bool // name -> safe for a replica: no overload is volatile
	immutable map[string]bool // name -> all overloads are immutable: every server computes the same
	relations map[string]bool
	operators map[string]bool
}

var loadBuiltins = sync.OnceValue(func() *builtins {
	b := &builtins{functions: make(map[string]bool, 3000), immutable: make(map[string]bool, 2000), relations: make(map[string]bool, 200), operators: make(map[string]bool, 120)}
	for line := range strings.Lines(builtinsText) {
		kind, name, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		switch kind {
		case "function":
			b.functions[name] = true
		case "immutable":
			b.functions[name], b.immutable[name] = true, true
		case "volatile":
			b.functions[name] = false
		case "relation":
			b.relations[name] = true
		case "operator":
			b.operators[name] = true
		}
	}
	// What came after the version that the list was made of: the names that people use.
	for _, name := range strings.Fields("pg_stat_io pg_stat_checkpointer pg_wait_events pg_aios") {
		b.relations[name] = true
	}
	for _, name := range strings.Fields(`any_value array_reverse array_sort bit_count casefold crc32 crc32c date_add
		date_subtract erf erfc gamma lgamma pg_input_error_info pg_input_is_valid to_bin to_oct uuid_extract_timestamp
		uuid_extract_version`) {
		b.functions[name] = true
	}
	for _, name := range strings.Fields("array_sample array_shuffle random_normal uuidv4 uuidv7") {
		b.functions[name] = false
	}
	for _, name := range strings.Fields("<=> <#> <+> <~> <%> %> <<% %>> <<-> <->> <<<-> <->>> <%% ~> ~== @@> <=@ ?@>") { // of extensions that many have: they set nothing
		b.operators[name] = true
	}
	return b
})

// pinning are the functions that leave something behind in the server's session.
var pinning = map[string]Remains{
	"pg_advisory_lock": RemainLocks, "pg_advisory_lock_shared": RemainLocks,
	"pg_try_advisory_lock": RemainLocks, "pg_try_advisory_lock_shared": RemainLocks,
	"setseed": RemainForever, "pg_replication_origin_session_setup": RemainForever,
}

// homeBound tells whether a function of pg_catalog acts on something that one shard alone has: a sequence, a lock, a large
// object, a channel. Without a table that says which shard is meant, it is the one that holds what no keyspace names.
func homeBound(name string) bool {
	switch name {
	case "nextval", "setval", "currval", "lastval", "pg_sequence_last_value", "pg_notify", "loread", "lowrite":
		return true
	}
	return strings.HasPrefix(name, "lo_") || strings.HasPrefix(name, "pg_advisory_") || strings.HasPrefix(name, "pg_try_advisory_")
}

// readsText tells whether a function of pg_catalog runs a query or reads a table that it is given by name, where no parser
// sees it.
func readsText(name string, args int) bool {
	switch name {
	case "query_to_xml", "query_to_xmlschema", "query_to_xml_and_xmlschema", "cursor_to_xml", "cursor_to_xmlschema",
		"table_to_xml", "table_to_xmlschema", "table_to_xml_and_xmlschema", "schema_to_xml", "schema_to_xml_and_xmlschema",
		"schema_to_xmlschema", "database_to_xml", "database_to_xml_and_xmlschema", "database_to_xmlschema", "ts_stat":
		return true
	case "ts_rewrite":
		return args < 3
	}
	return false
}
