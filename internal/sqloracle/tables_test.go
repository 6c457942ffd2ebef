package sqloracle

import "github.com/jackc/pgx/v5/pgtype"

// column is a column of a table, or of a query's result.
type column struct{ name, typ string }

// table is what the generator knows of a table.
type table struct {
	name    string
	key     string // its key column; "": it has no keyspace
	group   string // tables of one group have one key, or live on one shard
	unique  []string
	columns []column
	keys    []string // values that the key column has, and some that it has not
}

// tables are those of schema.
var tables = []*table{
	{"orders", "customer_id", "customers", []string{"customer_id", "id"}, []column{{"customer_id", "bigint"}, {"id", "int"}, {"item", "text"}, {"qty", "int"},
		{"price", "numeric"}, {"tier", "tier"}, {"placed", "timestamptz"}, {"paid", "bool"}}, customerKeys},
	{"customers", "customer_id", "customers", []string{"customer_id"}, []column{{"customer_id", "bigint"}, {"name", "text"}, {"tier", "tier"}, {"balance", "numeric"},
		{"score", "float8"}, {"born", "date"}, {"active", "bool"}, {"tags", "text[]"}, {"meta", "jsonb"}, {"ref", "uuid"}, {"seen", "timestamptz"}}, customerKeys},
	{"order_lines", "customer_id", "customers", []string{"customer_id", "order_id", "line"}, []column{{"customer_id", "bigint"}, {"order_id", "int"}, {"line", "int"},
		{"sku", "text"}, {"amount", "numeric"}, {"weight", "float8"}, {"flags", "int[]"}}, customerKeys},
	{"readings", "device", "readings", []string{"device", "n"}, []column{{"device", "int"}, {"n", "int"}, {"at", "timestamptz"}, {"value", "float8"}, {"ok", "bool"}, {"label", "text"}},
		[]string{"0", "3", "9", "10", "15", "19", "20", "29", "31", "-5"}},
	{"stock", "region", "stock", []string{"region", "sku"}, []column{{"region", "text"}, {"sku", "text"}, {"qty", "int"}, {"price", "numeric"}},
		[]string{"de", "fr", "us", "at", "jp", "br", "zz", "DE"}},
	{"accounts", "name", "accounts", []string{"name"}, []column{{"name", "text"}, {"owner", "text"}, {"cents", "bigint"}, {"opened", "date"}},
		[]string{"ann", "Ann", "bob", "carl", "émile", "frank", "O'Neil", "back\\slash", "", "nobody"}},
	{"tiles", "zoom", "tiles", []string{"zoom", "name", "n"}, []column{{"zoom", "int"}, {"name", "text"}, {"n", "int"}, {"note", "text"}}, []string{"1", "2", "3", "4", "5", "6", "7", "-1"}},
	{"items", "", "items", []string{"item"}, []column{{"item", "text"}, {"grams", "int"}, {"kind", "text"}}, nil},
	{"tiers", "", "items", []string{"tier"}, []column{{"tier", "tier"}, {"discount", "numeric"}, {"label", "text"}}, nil},
	{"notes", "", "notes", []string{"id"}, []column{{"id", "int"}, {"body", "text"}, {"n", "int"}}, nil},
	{"settings", "", "notes", []string{"k"}, []column{{"k", "text"}, {"v", "text"}}, nil},
}

var customerKeys = []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "12", "14", "17", "19", "22", "24", "27", "29", "30", "31", "40", "-1"}

// values are some of each type that the tables hold, and some that they do not.
var values = map[string][]string{
	"bigint":      {"1", "2", "3", "5", "10", "40", "0", "-7", "5000000000"},
	"int":         {"1", "2", "3", "4", "0", "7", "9", "-2"},
	"numeric":     {"1", "10.50", "0.125", "20", "-3.25", "0", "33.5"},
	"text":        {"pen", "Pen", "anna", "Anna", "sku1", "sku3", "bob", "a", "B", "Zoe", "it's", "", "émile"},
	"tier":        {"bronze", "silver", "gold"},
	"timestamptz": {"2024-01-05 10:00:00+00", "2024-03-03 06:00:00+00", "2024-05-01 05:00:00+00", "2023-01-01 00:00:00+02"},
	"date":        {"1975-06-01", "1980-01-01", "2020-05-03", "1969-12-31"},
	"uuid":        {"00000000-0000-0000-0000-000000000003", "00000000-0000-0000-0000-000000000011", "ffffffff-ffff-ffff-ffff-ffffffffffff"},
	"bool":        {"true", "false"},
	"float8":      {"1.5", "0", "-3.75", "10", "2.25"},
	"jsonb":       {`{"n": 1}`, `{"n": 2, "list": [1, "q"]}`, `[]`, `3`},
	"text[]":      {"{}", "{x,y}", `{"a b",NULL}`},
	"int[]":       {"{}", "{1,2}", "{0,1}"},
}

// oids are the numbers of the types that a client knows without asking.
var oids = map[string]uint32{
	"bigint": pgtype.Int8OID, "int": pgtype.Int4OID, "numeric": pgtype.NumericOID, "text": pgtype.TextOID, "timestamptz": pgtype.TimestamptzOID,
	"date": pgtype.DateOID, "uuid": pgtype.UUIDOID, "bool": pgtype.BoolOID, "float8": pgtype.Float8OID, "jsonb": pgtype.JSONBOID,
	"text[]": pgtype.TextArrayOID, "int[]": pgtype.Int4ArrayOID, "bigint[]": pgtype.Int8ArrayOID,
}
