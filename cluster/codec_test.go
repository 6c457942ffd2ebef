package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"rangefinder/rib"
)

func epochs() *rapid.Generator[rib.Epoch] {
	return rapid.Custom(func(t *rapid.T) rib.Epoch {
		return rib.Epoch{Generation: rapid.Uint32Max(3).Draw(t, "generation"), Index: rapid.Uint64().Draw(t, "index")}
	})
}

// ownerships draws tables that a ledger could hold, and some that only the codec can.
func ownerships() *rapid.Generator[*rib.Ownership] {
	return rapid.Custom(func(t *rapid.T) *rib.Ownership {
		name := rapid.StringN(1, 12, 40)
		o := &rib.Ownership{ClusterID: name.Draw(t, "cluster"), Epoch: epochs().Draw(t, "epoch"), Catalog: rapid.Uint64().Draw(t, "catalog")}
		for range rapid.IntRange(0, 4).Draw(t, "shards") {
			o.Shards = append(o.Shards, rib.Shard{Name: name.Draw(t, "shard"), SystemID: rapid.Uint64().Draw(t, "system"), Epoch: epochs().Draw(t, "shard epoch")})
		}
		for range rapid.IntRange(0, 3).Draw(t, "keyspaces") {
			o.Keyspaces = append(o.Keyspaces, keyspaces(name).Draw(t, "keyspace"))
		}
		return o
	})
}

func keyspaces(name *rapid.Generator[string]) *rapid.Generator[rib.Keyspace] {
	return rapid.Custom(func(t *rapid.T) rib.Keyspace {
		ks := rib.Keyspace{
			ID: rib.KeyspaceID(rapid.Uint32().Draw(t, "id")), Name: name.Draw(t, "name"), Database: name.Draw(t, "database"),
			Method: rapid.SampledFrom([]string{"hash", "range"}).Draw(t, "method"),
		}
		for range rapid.IntRange(0, 3).Draw(t, "types") {
			ks.Types = append(ks.Types, rapid.SampledFrom([]rib.Type{rib.TypeBigint, rib.TypeText, rib.TypeUUID, rib.TypeSmallint, rib.TypeBytea, rib.TypeDate, rib.TypeTimestamptz}).Draw(t, "type"))
		}
		for range rapid.IntRange(0, 3).Draw(t, "tables") {
			ks.Tables = append(ks.Tables, rib.KeyedTable{Schema: name.Draw(t, "schema"), Name: name.Draw(t, "table"),
				Columns: rapid.SliceOfN(name, 1, 3).Draw(t, "columns")})
		}
		// Split keys of one width, or of several.
		most := rapid.SampledFrom([]int{8, 20}).Draw(t, "width")
		least := rapid.SampledFrom([]int{1, most}).Draw(t, "least")
		keys := rapid.SliceOfNDistinct(rapid.SliceOfN(rapid.Byte(), least, most), 0, 40, func(b []byte) string { return string(b) }).Draw(t, "splits")
		slices.SortFunc(keys, bytes.Compare)
		shards := rapid.SliceOfN(name, 1, 5).Draw(t, "owners")
		ks.Ranges = make([]rib.Range, len(keys)+1)
		for i := range ks.Ranges {
			ks.Ranges[i].Shard = rapid.SampledFrom(shards).Draw(t, "owner")
			ks.Ranges[i].Epoch = epochs().Draw(t, "range epoch")
			if i > 0 {
				ks.Ranges[i].From, ks.Ranges[i-1].To = keys[i-1], keys[i-1]
			}
		}
		return ks
	})
}

// TestOwnershipRoundTrip: what is decoded is what was encoded, and encoding is a function of the content.
func TestOwnershipRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := ownerships().Draw(t, "table")
		b, err := EncodeOwnership([]byte("before"), o)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(b, []byte("before")) {
			t.Fatal("it did not append")
		}
		b = b[len("before"):]
		back, err := DecodeOwnership(b)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(o, back) {
			t.Fatalf("encoded %+v\ndecoded %+v", o, back)
		}
		again, err := EncodeOwnership(nil, back)
		if err != nil || !bytes.Equal(b, again) {
			t.Fatalf("a second encoding differs (%v)", err)
		}
		for i := range b { // decoded tables outlive the buffer they came in
			b[i] = 0xAA
		}
		if !reflect.DeepEqual(o, back) {
			t.Fatal("the decoded table shares memory with its encoding")
		}
	})
}

// TestDamageIsNoticed: no single changed byte and no cut goes unnoticed.
func TestDamageIsNoticed(t *testing.T) {
	b := sampleEncoding(t)
	for i := range b {
		damaged := bytes.Clone(b)
		damaged[i] ^= 0x40
		if _, err := DecodeOwnership(damaged); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
		if _, err := DecodeOwnership(b[:i]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	if _, err := DecodeOwnership(append(bytes.Clone(b), 0)); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("a byte more: %v", err)
	}
}

// TestEncodeRefusesHoles: the form cannot say that two ranges do not meet, so it must not try.
func TestEncodeRefusesHoles(t *testing.T) {
	for name, ranges := range map[string][]rib.Range{
		"gap":         {{To: rib.Key{1}, Shard: "a"}, {From: rib.Key{2}, Shard: "b"}},
		"overlap":     {{To: rib.Key{3}, Shard: "a"}, {From: rib.Key{2}, Shard: "b"}},
		"closed low":  {{From: rib.Key{1}, Shard: "a"}},
		"closed high": {{To: rib.Key{1}, Shard: "a"}},
		"open middle": {{Shard: "a"}, {Shard: "b"}},
	} {
		if _, err := EncodeOwnership(nil, &rib.Ownership{Keyspaces: []rib.Keyspace{{Name: "k", Ranges: ranges}}}); err == nil {
			t.Errorf("%s: encoded", name)
		}
	}
}

// TestCountsAreBelieved only as far as bytes follow: a small input cannot ask for much memory.
func TestCountsAreBounded(t *testing.T) {
	for name, body := range map[string][]byte{
		"shards":    binary.AppendUvarint(append(appendEpoch(appendString(nil, "c"), rib.Epoch{}), 0), 1<<40),
		"keyspaces": binary.AppendUvarint(append(appendEpoch(appendString(nil, "c"), rib.Epoch{}), 0, 0), 1<<40),
		"string":    binary.AppendUvarint(nil, 1<<63),
	} {
		b := append([]byte(magicOwnership+"\x00\x00\x00\x00"), body...)
		seal(b)
		allocated := testing.AllocsPerRun(10, func() {
			if _, err := DecodeOwnership(b); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s: %v", name, err)
			}
		})
		if allocated > 20 {
			t.Errorf("%s: %v allocations", name, allocated)
		}
	}
}

func sampleEncoding(t testing.TB) []byte {
	b, err := EncodeOwnership(nil, sampleOwnership(3, 4))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sampleOwnership is a valid table of one range keyspace with n ranges over some shards.
func sampleOwnership(shards, n int) *rib.Ownership {
	o := &rib.Ownership{ClusterID: "c1", Epoch: rib.Epoch{Generation: 1, Index: 77}, Catalog: 3}
	for i := range shards {
		o.Shards = append(o.Shards, rib.Shard{Name: fmt.Sprintf("shard_%d", i+1), SystemID: uint64(7000 + i), Epoch: rib.Epoch{Generation: 1, Index: 5}})
	}
	ks := rib.Keyspace{ID: 1, Name: "app.orders", Database: "app", Method: "range", Types: []rib.Type{rib.TypeBigint},
		Tables: []rib.KeyedTable{{Schema: "public", Name: "orders", Columns: []string{"customer_id"}}}, Ranges: make([]rib.Range, n)}
	for i := range ks.Ranges {
		r := &ks.Ranges[i]
		r.Shard, r.Epoch = o.Shards[i%shards].Name, rib.Epoch{Generation: 1, Index: uint64(i / 10)}
		if i > 0 {
			r.From = binary.BigEndian.AppendUint64(nil, uint64(i)<<20|1<<63)
			ks.Ranges[i-1].To = r.From
		}
	}
	o.Keyspaces = []rib.Keyspace{ks}
	return o
}

// FuzzDecodeOwnership: any bytes are a table or an error; a table that decodes encodes to something that decodes to the same.
func FuzzDecodeOwnership(f *testing.F) {
	f.Add([]byte{})
	f.Add(sampleEncoding(f)[headSize:])
	empty, _ := EncodeOwnership(nil, &rib.Ownership{})
	f.Add(empty[headSize:])
	f.Fuzz(func(t *testing.T, body []byte) {
		b := append([]byte(magicOwnership+"\x00\x00\x00\x00"), body...)
		seal(b) // else every mutation dies at the checksum
		o, err := DecodeOwnership(b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		again, err := EncodeOwnership(nil, o)
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeOwnership(again)
		if err != nil || !reflect.DeepEqual(o, back) {
			t.Fatalf("it does not come back (%v)", err)
		}
	})
}

func BenchmarkEncodeOwnership(b *testing.B) {
	o := sampleOwnership(16, 1_000_000)
	var buf []byte
	for b.Loop() {
		var err error
		if buf, err = EncodeOwnership(buf[:0], o); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(len(buf)))
}

func BenchmarkDecodeOwnership(b *testing.B) {
	encoded, err := EncodeOwnership(nil, sampleOwnership(16, 1_000_000))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(encoded)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeOwnership(encoded); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkValidate(b *testing.B) {
	o := sampleOwnership(16, 1_000_000)
	for b.Loop() {
		if err := o.Keyspaces[0].Validate(); err != nil {
			b.Fatal(err)
		}
	}
}
