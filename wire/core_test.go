package wire

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rangefinder/fib"
	"rangefinder/rib"
	"rangefinder/wire/oids"
	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
	"rangefinder/wire/sqlkey"
)

type noMetrics struct{}

func (noMetrics) Routed(int, int, time.Duration) {}
func (noMetrics) Refused(string)                 {}
func (noMetrics) BackendError(_, _ string)       {}
func (noMetrics) Failover(string)                {}
func (noMetrics) Scattered(int)                  {}
func (noMetrics) Limited(Refusal)                {}

// testEnv is two shards, each a primary and a closer replica, and table orders sharded by customer_id.
func testEnv(t testing.TB) *env {
	t.Helper()
	e, _ := testWorld(t)
	return e
}

// testWorld is the same, and the table that it goes by.
func testWorld(t testing.TB) (*env, *rib.Table) {
	t.Helper()
	table := rib.NewTable(rib.Member{Name: "n1", Region: "here"})
	h := table.Health()
	now := time.Unix(1000, 0)
	h.Distance("here", time.Millisecond, now)
	h.Distance("far", 50*time.Millisecond, now)
	own := &rib.Ownership{Epoch: rib.Epoch{Index: 1}, Catalog: 1}
	seq := uint64(0)
	for i, shard := range []string{"shard_1", "shard_2"} {
		own.Shards = append(own.Shards, rib.Shard{Name: shard, SystemID: uint64(i + 1)})
		for _, b := range []struct {
			region string
			role   rib.Role
		}{{"far", rib.Primary}, {"here", rib.Replica}} {
			seq++
			name := shard + "-" + b.region
			h.Announce(rib.Announcement{Observer: "n1", Stamp: rib.Stamp{Seq: seq}, Backend: rib.Backend{Name: name, Shard: shard, Region: b.region, Addr: "127.0.0.1:1", SystemID: uint64(i + 1)}})
			h.Observe(rib.Route{Backend: name, Observer: "n1", Stamp: rib.Stamp{Seq: seq}, State: rib.Up, Role: b.role, Timeline: 1})
		}
	}
	own.Keyspaces = []rib.Keyspace{{
		ID: 1, Name: "app.orders", Database: "app", Method: "hash", Types: []rib.Type{rib.TypeBigint},
		Tables: []rib.KeyedTable{{Schema: "public", Name: "orders", Columns: []string{"customer_id"}}},
		Ranges: rib.EvenRanges([]string{"shard_1", "shard_2"}),
	}}
	table.Owners().Set(own)
	compiled, err := fib.Compile(table.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	handle := new(fib.Handle)
	handle.Store(compiled)
	rules := map[string]sqlkey.DatabaseRule{"app": {Shard: "shard_1"}}
	catalog := sqlkey.NewCatalog(own, rules, nil)
	clock := time.Duration(0)
	return &env{
		fib: handle, planner: sqlkey.NewPlanner(sqlkey.PlannerConfig{}), metrics: noMetrics{}, recheck: func(string) {}, positions: table.Positions(),
		types:  new(atomic.Pointer[map[string]*oids.Database]),
		leased: func() bool { return true }, alone: func(time.Time) bool { return false }, fenced: func() {},
		catalog: func(*fib.Table) *sqlkey.Catalog { return catalog },
		now:     func() time.Duration { clock += time.Millisecond; return clock },
		random:  func() uint32 { return 1 }, maxFrame: 1 << 20,
	}, table
}

func query(sql string) []byte { return pg.AppendQuery(nil, sql) }

// ext is one statement in the extended protocol, with its Sync.
func ext(name, sql string) []byte {
	b := pg.AppendParse(nil, name, sql, nil)
	b = append(b, bindFrame("", name)...)
	b = pg.AppendDescribe(b, 'P', "")
	b = pg.AppendExecute(b, "", 0)
	return pg.AppendSync(b)
}

func bindFrame(portal, statement string) []byte {
	body := portal + "\x00" + statement + "\x00\x00\x00\x00\x00\x00\x00"
	return append([]byte{'B', 0, 0, 0, byte(len(body) + 4)}, body...)
}

// types lists the frames' types, with the SQLSTATE of errors and the status of ReadyForQuery.
func types(t testing.TB, out []byte) string {
	t.Helper()
	var s []string
	for len(out) > 0 {
		typ, n, err := pg.Next(out, 1<<20)
		if err != nil || n == 0 {
			t.Fatalf("the client is sent a broken frame: %v, %q left", err, out)
		}
		word := string(typ)
		switch typ {
		case 'E':
			e, err := pg.DecodeError(out[pg.HeaderSize:n])
			if err != nil {
				t.Fatal(err)
			}
			word += "(" + e.Code + ")"
		case 'Z':
			word += string(out[pg.HeaderSize])
		}
		s = append(s, word)
		out = out[n:]
	}
	return strings.Join(s, " ")
}

// keyOf finds a customer_id on the shard.
func keyOf(t testing.TB, e *env, shard string) int {
	hash, _ := rib.MethodByName("hash")
	for k := 1; ; k++ {
		key, err := hash.AppendKey(nil, rib.Value{Type: rib.TypeBigint, Int: int64(k)})
		if err != nil {
			t.Fatal(err)
		}
		if o, _ := e.fib.Load().Lookup(1, key); o.Slot.Shard() == shard {
			return k
		}
	}
}

func TestCoreStories(t *testing.T) {
	e := testEnv(t)
	k1, k2 := keyOf(t, e, "shard_1"), keyOf(t, e, "shard_2")
	read := func(k int) string { return fmt.Sprintf("SELECT item FROM orders WHERE customer_id = %d", k) }
	write := func(k int) string { return fmt.Sprintf("UPDATE orders SET item = 'x' WHERE customer_id = %d", k) }
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for _, c := range []struct {
		name, want string
		client     []byte
		log        []string
	}{
		{"reads go to the replica of the key's shard", "T D C ZI T D C ZI", join(query(read(k1)), query(read(k2))),
			[]string{"shard_1-here " + read(k1), "shard_2-here " + read(k2)}},
		{"BEGIN is the node's until a key comes", "C ZT T D C ZT C ZI", join(query("BEGIN"), query(write(k2)), query("COMMIT")),
			[]string{"shard_2-far parse  BEGIN", "shard_2-far execute BEGIN", "shard_2-far " + write(k2), "shard_2-far COMMIT"}},
		{"nothing runs outside the transaction that could not be opened for it", "C ZT E(22012) ZE E(25P02) ZE C ZI",
			join(query("BEGIN -- fail"), query(write(k2)), query(write(k2)), query("COMMIT")), []string{"shard_2-far parse  BEGIN -- fail", "shard_2-far execute BEGIN -- fail"}},
		{"the same in the extended protocol, and in a pipeline", "C ZT E(22012) ZE E(25P02) ZE C ZI E(22012) ZE",
			join(query("BEGIN -- fail"), ext("", write(k2)), ext("", write(k2)), query("COMMIT"), noSync(ext("", "BEGIN -- fail")), ext("", write(k2))), nil},
		{"an empty transaction is nobody's business", "C ZT C ZI", join(query("BEGIN"), query("COMMIT")), nil},
		{"the same in the extended protocol", "1 2 n C ZT 1 2 n C ZI", join(ext("", "BEGIN"), ext("", "ROLLBACK")), nil},
		{"a whole transaction before one Sync", "1 2 n C 1 2 T D C 1 2 T C ZI", join(
			noSync(ext("", "BEGIN")), noSync(ext("", write(k1))), ext("", "COMMIT")),
			[]string{"shard_1-far parse  BEGIN", "shard_1-far execute BEGIN", "shard_1-far parse  " + write(k1), "shard_1-far execute " + write(k1), "shard_1-far parse  COMMIT", "shard_1-far execute COMMIT"}},
		{"an error ends the segment and not the session", "1 2 T E(22012) ZI 1 2 T D C ZI",
			join(ext("", "SELECT 'fail'"), ext("", "SELECT 1")), nil},
		{"another shard that cannot be had fails the transaction on the server too", "C ZT T D C ZT E(53000) ZE E(25P02) ZE C ZI",
			join(query("BEGIN"), query(write(k1)), query(read(k2)), query(read(k1)), query("COMMIT")), nil},
		{"Parse and Describe with a Flush do not tie the Bind to their shard", "1 t T 2 D C ZI", join(
			pg.AppendFlush(pg.AppendDescribe(pg.AppendParse(nil, "", read(k2), nil), 'S', "")),
			pg.AppendSync(pg.AppendExecute(bindFrame("", ""), "", 0))), nil},
		{"a Flush in the middle keeps the server", "1 2 D C 1 2 D C ZI", join(
			pg.AppendFlush(pg.AppendExecute(append(pg.AppendParse(nil, "", write(k2), nil), bindFrame("", "")...), "", 0)),
			pg.AppendSync(pg.AppendExecute(append(pg.AppendParse(nil, "", write(k2), nil), bindFrame("", "")...), "", 0))), nil},
		{"two shards before one Sync", "E(53000) ZI", join(noSync(ext("", write(k1))), ext("", write(k2))), nil},
		{"messages after an error are discarded up to the Sync", "E(26000) ZI T D C ZI", join(
			bindFrame("", "missing"), pg.AppendFlush(nil), query("SELECT 1"), bindFrame("", "missing"), pg.AppendSync(nil), query("SELECT 1")), nil},
		{"settings come before a segment", "C ZI 1 2 T D C ZI", join(query("SET work_mem = '1MB'"), ext("", write(k2))),
			[]string{"shard_1-here SET work_mem = '1MB'", "shard_2-far SET work_mem = '1MB'\n;", "shard_2-far parse  " + write(k2), "shard_2-far execute " + write(k2)}},
		{"a lone Sync", "ZI", pg.AppendSync(nil), nil},
		{"an empty query", "I ZI", query(""), nil},
		{"a string of statements is one request", "T D C T D C ZI", query("SELECT 1\n;SELECT 2"), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDrive(t, c.client)
			d.run()
			if got := types(t, d.out); got != c.want {
				t.Errorf("got  %s\nwant %s\nlog %q", got, c.want, d.log)
			}
			if c.log != nil && strings.Join(d.log, "\n") != strings.Join(c.log, "\n") {
				t.Errorf("asked\n%s\nwant\n%s", strings.Join(d.log, "\n"), strings.Join(c.log, "\n"))
			}
		})
	}
}

func noSync(b []byte) []byte { return b[:len(b)-pg.HeaderSize] }

// A client may send its first statement with the end of its login, before the session has ever waited for it: what is canceled then has not run
// into a timeout that nobody has set.
func TestCanceledBeforeTheFirstWait(t *testing.T) {
	d := newDrive(t, query("SELECT 'cancel'"))
	d.run()
	if !bytes.Contains(d.out, []byte("Mno\x00")) || bytes.Contains(d.out, []byte("timeout")) {
		t.Errorf("%q", d.out)
	}
}

// One of the shards that a statement needs lacks the table that it reads whole: PostgreSQL would call it missing.
func TestOneOfSeveralShardsLacksACopy(t *testing.T) {
	d := newDrive(t, query("SELECT o.item FROM orders o JOIN countries c ON c.code = o.item"))
	own := *d.table.Owners().Get()
	own.Keyspaces = append(slices.Clone(own.Keyspaces), rib.Keyspace{
		ID: 2, Name: "app.countries", Database: "app", Method: rib.MethodReference, Tables: []rib.KeyedTable{{Schema: "public", Name: "countries"}},
		Ranges: rib.ReferenceRanges([]string{"shard_1"}),
	})
	own.Epoch.Index++
	d.table.Owners().Set(&own)
	compiled, err := fib.Compile(d.table.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	d.core.env.fib.Store(compiled)
	catalog := sqlkey.NewCatalog(&own, map[string]sqlkey.DatabaseRule{"app": {Shard: "shard_1"}}, nil)
	d.core.env.catalog = func(*fib.Table) *sqlkey.Catalog { return catalog }
	d.run()
	if !bytes.Contains(d.out, []byte("C0A000\x00Mshard shard_2 does not have the reference tables")) {
		t.Errorf("%q", d.out)
	}
}

// However the bytes are cut on their way, the session does the same.
func TestCoreSplits(t *testing.T) {
	e := testEnv(t)
	k1, k2 := keyOf(t, e, "shard_1"), keyOf(t, e, "shard_2")
	statements := []string{
		"BEGIN", "COMMIT", "ROLLBACK", "SELECT 1", "SELECT 'fail'", "SELECT * FROM orders", "SAVEPOINT a", "SET work_mem = '1MB'", "",
		fmt.Sprintf("SELECT item FROM orders WHERE customer_id = %d", k1), fmt.Sprintf("UPDATE orders SET item = 'x' WHERE customer_id = %d", k1),
		fmt.Sprintf("SELECT item FROM orders WHERE customer_id = %d", k2), fmt.Sprintf("UPDATE orders SET item = 'fail' WHERE customer_id = %d", k2),
		"SELECT * FROM notes", "INSERT INTO notes VALUES (1)", "SET statement_timeout = 'fail'",
	}
	rapid.Check(t, func(rt *rapid.T) {
		var client []byte
		for range rapid.IntRange(1, 12).Draw(rt, "requests") {
			sql := rapid.SampledFrom(statements).Draw(rt, "sql")
			switch rapid.IntRange(0, 4).Draw(rt, "how") {
			case 0, 1:
				client = append(client, query(sql)...)
			case 2:
				client = append(client, ext("", sql)...)
			case 3:
				client = append(client, noSync(ext("", sql))...)
			case 4:
				name := rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "name")
				client = append(pg.AppendClose(client, 'S', name), ext(name, sql)...)
			}
			if rapid.IntRange(0, 5).Draw(rt, "flush") == 0 {
				client = pg.AppendFlush(client)
			}
		}
		client = pg.AppendSync(client)
		if different := splits(t, client, func(n int) int { return rapid.IntRange(1, n).Draw(rt, "bytes") }); different != "" {
			rt.Fatal(different)
		}
	})
}

// splits runs a session as a whole, and cut into pieces whose lengths cut says. It returns what is different.
func splits(t *testing.T, client []byte, cut func(n int) int) string {
	whole, pieces := newDrive(t, client), newDrive(t, client)
	pieces.cut = cut
	whole.run()
	pieces.run()
	if got, want := types(t, pieces.out), types(t, whole.out); got != want {
		return fmt.Sprintf("cut into pieces: %s\nwhole:           %s\nlog %q", got, want, whole.log)
	}
	if strings.Join(whole.log, "\n") != strings.Join(pieces.log, "\n") {
		return fmt.Sprintf("cut into pieces the backends are asked other things:\n%q\n%q", pieces.log, whole.log)
	}
	return ""
}

// Pieces that once made a difference: an error that came in pieces did not keep what was sent behind it from being asked.
func TestCoreSplitsAtAnError(t *testing.T) {
	client := slices.Concat(ext("", "SELECT * FROM notes"), pg.AppendFlush(ext("", "BEGIN")), ext("", "SET work_mem = '1MB'"), noSync(ext("", "COMMIT")),
		query("SAVEPOINT a"), pg.AppendFlush(query("SET statement_timeout = 'fail'")), noSync(ext("", "SELECT 1")),
		pg.AppendClose(nil, 'S', "a"), ext("a", "SELECT * FROM notes"), pg.AppendSync(nil))
	lengths := []int{63, 1, 33, 7, 1, 117, 15, 15, 5, 12, 116, 4, 7, 2, 2, 4, 16, 1, 11, 2, 12, 12, 1, 93, 50, 27, 1, 2, 1}
	for skipped := range lengths { // what is read how often has changed since, so they are tried at several places
		next := lengths[skipped:]
		different := splits(t, client, func(n int) int {
			if len(next) > 0 {
				n, next = min(n, next[0]), next[1:]
			}
			return n
		})
		if different != "" {
			t.Errorf("without the first %d lengths: %s", skipped, different)
		}
	}
}

// A read is sent to the next backend if the first dies before anything reached the client; a write is not.
func TestCoreLoss(t *testing.T) {
	e := testEnv(t)
	k := keyOf(t, e, "shard_1")
	for _, c := range []struct{ sql, want string }{
		{fmt.Sprintf("SELECT item FROM orders WHERE customer_id = %d", k), "T D C ZI"},
		{fmt.Sprintf("UPDATE orders SET item = 'x' WHERE customer_id = %d", k), "E(08007) ZI"},
	} {
		for name, client := range map[string][]byte{"simple": query(c.sql), "extended": ext("", c.sql)} {
			t.Run(name+" "+c.sql, func(t *testing.T) {
				d := newDrive(t, client)
				lost := false
				c2 := d.core
				for !lost {
					switch c2.next() {
					case readClient:
						n := copy(c2.clientSpace(), d.client)
						c2.clientRead(n)
						d.client = d.client[n:]
					case acquire:
						b := &backend{tx: 'I', prepared: make(map[string]string), conn: &pool.Conn{Backend: c2.hop.Backend, Params: map[string]string{}}}
						d.conns[c2.hop.Backend.Name] = b
						c2.acquired(b.conn)
					case readServer:
						c2.serverLost(errors.New("gone"))
						lost = true
					default:
						t.Fatal("unexpected request")
					}
				}
				d.run()
				want := c.want
				if name == "extended" {
					want = strings.Replace(want, "T D C", "1 2 T D C", 1)
				}
				if got := types(t, d.out); got != want {
					t.Errorf("got %s, want %s; log %q", got, want, d.log)
				}
			})
		}
	}
}

// FuzzCore: whatever a client sends, the session neither panics nor hangs, and sends whole frames to both sides.
func FuzzCore(f *testing.F) {
	f.Add(query("SELECT 1"))
	f.Add(ext("a", "SELECT item FROM orders WHERE customer_id = 1"))
	f.Add(append(query("BEGIN"), ext("", "UPDATE orders SET item = 'x' WHERE customer_id = 2")...))
	f.Add(append(pg.AppendClose(nil, 'S', "a"), pg.AppendFlush(nil)...))
	f.Add([]byte{'F', 0, 0, 0, 14, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, client []byte) {
		if len(client) > 1<<16 {
			return
		}
		d := newDrive(t, client)
		d.run()
		types(t, d.out)
	})
}

// That the server does not say what remains of a session there is no reason to ask for ever, and nobody's error.
func TestCoreAsksOnceWhatRemains(t *testing.T) {
	d := newDrive(t, bytes.Join([][]byte{query("SELECT pg_advisory_lock(1)"), query("SET work_mem = '1MB'"), query("SELECT pg_advisory_unlock(1)"), query("SELECT 1")}, nil))
	d.run()
	if got := types(t, d.out); got != "T D C ZI C ZI T D C ZI T D C ZI" {
		t.Errorf("answers %s", got)
	}
	asked := 0
	for _, l := range d.log {
		if strings.Contains(l, "SELECT (CASE") {
			asked++
		}
	}
	if asked != 1 || d.core.pinned == "" && len(d.core.settings.list) != 1 {
		t.Errorf("asked %d times; pinned %q, settings %v", asked, d.core.pinned, d.core.settings.list)
	}
	if _, ok := d.core.settings.get("work_mem"); !ok {
		t.Error("the session has lost its setting")
	}
}
