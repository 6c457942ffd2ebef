package node

import (
	"reflect"
	"strings"
	"testing"

	"rangefinder/cluster"
)

func TestTableNamesAreResolved(t *testing.T) {
	app, both := []string{"app"}, []string{"app", "other"}
	for _, c := range []struct {
		text      string
		databases []string
		want      tableName
		wrong     string
	}{
		{"orders", app, tableName{"app", "public", "orders"}, ""},
		{"app.orders", app, tableName{"app", "public", "orders"}, ""},
		{"sales.orders", app, tableName{"app", "sales", "orders"}, ""},
		{"app.sales.orders", both, tableName{"app", "sales", "orders"}, ""},
		{"App.Orders", both, tableName{"app", "public", "orders"}, ""},
		{`app."Order.Lines"`, both, tableName{"app", "public", "Order.Lines"}, ""},
		{`app."say ""hi"""`, both, tableName{"app", "public", `say "hi"`}, ""},
		{"sales.orders", both, tableName{}, "sales.orders names no database and several are configured: app, other"},
		{"orders", nil, tableName{}, "orders names no database and none is configured"},
		{"a.b.c.d", app, tableName{}, `"a.b.c.d" has 4 parts`},
		{"", app, tableName{}, `"" is no table's name`},
		{"app.", app, tableName{}, `"app." is no table's name`},
		{`app."orders`, app, tableName{}, `"app.\"orders" is no table's name`},
		{`app."x"y`, app, tableName{}, `"app.\"x\"y" is no table's name`},
		{"app.or ders", app, tableName{}, `"app.or ders" is no table's name`},
	} {
		got, err := resolveTable(c.text, c.databases)
		switch {
		case c.wrong == "" && (err != nil || got != c.want):
			t.Errorf("%s in %v = %+v, %v; want %+v", c.text, c.databases, got, err, c.want)
		case c.wrong != "" && (err == nil || err.Error() != c.wrong || err.(*apiError).Hint != nameRule):
			t.Errorf("%s in %v = %v; want %q with the rule as its hint", c.text, c.databases, err, c.wrong)
		}
	}
}

func TestShortFormIsWrittenOut(t *testing.T) {
	r := KeyspaceRequest{Key: []string{"customer_id"}, Also: []string{"app.order_lines", "app.customers:id"}}
	r.Name = "app.orders"
	got, err := r.resolve([]string{"app", "other"})
	if err != nil {
		t.Fatal(err)
	}
	want := []cluster.TableSpec{
		{Schema: "public", Name: "orders", Columns: []string{"customer_id"}},
		{Schema: "public", Name: "order_lines", Columns: []string{"customer_id"}},
		{Schema: "public", Name: "customers", Columns: []string{"id"}},
	}
	if got.Database != "app" || !reflect.DeepEqual(got.Tables, want) {
		t.Errorf("got database %q, tables %+v", got.Database, got.Tables)
	}
	for name, bad := range map[string]KeyspaceRequest{
		"key is missing":                {KeyspaceSpec: cluster.KeyspaceSpec{Name: "app.orders"}},
		"and the keyspace is in app":    {KeyspaceSpec: cluster.KeyspaceSpec{Name: "app.orders"}, Key: []string{"a"}, Also: []string{"other.lines"}},
		"tables is given":               {KeyspaceSpec: cluster.KeyspaceSpec{Name: "app.orders", Tables: want}, Key: []string{"a"}},
		`database "apq" is not config`:  {KeyspaceSpec: cluster.KeyspaceSpec{Name: "apq.public.orders"}, Key: []string{"a"}},
		`database "nope" is not config`: {KeyspaceSpec: cluster.KeyspaceSpec{Name: "x", Database: "nope", Tables: want}},
	} {
		if _, err := bad.resolve([]string{"app", "other"}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("want an error with %q, got %v", name, err)
		}
	}
}
