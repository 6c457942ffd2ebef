package fib_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"rangefinder/fib"
	"rangefinder/rib"
)

// world is a rib.Table with three shards, each a primary in fra and a replica in fra, iad and syd, all up, and a hash
// keyspace over the shards with n ranges.
type world struct {
	*rib.Table
	seq   uint64
	epoch uint64
}

func newWorld(n int) *world {
	w := &world{Table: rib.NewTable(rib.Member{Name: "me", Region: "fra"})}
	now := time.Unix(1_700_000_000, 0)
	for region, d := range map[string]time.Duration{"fra": 0, "iad": 88 * time.Millisecond, "syd": 280 * time.Millisecond} {
		w.Health().Distance(region, d, now)
	}
	w.own(n)
	for _, shard := range []string{"shard_1", "shard_2", "shard_3"} {
		for _, b := range []string{"fra_primary", "fra", "iad", "syd"} {
			region, _, primary := strings.Cut(b, "_")
			w.announce(shard+"_"+b, shard, region)
			role := rib.Replica
			if primary {
				role = rib.Primary
			}
			w.observe(shard+"_"+b, rib.Up, role)
		}
	}
	return w
}

// own makes the ledger's next epoch with n ranges.
func (w *world) own(n int) {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("shard_%d", i%3+1)
	}
	w.epoch++
	w.Owners().Set(&rib.Ownership{
		Epoch:     rib.Epoch{Index: w.epoch},
		Keyspaces: []rib.Keyspace{{ID: 1, Name: "app.orders", Method: "hash", Types: []rib.Type{rib.TypeBigint}, Ranges: rib.EvenRanges(names)}},
		Shards:    []rib.Shard{{Name: "shard_1", SystemID: 7}, {Name: "shard_2", SystemID: 7}, {Name: "shard_3", SystemID: 7}, {Name: "shard_4", SystemID: 7}},
	})
}

func (w *world) announce(backend, shard, region string) {
	w.seq++
	w.Health().Announce(rib.Announcement{
		Observer: "me", Stamp: rib.Stamp{Incarnation: 1, Seq: w.seq},
		Backend: rib.Backend{Name: backend, Shard: shard, Region: region, Addr: backend + ":5432", SystemID: 7},
	})
}

func (w *world) observe(backend string, state rib.State, role rib.Role) {
	w.seq++
	w.Health().Observe(rib.Route{
		Backend: backend, Observer: "me", Stamp: rib.Stamp{Incarnation: 1, Seq: w.seq},
		State: state, Role: role, Timeline: 1,
	})
}

func compile(t testing.TB, w *world) *fib.Table {
	t.Helper()
	table, err := fib.Compile(w.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func names(hops []fib.NextHop) (s []string) {
	for _, h := range hops {
		s = append(s, h.Backend.Name)
	}
	return s
}

func TestEmptyHandle(t *testing.T) {
	var h fib.Handle
	table := h.Load()
	if _, ok := table.Lookup(1, rib.Key("x")); ok || table.Slot("x") != nil || len(table.Slots()) != 0 || table.Version() != 0 {
		t.Error("an empty table knows something")
	}
	if table.Ownership() == nil {
		t.Error("an empty table has no ownership")
	}
	if e := table.Explain(&rib.Keyspace{ID: 3, Name: "k"}, nil, true); e.Problem != "keyspace k is not in the table" || e.Intent != "write" {
		t.Errorf("%+v", e)
	}
}

func TestTable(t *testing.T) {
	w := newWorld(16)
	table := compile(t, w)
	if n := len(table.Slots()); n != 4 || table.Slots()[3].Shard() != "shard_4" || table.Slot("shard_2") != table.Slots()[1] || table.Slot("shard_9") != nil {
		t.Errorf("slots %v", table.Slots())
	}
	if table.Version() != w.Snapshot().Version || table.Ownership() != w.Owners().Get() {
		t.Error("the table is not of the snapshot")
	}
	// Every key goes to the slot of the shard whose range holds it.
	k := &table.Ownership().Keyspaces[0]
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 1000 {
		key := rib.Key(fmt.Sprintf("%c%c%06d", rnd.IntN(256), rnd.IntN(256), 0)[:8])
		o, ok := table.Lookup(1, key)
		if want := &k.Ranges[k.Owner(key)]; !ok || o.Range != want || o.Slot.Shard() != want.Shard {
			t.Fatalf("key %x: %+v, want %+v", key, o, want)
		}
	}
	c := table.Slot("shard_1").Candidates()
	if got := fmt.Sprint(names(c.Reads)); got != "[shard_1_fra shard_1_fra_primary shard_1_iad shard_1_syd]" || c.ReadsNear != 2 {
		t.Errorf("reads %s, near %d", got, c.ReadsNear)
	}
	if got := fmt.Sprint(names(c.Writes)); got != "[shard_1_fra_primary]" || c.WritesReason != "" {
		t.Errorf("writes %s %q", got, c.WritesReason)
	}
	if c := table.Slot("shard_4").Candidates(); len(c.Reads) != 0 || len(c.Writes) != 0 || c.WritesReason != "shard shard_4 has no backend" || c.PickRead(7) != -1 {
		t.Errorf("a shard without backends: %+v", c)
	}
}

func TestLargeKeyspaceIDs(t *testing.T) {
	w := newWorld(16)
	o := *w.Owners().Get()
	o.Epoch.Index++
	big := o.Keyspaces[0]
	big.ID, big.Name = 1<<32-1, "app.big"
	o.Keyspaces = append(o.Keyspaces[:1:1], big)
	w.Owners().Set(&o)
	table := compile(t, w)
	for id, want := range map[rib.KeyspaceID]bool{0: false, 1: true, 2: false, 1<<32 - 2: false, 1<<32 - 1: true} {
		if _, ok := table.Lookup(id, rib.Key("01234567")); ok != want {
			t.Errorf("keyspace %d: %v", id, ok)
		}
	}
}

// What does not hold together does not compile, and says why.
func TestCompileRefuses(t *testing.T) {
	w := newWorld(16)
	good := w.Owners().Get().Keyspaces[0]
	for _, c := range []struct {
		change func(*rib.Keyspace)
		want   string
	}{
		{func(k *rib.Keyspace) { k.Ranges = k.Ranges[1:] }, "leaves a gap before it"},
		{func(k *rib.Keyspace) { k.Ranges = nil }, "it has no ranges"},
		{func(k *rib.Keyspace) { k.Method = "magic" }, "unknown sharding method"},
		{func(k *rib.Keyspace) { k.ID = 1 }, "has the ID 1 of another"},
	} {
		o := *w.Owners().Get()
		o.Epoch.Index++
		k := good
		k.ID, k.Name = 2, "app.bad"
		c.change(&k)
		o.Keyspaces = []rib.Keyspace{good, k}
		w.Owners().Set(&o)
		if _, err := fib.Compile(w.Snapshot()); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "app.bad") {
			t.Errorf("error %v, want %q", err, c.want)
		}
	}
}

// Compiling twice gives the same answers, and leaves the snapshot as it was.
func TestCompileIsPure(t *testing.T) {
	w := newWorld(100)
	before, err := json.Marshal(w.Snapshot().Backends)
	if err != nil {
		t.Fatal(err)
	}
	a, b := compile(t, w), compile(t, w)
	for _, write := range []bool{false, true} {
		for _, s := range a.Slots() {
			x, y := fmt.Sprint(a.ExplainShard(s.Shard(), "", write)), fmt.Sprint(b.ExplainShard(s.Shard(), "", write))
			if x != y {
				t.Errorf("%s\n%s", x, y)
			}
		}
	}
	if after, err := json.Marshal(w.Snapshot().Backends); err != nil || string(after) != string(before) {
		t.Errorf("the snapshot changed (%v)", err)
	}
}

// A primary that is ejected from reads is well for writes: nobody waits for another one.
func TestEjectedPrimaryTakesWrites(t *testing.T) {
	w := newWorld(3)
	w.Local().Try(map[string]rib.Trial{"shard_1_fra_primary": {Ejected: "slow"}})
	c := compile(t, w).Slot("shard_1").Candidates()
	if len(c.Writes) != 1 || !c.Writes[0].Healthy || c.WritesReason != "" {
		t.Errorf("writes %+v, %q", c.Writes, c.WritesReason)
	}
	if got := fmt.Sprint(names(c.Reads)); strings.Contains(got, "primary") {
		t.Errorf("reads %s", got)
	}
	w.observe("shard_1_fra_primary", rib.Down, rib.Primary)
	if c := compile(t, w).Slot("shard_1").Candidates(); c.Writes[0].Healthy || c.WritesReason == "" {
		t.Errorf("it is down: writes %+v, %q", c.Writes, c.WritesReason)
	}
}

// A backend that warms up leaves its turns to those as close; alone it takes them all.
func TestPickReadHolds(t *testing.T) {
	w := newWorld(3)
	rnd := rand.New(rand.NewPCG(5, 6))
	share := func(held uint8, inFlight int32) float64 {
		w.Local().Try(map[string]rib.Trial{"shard_1_fra": {Held: held}})
		c := compile(t, w).Slot("shard_1").Candidates()
		if c.Reads[0].Backend.Name != "shard_1_fra" || c.ReadsNear != 2 {
			t.Fatalf("reads %v, near %d", names(c.Reads), c.ReadsNear)
		}
		c.Reads[1].Gauge.InFlight.Store(inFlight)
		defer c.Reads[1].Gauge.InFlight.Store(0)
		const n = 100_000
		count := 0
		for range n {
			if c.PickRead(rnd.Uint32()) == 0 {
				count++
			}
		}
		return float64(count) / n
	}
	for _, test := range []struct {
		held     uint8
		inFlight int32
		want     float64
	}{{0, 0, 0.5}, {90, 0, 0.05}, {50, 0, 0.25}, {10, 0, 0.45}, {0, 9, 1}, {90, 9, 0.1}} {
		if got := share(test.held, test.inFlight); got < test.want-0.01 || got > test.want+0.01 {
			t.Errorf("held by %d %%, the other with %d in flight: it gets %.3f of the reads, want %.2f", test.held, test.inFlight, got, test.want)
		}
	}
	w.Local().Try(map[string]rib.Trial{"shard_1_fra": {Held: 90}})
	w.observe("shard_1_fra_primary", rib.Down, rib.Primary)
	c := compile(t, w).Slot("shard_1").Candidates()
	for range 100 {
		if i := c.PickRead(rnd.Uint32()); i != 0 || c.ReadsNear != 1 {
			t.Fatalf("alone it is not taken: %d, near %d", i, c.ReadsNear)
		}
	}
}

// Of two near backends the one with less in flight is chosen, and over many choices each gets its share.
func TestPickRead(t *testing.T) {
	gauges := make([]*rib.Gauge, 5)
	c := &fib.Candidates{ReadsNear: 4}
	for i := range gauges {
		gauges[i] = new(rib.Gauge)
		c.Reads = append(c.Reads, fib.NextHop{Gauge: gauges[i]})
	}
	rnd, count := rand.New(rand.NewPCG(1, 1)), [5]int{}
	for range 40_000 {
		count[c.PickRead(rnd.Uint32())]++
	}
	for i, n := range count[:4] {
		if n < 9_000 || n > 11_000 {
			t.Errorf("idle: number %d is chosen %d times of 40000", i, n)
		}
	}
	gauges[2].InFlight.Store(9)
	count = [5]int{}
	for range 40_000 {
		count[c.PickRead(rnd.Uint32())]++
	}
	if count[2] != 0 || count[4] != 0 {
		t.Errorf("the busiest of the near is chosen %d times, the far one %d times", count[2], count[4])
	}
	c.ReadsNear = 1
	if i := c.PickRead(rnd.Uint32()); i != 0 {
		t.Errorf("one near: %d", i)
	}
}

// A dispatch allocates nothing, whatever the index.
func TestDispatchDoesNotAllocate(t *testing.T) {
	for _, n := range []int{16, 1000} {
		w := newWorld(n)
		var h fib.Handle
		h.Store(compile(t, w))
		m, err := rib.MethodByName("hash")
		if err != nil {
			t.Fatal(err)
		}
		buffer, i := make(rib.Key, 0, 16), int64(0)
		if allocs := testing.AllocsPerRun(1000, func() {
			i++
			key, err := m.AppendKey(buffer, rib.Value{Type: rib.TypeBigint, Int: i})
			o, ok := h.Load().Lookup(1, key)
			if err != nil || !ok || o.Slot.Candidates().PickRead(uint32(i)) < 0 {
				t.Fatal("no route")
			}
		}); allocs != 0 {
			t.Errorf("%d ranges: %v allocations", n, allocs)
		}
	}
}

func TestExplanationIsJSON(t *testing.T) {
	w := newWorld(3)
	w.Health().Evidence("shard_1_iad", true, "connection refused")
	table := compile(t, w)
	b, err := json.Marshal(table.Explain(&table.Ownership().Keyspaces[0], rib.Key("\x10\x00\x00\x00\x00\x00\x00\x00"), false))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"keyspace":"app.orders","key":"0x1000000000000000","range":"..0x5555555555555555","epoch":"0/0","shard":"shard_1","intent":"read"`,
		`{"backend":"shard_1_fra","addr":"shard_1_fra:5432","region":"fra","role":"replica","state":"up","cost_ms":0,"in_flight":0,"order":1,"near":true,"healthy":true,"reason":"closest: 0.0 ms"}`,
		`"order":0,"near":false,"healthy":false,"reason":"left out: this node cannot reach it, others can: connection refused"`,
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%s\nlacks %s", b, want)
		}
	}
}
