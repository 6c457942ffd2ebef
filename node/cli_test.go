package node

import (
	"context"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"rangefinder/cluster"
)

// runCLI runs one command line and returns what it printed.
func runCLI(args ...string) (code int, stdout, stderr string) {
	var out, errs strings.Builder
	code = run(args, &env{ctx: context.Background(), stdout: &out, stderr: &errs, getenv: func(string) (string, bool) { return "", false }})
	return code, out.String(), errs.String()
}

func serveOffice(t *testing.T, office backOffice) (url string) {
	t.Helper()
	s := httptest.NewServer(newTestAPI(office).handler())
	t.Cleanup(s.Close)
	return s.URL
}

func TestStatusPrintsTheCluster(t *testing.T) {
	url := serveOffice(t, &fakeOffice{view: exampleView()})
	code, out, errs := runCLI("status", "--admin", url)
	want := `node fra-1 in fra: ready
cluster c0ffee, epoch 0.7, leader iad-1, 0 sessions
lease for another 1.7s
ALARM: shard_9 has two primaries
delay injected: 127.0.1.0/24: 90ms

NODE     REGION  RTT MS  CLUSTER PORT    LEDGER
fra-1 *  fra     -       127.0.2.1:7946  voter
iad-1    iad     90      127.0.1.1:7946  leader

SHARD    BACKEND  REGION  ROLE     FOR ALL  FOR US  LAG MS   ADDRESS         WHY
shard_1  iad-db1  iad     replica  up       down    unknown  127.0.1.1:5501  this node cannot reach it, others can: connect: <timeout>; 1 of 1 observers say up

KEYSPACE    DATABASE  METHOD  TYPES   RANGES  TABLES
app.orders  app       hash    bigint  2       public.orders(customer_id)
`
	if code != 0 || out != want || errs != "" {
		t.Errorf("exit %d, stderr %q, got\n%s\nwant\n%s", code, errs, out, want)
	}
	code, out, _ = runCLI("status", "--json", "--admin", url)
	if code != 0 || !strings.Contains(out, `"for_us": "down"`) {
		t.Errorf("--json: exit %d\n%s", code, out)
	}
}

// What others have written stays in its cell: a reason or a bound with a line break in it looked like one more line of the history.
func TestCellsHoldOneLine(t *testing.T) {
	var out strings.Builder
	err := table(&out, func(row func(...any)) {
		row("WHY", "TO")
		row("night\n1/9  split\tfake", "\x1b[31mred\u009b é")
	})
	if want := "WHY                      TO\nnight\\n1/9  split\\tfake  \\x1b[31mred\\u009b é\n"; err != nil || out.String() != want {
		t.Errorf("%v\n%swant\n%s", err, out.String(), want)
	}
}

func TestRouteExplains(t *testing.T) {
	office := &fakeOffice{answer: RouteAnswer{
		Node: "fra-1", Region: "fra", Database: "app", Intent: "write", WhyWrite: "FOR UPDATE", Target: "keyed", Keyspace: "app.orders",
		Keys: []string{"customer_id = 42"}, Reason: "equality on the key", Shard: "shard_1", Range: "..9", Epoch: "0.6",
		Candidates: []CandidateView{{Place: 1, Backend: "iad-db0", Region: "iad", Role: "primary", CostMS: 90.4, Healthy: true, Addr: "127.0.1.1:5500", Reason: "the primary"}},
		LeftOut:    []CandidateView{{Backend: "fra-db1", Region: "fra", Role: "replica", Addr: "127.0.2.1:5501", Reason: "a replica takes no writes"}},
	}}
	url := serveOffice(t, office)
	code, out, errs := runCLI("route", "--admin", url, "-d", "app", "--arg", "42", "--arg", "a,b", "SELECT 1")
	want := `from node fra-1 in fra, database app
intent    write (FOR UPDATE)
target    keyed, keyspace app.orders, customer_id = 42
because   equality on the key
shard     shard_1, range ..9, epoch 0.6

TRY  BACKEND  REGION  ROLE     COST MS  ADDRESS         WHY
1    iad-db0  iad     primary  90       127.0.1.1:5500  the primary
-    fra-db1  fra     replica           127.0.2.1:5501  left out: a replica takes no writes
`
	if code != 0 || out != want || errs != "" {
		t.Errorf("exit %d, stderr %q, got\n%s\nwant\n%s", code, errs, out, want)
	}
	if want := (RouteQuery{SQL: "SELECT 1", Database: "app", Args: []string{"42", "a,b"}}); !reflect.DeepEqual(office.asked[0], want) {
		t.Errorf("asked %+v, want %+v", office.asked[0], want)
	}
	office.answer.Error = &StatementError{Code: "0A000", Message: "no key", Detail: "why", Hint: "what"}
	code, _, errs = runCLI("route", "--admin", url, "SELECT 1")
	if want := "rangefinder: a client would get 0A000: no key\ndetail: why\nhint: what\n"; code != 1 || errs != want {
		t.Errorf("exit %d, stderr %q, want %q", code, errs, want)
	}
}

func TestKeyspaceCheckFailsOnErrors(t *testing.T) {
	url := serveOffice(t, &fakeOffice{})
	code, out, errs := runCLI("keyspace", "check", "--admin", url, "app.orders")
	if code != 1 || out != "error: on shard_1, table public.orders: it is wrong\n  Mend it.\n" || !strings.Contains(errs, "keyspace app.orders has 1 errors and 0 warnings") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	if code, out, _ := runCLI("keyspace", "check", "--admin", url, "--json", "app.orders"); code != 1 || !strings.Contains(out, `"severity": "error"`) {
		t.Errorf("exit %d: %s", code, out)
	}
}

func TestKeyspaceCreateSendsWhatWasTyped(t *testing.T) {
	office := &fakeOffice{}
	url := serveOffice(t, office)
	code, out, errs := runCLI("keyspace", "create", "--admin", url, "app.orders", "--key", "customer_id", "--type", "bigint", "--method", "hash", "--shards", "shard_1,shard_2,shard_3", "--table", "app.lines:a,b")
	if code != 0 || out != "keyspace app.orders is made: 3 ranges by hash of bigint\n" {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	got := office.created[0]
	if got.RequestID == "" {
		t.Error("no request id: a repeated call would not be safe")
	}
	got.Origin = cluster.Origin{}
	want := KeyspaceRequest{
		KeyspaceSpec: cluster.KeyspaceSpec{Name: "app.orders", Method: "hash", Types: []string{"bigint"}, Shards: []string{"shard_1", "shard_2", "shard_3"}},
		Key:          []string{"customer_id"}, Also: []string{"app.lines:a,b"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("sent %+v\nwant %+v", got, want)
	}
	code, _, errs = runCLI("keyspace", "create", "--admin", url, "app.accounts", "--key", "id", "--type", "bigint", "--method", "range",
		"--range", "..-1000=shard_1", "--range", "-1000..2000=shard_2", "--range", "2000..=shard_3")
	wantRanges := []cluster.RangeSpec{{Bounds: "..-1000", Shard: "shard_1"}, {Bounds: "-1000..2000", Shard: "shard_2"}, {Bounds: "2000..", Shard: "shard_3"}}
	if code != 0 || len(office.created) != 2 || !reflect.DeepEqual(office.created[1].Ranges, wantRanges) {
		t.Errorf("exit %d %s: %+v", code, errs, office.created)
	}
}

func TestUsageMistakes(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"keyspace", "create", "app.orders", "--key", "a,b", "--type", "bigint"}, "--key names 2 columns and --type 1 types"},
		{[]string{"keyspace", "create", "app.orders", "--key", "a", "--type", "bigint"}, "--method hash needs --shards"},
		{[]string{"keyspace", "create", "app.orders", "--key", "a", "--type", "bigint", "--method", "range"}, "--method range needs --range"},
		{[]string{"keyspace", "create", "app.orders", "--key", "a", "--type", "bigint", "--method", "range", "--range", "1-2"}, `--range "1-2" names no shard`},
		{[]string{"keyspace", "create", "app.orders", "--key", "a", "--type", "bigint", "--method", "directory"}, `--method must be one of "hash","range","list" but got "directory"`},
		{[]string{"keyspace", "create"}, "hint: rangefinder keyspace create --help"},
		{[]string{"keyspace", "create", "app.orders"}, "--key is missing"},
		{[]string{"keyspace", "create", "app.countries", "--reference"}, "--reference needs --shards"},
		{[]string{"keyspace", "create", "app.countries", "--reference", "--shards", "shard_1", "--key", "a", "--type", "bigint"}, "--reference takes --shards and --table alone"},
		{[]string{"statsu"}, `did you mean "status"`},
		{[]string{"start", "--regoin", "fra"}, "--region"},
		{[]string{"start", "--drain-timeout", "10"}, `"10" has no unit`},
	} {
		code, out, errs := runCLI(c.args...)
		if code != 2 || !strings.Contains(errs, c.want) || out != "" {
			t.Errorf("%v: exit %d, stdout %q, stderr %q; want exit 2 and %q", c.args, code, out, errs, c.want)
		}
	}
}

func TestHelpTeaches(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "rangefinder start --config iad.toml"},
		{[]string{"--help"}, "rangefinder keyspace create app.orders"},
		{[]string{"start", "--help"}, "The first node of a cluster is started without --join"},
		{[]string{"keyspace", "create", "--help"}, "database.table (schema public)"},
		{[]string{"route", "--help"}, "--arg 42 'UPDATE orders"},
		{[]string{"key", "--help"}, "rangefinder key > cluster.key"},
	} {
		if code, out, errs := runCLI(c.args...); code != 0 || !strings.Contains(out, c.want) {
			t.Errorf("%v: exit %d, want help with %q, got\n%s%s", c.args, code, c.want, out, errs)
		}
	}
}

func TestNobodyAnswers(t *testing.T) {
	code, _, errs := runCLI("status", "--admin", "127.0.0.1:1")
	if code != 1 || !strings.Contains(errs, "no node answers at http://127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused") || !strings.Contains(errs, "hint: Is a node running here?") {
		t.Errorf("exit %d: %s", code, errs)
	}
}

func TestRefusalsArePrintedWhole(t *testing.T) {
	office := &fakeOffice{err: &apiError{Status: 422, ErrorView: ErrorView{Error: "rows on the wrong shard", Detail: "shard_1: 7\nshard_2: 9", Hint: "move them"}}}
	code, _, errs := runCLI("keyspace", "create", "--admin", serveOffice(t, office), "app.orders", "--key", "a", "--type", "bigint", "--shards", "s")
	if want := "rangefinder: rows on the wrong shard\ndetail: shard_1: 7\n  shard_2: 9\nhint: move them\n"; code != 1 || errs != want {
		t.Errorf("exit %d, %q, want %q", code, errs, want)
	}
}

// TestEveryStartFlagHasAKey sets each flag to something else than the default and looks for it under its key.
func TestEveryStartFlagHasAKey(t *testing.T) {
	flags := reflect.TypeFor[configFlags]()
	for i := range flags.NumField() {
		f := flags.Field(i)
		key := f.Tag.Get("key")
		if f.Name == "Config" {
			continue
		}
		holder, ok := reflect.TypeFor[Config](), true
		for _, part := range strings.Split(key, ".") {
			var field reflect.StructField
			if field, ok = fieldByKey(holder, part); !ok {
				t.Errorf("flag %s names key %q, which the configuration lacks", f.Name, key)
				break
			}
			holder = field.Type
		}
		var set configFlags
		value := reflect.ValueOf(&set).Elem().Field(i)
		switch into := value.Addr().Interface().(type) {
		case **string:
			*into = new(string)
			**into = "given"
		case **int:
			*into = new(int)
			**into = 4711
		case **bool:
			*into = new(bool)
			**into = true
		case **Duration:
			*into = &Duration{4711 * time.Second}
		case *[]string:
			*into = []string{"given"}
		default:
			t.Fatalf("flag %s has a type that this test does not know", f.Name)
		}
		before, after := Defaults(), Defaults()
		set.apply(&after)
		if reflect.DeepEqual(before, after) {
			t.Errorf("flag %s changes nothing", f.Name)
		}
	}
}

func TestConfigCommand(t *testing.T) {
	file := writeConfig(t, goodConfig)
	code, out, errs := runCLI("config", "-c", file, "--region", "iad", "--join", "a:1,b:2", "--join", "c:3", "--no-insecure")
	if code != 0 || !strings.Contains(out, "region = 'iad'") || !strings.Contains(out, "join = ['a:1', 'b:2', 'c:3']") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	again, _, _ := runCLI("start", "-c", file, "--print-config")
	if again != 0 {
		t.Errorf("start --print-config: exit %d", again)
	}
	bad := filepath.Join(t.TempDir(), "bad.toml")
	if err := os.WriteFile(bad, []byte("regoin = 'x'"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := runCLI("config", "-c", bad); code != 1 || errs != "rangefinder: "+bad+":1:1: unknown key \"regoin\"; did you mean \"region\"?\n" {
		t.Errorf("exit %d: %s", code, errs)
	}
}

func TestKeyAndVersion(t *testing.T) {
	_, one, _ := runCLI("key")
	_, two, _ := runCLI("key")
	if one == two || len(strings.TrimSpace(one)) != 44 {
		t.Errorf("keys %q and %q", one, two)
	}
	if code, out, _ := runCLI("version"); code != 0 || !strings.HasPrefix(out, "rangefinder ") {
		t.Errorf("version: %d %q", code, out)
	}
}
