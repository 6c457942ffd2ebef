package node

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/cluster/balance"
	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

func TestSumOfLoads(t *testing.T) {
	ks := rib.Keyspace{ID: 3, Name: "app.accounts", Method: "range", Types: []rib.Type{rib.TypeBigint}}
	m, err := rib.MethodByName(ks.Method)
	if err != nil {
		t.Fatal(err)
	}
	key := func(s string) rib.Key {
		k, err := m.ParseBound(ks.Types, s)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	ks.Ranges = []rib.Range{{To: key("10"), Shard: "a"}, {From: key("10"), To: key("20"), Shard: "b"}, {From: key("20"), Shard: "a"}}
	of := func(s string, rate, over float64) LoadOf {
		return LoadOf{Keyspace: 3, Key: key(s), Rate: rate, Error: over}
	}
	sum := sumLoads([]LoadHere{
		{Ranges: []LoadOf{of("10", 30, 0), of("", 1, 0)}, Keys: []LoadOf{of("10", 20, 0), of("19", 4, 1), of("15", 5, 4.5)}},
		{Ranges: []LoadOf{of("10", 12, 0), {Keyspace: 4, Key: key("10"), Rate: 1000}}, Keys: []LoadOf{of("19", 3, 0), of("20", 50, 0), {Keyspace: 3, Key: key("12"), Rate: 40, Cut: true}}},
	})
	middle := &ks.Ranges[1]
	if got := sum.of(3, middle.From); got != 42 {
		t.Errorf("the range gets %v", got)
	}
	if hot := sum.hot(&ks, m, middle); !slices.Equal(hot, []HotKeyView{{Key: "10", Rate: 20}, {Key: "19", Rate: 6}}) {
		t.Errorf("hot are %+v", hot)
	}
	want := []balance.KeyLoad{{Key: "10", Next: "11", Load: 20, First: true}, {Key: "15", Next: "16", Load: 5}, {Key: "19", Load: 7}}
	if got := sum.keyLoads(&ks, m, middle); !slices.Equal(got, want) {
		t.Errorf("keys are %+v", got)
	}
	if got := sum.keyLoads(&ks, m, &ks.Ranges[2]); len(got) != 1 || got[0].Key != "20" {
		t.Errorf("the last range's keys are %+v", got)
	}
	var none *loadSum
	if none.of(3, nil) != 0 || none.hot(&ks, m, middle) != nil {
		t.Error("nobody has said anything, and something is shown")
	}
}

// TestHotKeysOfHashes: of a hash keyspace the key itself is shown where a node knows it, and else it is said that it is a position. What is no value of the key's type is not shown.
func TestHotKeysOfHashes(t *testing.T) {
	ks := rib.Keyspace{ID: 3, Name: "app.orders", Method: "hash", Types: []rib.Type{rib.TypeBigint}, Ranges: []rib.Range{{Shard: "a"}}}
	hash, _ := rib.MethodByName("hash")
	plain, _ := rib.MethodByName("range")
	of := func(n int64, rate float64) LoadOf {
		v := rib.Value{Type: rib.TypeBigint, Int: n}
		key, err := hash.AppendKey(nil, v)
		if err != nil {
			t.Fatal(err)
		}
		itself, err := plain.AppendKey(nil, v)
		if err != nil {
			t.Fatal(err)
		}
		return LoadOf{Keyspace: 3, Key: key, Plain: itself, Rate: rate}
	}
	unknown, wrong := of(2, 20), of(3, 10)
	unknown.Plain, wrong.Plain = nil, []byte("no bigint")
	silent := of(1, 10)
	silent.Plain = nil
	sum := sumLoads([]LoadHere{{Keys: []LoadOf{of(1, 20), unknown, wrong}}, {Keys: []LoadOf{silent}}})
	hot := sum.hot(&ks, hash, &ks.Ranges[0])
	position := func(n int64) string { return hash.FormatKey(ks.Types, rib.Key(of(n, 0).Key)) }
	if want := fmt.Sprintf("1 at %s (30), position %s (20), position %s (10)", position(1), position(2), position(3)); hotText(hot) != want {
		t.Errorf("%s, want %s", hotText(hot), want)
	}
	for _, k := range sum.keyLoads(&ks, hash, &ks.Ranges[0]) {
		if (k.Key == position(1)) != (k.Value == "1") || k.Key != position(1) && k.Value != "" {
			t.Errorf("%+v", k)
		}
	}
}

func TestTheKeyBehindAKey(t *testing.T) {
	for _, c := range []struct {
		method string
		types  []rib.Type
		key    string
		next   string
	}{
		{"range", []rib.Type{rib.TypeBigint}, "41", "42"},
		{"range", []rib.Type{rib.TypeBigint}, "-1", "0"},
		{"range", []rib.Type{rib.TypeBigint}, "255", "256"},
		{"range", []rib.Type{rib.TypeBigint}, "9223372036854775807", ""},
		{"range", []rib.Type{rib.TypeSmallint}, "32767", ""},
		{"range", []rib.Type{rib.TypeDate}, "2024-02-29", "2024-03-01"},
		{"range", []rib.Type{rib.TypeText}, "a", ""},
		{"range", []rib.Type{rib.TypeText, rib.TypeInt}, "a,7", "a,8"},
		{"range", []rib.Type{rib.TypeUUID}, "40000000-0000-0000-0000-0000000000ff", "40000000-0000-0000-0000-000000000100"},
		{"hash", []rib.Type{rib.TypeText}, "0x00000000000000ff", "0x0000000000000100"},
	} {
		m, err := rib.MethodByName(c.method)
		if err != nil {
			t.Fatal(err)
		}
		key, err := m.ParseBound(c.types, c.key)
		if err != nil {
			t.Fatal(err)
		}
		if got := m.FormatKey(c.types, nextKey(m, c.types, key)); got != c.next {
			t.Errorf("%s %v: behind %s is %q, want %q", c.method, c.types, c.key, got, c.next)
		}
	}
}

// TestLoadOfRanges runs statements on some keys through two of three nodes, and looks at a third what ranges get.
func TestLoadOfRanges(t *testing.T) {
	c := startCluster(t)
	c.accounts(t)
	simple := func(conn *pgx.Conn, sql string) {
		t.Helper()
		if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	first, second := c.nodes[0].connect(t), c.nodes[1].connect(t)
	for i := range 400 {
		var n int
		if err := first.QueryRow(t.Context(), "SELECT count(*) FROM accounts WHERE id = $1", 1500).Scan(&n); err != nil { // extended
			t.Fatal(err)
		}
		simple(second, fmt.Sprintf("UPDATE accounts SET balance = 1 WHERE id = %d", 1000+i))
	}
	n := c.nodes[2]
	var ranges []RangeView
	pgtest.Eventually(t, 10*time.Second, func() error {
		v := RangesAnswer{}
		code, out, errs := n.admin("range", "list", "--keyspace", "app.accounts", "--json")
		if code != 0 {
			return fmt.Errorf("exit %d %s", code, errs)
		}
		if err := json.Unmarshal([]byte(out), &v); err != nil {
			return err
		}
		ranges = v.Ranges
		if len(ranges) != 3 || ranges[1].Rate < 10 || len(ranges[1].Hot) != 1 {
			return fmt.Errorf("%+v", ranges)
		}
		// What the two nodes have counted comes one after the other.
		if hot := ranges[1].Hot[0]; hot.Key != "1500" || hot.Rate < 0.3*ranges[1].Rate || hot.Rate > 0.8*ranges[1].Rate {
			return fmt.Errorf("the hot key: %+v of %v", hot, ranges[1].Rate)
		}
		return nil
	})
	if ranges[0].Rate != 0 || ranges[2].Rate != 0 || len(ranges[0].Hot) != 0 {
		t.Errorf("ranges that nobody asked for: %+v", ranges)
	}
	if code, out, _ := n.admin("range", "list"); code != 0 || !strings.Contains(out, "STATEMENTS/S") || !strings.Contains(out, "1500 (") {
		t.Errorf("exit %d\n%s", code, out)
	}
	pgtest.Eventually(t, 10*time.Second, func() error {
		if _, page := n.get(t, "/debug"); !strings.Contains(page, `hot:</span> <span class="mono">1500</span>`) {
			return fmt.Errorf("the page does not show it")
		}
		return nil
	})

	// The only range with load is too heavy: the plan says where to split it, and the command that it names works.
	code, out, errs := n.admin("rebalance", "plan")
	if code != 0 || !strings.Contains(out, "range 1000..2000 of app.accounts should be split") || !strings.Contains(out, "key 1500 alone gets ") {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	at := strings.Index(out, "rangefinder range split app.accounts ")
	if at < 0 {
		t.Fatalf("no command in\n%s", out)
	}
	line, _, _ := strings.Cut(out[at:], "\n")
	if words := strings.Fields(line); !slices.Contains(words, "1500") || !slices.Contains(words, "1501") {
		t.Errorf("%s", line)
	} else if code, out, errs := n.admin(words[1:]...); code != 0 || !strings.Contains(out, "1500") {
		t.Errorf("%s: exit %d\n%s%s", line, code, out, errs)
	}
}
