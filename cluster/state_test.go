package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"rangefinder/rib"
)

// machine drives a state as Raft does.
type machine struct {
	t     testing.TB
	st    *state
	index uint64
}

func newMachine(t testing.TB, shards ...string) *machine {
	m := &machine{t: t, st: newState()}
	m.must(m.do(&command{Kind: kindInit, Request: "i", Init: &initCommand{ClusterID: "c1", Generation: 1}}))
	for i, name := range shards {
		m.must(m.do(&command{Kind: kindShard, Shard: &shardCommand{Name: name, SystemID: uint64(100 + i)}}))
	}
	return m
}

func (m *machine) do(c *command) result {
	m.t.Helper()
	data, err := c.encode()
	if err != nil {
		m.t.Fatal(err)
	}
	back, err := decodeCommand(data)
	if err != nil {
		m.t.Fatal(err)
	}
	m.index++
	r := m.st.apply(m.index, back, data)
	if r.keyspace != nil { // as a ledger's caller gets it
		r.keyspace = m.st.now.table().Keyspace(r.keyspace.ID)
	}
	return r
}

func (m *machine) must(r result) result {
	m.t.Helper()
	if r.err != nil {
		m.t.Fatal(r.err)
	}
	return r
}

func (m *machine) create(spec KeyspaceSpec) result {
	m.t.Helper()
	ks, err := spec.Keyspace()
	if err != nil {
		m.t.Fatal(err)
	}
	encoded, err := encodeKeyspace(ks)
	if err != nil {
		m.t.Fatal(err)
	}
	return m.do(&command{Kind: keyspaceKind(ks), Request: spec.RequestID, Created: encoded})
}

func hashSpec(name, table string, shards ...string) KeyspaceSpec {
	return KeyspaceSpec{Name: name, Database: "app", Method: "hash", Types: []string{"bigint"},
		Tables: []TableSpec{{Schema: "public", Name: table, Columns: []string{"customer_id"}}}, Shards: shards}
}

// TestNewerKeyspacesStopOlderNodes: a node that does not know a type would refuse the keyspace and go on with another table.
func TestNewerKeyspacesStopOlderNodes(t *testing.T) {
	for typ, want := range map[string]string{"bigint": kindKeyspace, "uuid": kindKeyspace, "smallint": kindKeyspace2, "bytea": kindKeyspace2, "date": kindKeyspace2, "timestamptz": kindKeyspace2} {
		m := newMachine(t, "a", "b")
		spec := hashSpec("k", "t", "a", "b")
		spec.Types[0] = typ
		ks, err := spec.Keyspace()
		if err != nil {
			t.Fatal(err)
		}
		if got := keyspaceKind(ks); got != want {
			t.Errorf("%s: kind %s, want %s", typ, got, want)
		}
		if r := m.must(m.create(spec)); r.keyspace.Types[0].String() != typ {
			t.Errorf("%s became %s", typ, r.keyspace.Types[0])
		}
	}
}

func TestCreateGivesIDsAndEpochs(t *testing.T) {
	m := newMachine(t, "shard_1", "shard_2", "shard_3")
	before := m.st.now.table()
	r := m.must(m.create(hashSpec("app.orders", "orders", "shard_1", "shard_2", "shard_3")))
	want := rib.Epoch{Generation: 1, Index: 5}
	if r.keyspace.ID != 1 || r.epoch != want || m.st.now.table().Epoch != want || m.st.now.table().Catalog != before.Catalog+1 {
		t.Fatalf("id %d, epoch %v, catalog %d", r.keyspace.ID, r.epoch, m.st.now.table().Catalog)
	}
	if got := r.keyspace.Ranges; len(got) != 3 || got[0].Shard != "shard_1" || got[2].Shard != "shard_3" || got[1].Epoch != want {
		t.Fatalf("ranges %+v", got)
	}
	if len(before.Keyspaces) != 0 {
		t.Fatal("a table that readers hold was changed")
	}
	if r := m.must(m.create(hashSpec("app.lines", "lines", "shard_1"))); r.keyspace.ID != 2 {
		t.Fatalf("second id %d", r.keyspace.ID)
	}
	if names := []string{m.st.now.table().Keyspaces[0].Name, m.st.now.table().Keyspaces[1].Name}; !slices.Equal(names, []string{"app.orders", "app.lines"}) {
		t.Fatalf("keyspaces %v", names)
	}
}

// TestRefusedCommandsChangeNothing: each is refused for its reason, and table, ids and memory stay as they were.
func TestRefusedCommandsChangeNothing(t *testing.T) {
	m := newMachine(t, "shard_1", "shard_2")
	first := hashSpec("app.orders", "orders", "shard_1", "shard_2")
	first.RequestID = "r1"
	m.must(m.create(first))
	reused := hashSpec("app.other", "other", "shard_1")
	reused.RequestID = "r1"
	otherDatabase := hashSpec("other.orders", "orders", "shard_1")
	otherDatabase.Database = "other"
	for name, c := range map[string]struct {
		run    func() result
		reason error
		text   string
	}{
		"name":        {func() result { return m.create(hashSpec("app.orders", "x", "shard_1")) }, ErrNameTaken, "named app.orders"},
		"table":       {func() result { return m.create(hashSpec("app.x", "orders", "shard_1")) }, ErrTableTaken, "table public.orders of database app belongs to keyspace app.orders"},
		"shard":       {func() result { return m.create(hashSpec("app.x", "x", "shard_9")) }, ErrUnknownShard, "shard_9 is not known"},
		"request":     {func() result { return m.create(reused) }, ErrRequestReused, `"r1"`},
		"other id":    {func() result { return m.record("shard_1", 999) }, ErrShardConflict, "999"},
		"id of other": {func() result { return m.record("shard_3", 100) }, ErrShardConflict, "shard_1"},
		"no id":       {func() result { return m.record("shard_3", 0) }, ErrInvalid, "system identifier is 0"},
		"no name":     {func() result { return m.record("", 5) }, ErrInvalid, "name"},
		"cluster":     {func() result { return m.do(&command{Kind: kindInit, Init: &initCommand{ClusterID: "c2"}}) }, ErrOtherCluster, "c1"},
		"bytes":       {func() result { return m.do(&command{Kind: kindKeyspace, Created: []byte("noise")}) }, ErrInvalid, ""},
	} {
		own, next, remembered := m.st.now.table(), m.st.nextID, len(m.st.order)
		r := c.run()
		var rejected *RejectedError
		if !errors.Is(r.err, c.reason) || !errors.As(r.err, &rejected) || !strings.Contains(r.err.Error(), c.text) {
			t.Errorf("%s: %v", name, r.err)
		}
		if r.changed || m.st.now.table() != own || m.st.nextID != next || len(m.st.order) != remembered {
			t.Errorf("%s: it was refused and changed something", name)
		}
	}
	m.must(m.create(otherDatabase)) // the same table name elsewhere is another table
}

func (m *machine) record(name string, id uint64) result {
	m.t.Helper()
	return m.do(&command{Kind: kindShard, Shard: &shardCommand{Name: name, SystemID: id}})
}

func TestRepeatedRequestIsAppliedOnce(t *testing.T) {
	m := newMachine(t, "shard_1")
	spec := hashSpec("app.orders", "orders", "shard_1")
	spec.RequestID = "r1"
	first := m.must(m.create(spec))
	own := m.st.now.table()
	again := m.must(m.create(spec))
	if again.changed || again.epoch != first.epoch || again.keyspace.ID != first.keyspace.ID || m.st.now.table() != own {
		t.Fatalf("repeated: %+v", again)
	}
	if r := m.must(m.record("shard_1", 100)); r.changed || m.st.now.table() != own {
		t.Fatal("a shard recorded again changed the table")
	}
}

func TestRequestsAreForgotten(t *testing.T) {
	m := newMachine(t, "shard_1")
	for i := range maxRequests + 10 {
		m.st.remember(fmt.Sprint(i), request{})
	}
	if len(m.st.order) != maxRequests || len(m.st.requests) != maxRequests {
		t.Fatalf("%d and %d remembered", len(m.st.order), len(m.st.requests))
	}
	if _, ok := m.st.requests["9"]; ok {
		t.Fatal("the oldest is still there")
	}
	if _, ok := m.st.requests[fmt.Sprint(maxRequests+9)]; !ok {
		t.Fatal("the newest is gone")
	}
}

func TestShardsStaySorted(t *testing.T) {
	m := newMachine(t, "b", "c", "a")
	var names []string
	for _, s := range m.st.now.table().Shards {
		names = append(names, s.Name)
	}
	if !slices.Equal(names, []string{"a", "b", "c"}) {
		t.Fatalf("shards %v", names)
	}
}

func TestNewerCommandIsNotGuessed(t *testing.T) {
	for _, data := range []string{"", "\x02{}", "\x01{", "\x01{\"kind\":\"split\",\"request\":\"r\"}", "\x01{\"kind\":\"shard\",\"request\":\"r\",\"shard\":{\"name\":\"a\",\"system_id\":1,\"weight\":2}}", "\x01{\"kind\":\"shard\"}"} {
		if _, err := decodeCommand([]byte(data)); !errors.Is(err, errStalled) {
			t.Errorf("%q: %v", data, err)
		}
	}
}

// TestStatesAgree: two machines that see the same commands, one of them through a snapshot at a random point, end alike.
func TestStatesAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var log [][]byte
		log = append(log, encodeFor(t, &command{Kind: kindInit, Request: "i", Init: &initCommand{ClusterID: "c1", Generation: 1}}))
		for i := range rapid.IntRange(1, 30).Draw(t, "commands") {
			shard := rapid.SampledFrom([]string{"a", "b", "c"})
			request := rapid.SampledFrom([]string{"", "r1", "r2", fmt.Sprint("n", i)}).Draw(t, "request")
			if rapid.Bool().Draw(t, "is shard") {
				log = append(log, encodeFor(t, &command{Kind: kindShard, Request: request, Shard: &shardCommand{Name: shard.Draw(t, "shard"), SystemID: rapid.Uint64Range(0, 4).Draw(t, "id")}}))
				continue
			}
			name := rapid.SampledFrom([]string{"k1", "k2", "k3"}).Draw(t, "name")
			spec := hashSpec(name, name+rapid.SampledFrom([]string{"", "x"}).Draw(t, "table"), shard.Draw(t, "owner"))
			ks, err := spec.Keyspace()
			if err != nil {
				t.Fatal(err)
			}
			encoded, err := encodeKeyspace(ks)
			if err != nil {
				t.Fatal(err)
			}
			log = append(log, encodeFor(t, &command{Kind: kindKeyspace, Request: request, Created: encoded}))
		}
		whole, part := newState(), newState()
		at := rapid.IntRange(0, len(log)-1).Draw(t, "snapshot at")
		for i, data := range log {
			c, err := decodeCommand(data)
			if err != nil {
				t.Fatal(err)
			}
			r := whole.apply(uint64(i+1), c, data)
			if s := part.apply(uint64(i+1), c, data); (r.err == nil) != (s.err == nil) || r.epoch != s.epoch {
				t.Fatalf("command %d: %v and %v", i, r, s)
			}
			for j := range whole.now.table().Keyspaces {
				if err := whole.now.table().Keyspaces[j].Validate(); err != nil {
					t.Fatal(err)
				}
			}
			if i == at {
				b, err := part.copyForSnapshot().encode()
				if err != nil {
					t.Fatal(err)
				}
				if part, err = decodeState(b); err != nil {
					t.Fatal(err)
				}
			}
		}
		alike(t, whole, part)
	})
}

// alike checks that two states are the same, byte by byte.
func alike(t *rapid.T, a, b *state) {
	one, err := a.copyForSnapshot().encode()
	other, err2 := b.copyForSnapshot().encode()
	if err != nil || err2 != nil || !bytes.Equal(one, other) || !reflect.DeepEqual(a.now.table(), b.now.table()) {
		t.Fatalf("the states differ (%v, %v)\n%+v\n%+v", err, err2, a.now.table(), b.now.table())
	}
}

func encodeFor(t *rapid.T, c *command) []byte {
	data, err := c.encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// bigState is a state with a keyspace of a million ranges.
func bigState() *state {
	s := newState()
	s.generation, s.nextID = 1, 2
	s.now = newDraft(sampleOwnership(16, 1_000_000))
	return s
}

func BenchmarkApplyAtAMillionRanges(b *testing.B) {
	s := bigState()
	spec := hashSpec("app.small", "small", "shard_1", "shard_2")
	ks, _ := spec.Keyspace()
	encoded, _ := encodeKeyspace(ks)
	c := &command{Kind: kindKeyspace, Created: encoded}
	data, _ := c.encode()
	now := s.now
	for b.Loop() {
		s.now = now
		if r := s.apply(100, c, data); r.err != nil {
			b.Fatal(r.err)
		}
	}
}

func BenchmarkSnapshotAMillionRanges(b *testing.B) {
	s := bigState()
	for b.Loop() {
		if _, err := s.copyForSnapshot().encode(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRestoreAMillionRanges(b *testing.B) {
	encoded, err := bigState().encode()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := decodeState(encoded); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSplitAtAMillionRanges(b *testing.B) {
	s := bigState()
	key, _, err := s.now.table().Keyspaces[0].ParseInterval("12345678..")
	if err != nil {
		b.Fatal(err)
	}
	now := s.now
	for i := uint64(100); b.Loop(); i++ {
		s.now = now
		c := &command{Kind: kindSplit, Range: &rangeCommand{Keyspace: "app.orders", At: [][]byte{key}}}
		data, _ := c.encode()
		if r := s.apply(i, c, data); r.err != nil {
			b.Fatal(r.err)
		}
	}
}

// What readers get of a state, made beside the commands.
func BenchmarkTableOfAMillionRanges(b *testing.B) {
	s := bigState()
	key, _, err := s.now.table().Keyspaces[0].ParseInterval("12345678..")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		next := s.now.next()
		_, p, err := next.edit("app.orders")
		if err != nil {
			b.Fatal(err)
		}
		*p = (*p).cut(key)
		if n := len(next.table().Keyspaces[0].Ranges); n != 1_000_001 {
			b.Fatal(n)
		}
	}
}
