package sqlkey

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"rangefinder/rib"
)

// heard notes what Plan.Shards tells.
type heard struct {
	sets  int
	keys  []rib.Key
	spans [][2]rib.Key
}

func (h *heard) Begin() { h.sets++ }

func (h *heard) Key(k rib.Key) error {
	h.keys = append(h.keys, slices.Clone(k))
	return nil
}

func (h *heard) Range(from, to rib.Key) error {
	h.spans = append(h.spans, [2]rib.Key{slices.Clone(from), slices.Clone(to)})
	return nil
}

// binaryArray is an array of bigints as a driver sends it. Zero is NULL.
func binaryArray(values ...int64) []byte {
	out := binary.BigEndian.AppendUint32(nil, uint32(min(len(values), 1)))
	out = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(out, 1), 20)
	if len(values) > 0 {
		out = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(out, uint32(len(values))), 1)
	}
	for _, v := range values {
		if v == 0 {
			out = binary.BigEndian.AppendUint32(out, 1<<32-1)
			continue
		}
		out = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(out, 8), uint64(v))
	}
	return out
}

// TestShardsOfParameters: which keys parameters give, in all forms; what cannot be read is all keys.
func TestShardsOfParameters(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	list := "select * from orders where customer_id = any ($1)"
	list1 := func(s string) args { return args{{val: []byte(s)}} }
	hash := func(n int64) string {
		m, err := rib.MethodByName("hash")
		if err != nil {
			t.Fatal(err)
		}
		k, err := m.AppendKey(nil, rib.Value{Type: rib.TypeBigint, Int: n})
		if err != nil {
			t.Fatal(err)
		}
		return string(k)
	}
	for _, x := range []struct {
		sql  string
		args args
		keys []int64 // of orders
		all  bool
	}{
		{list, list1("{1,2, 3 }"), []int64{1, 2, 3}, false},
		{list, list1(`{"1",NULL,{2,3}}`), []int64{1, 2, 3}, false},
		{list, list1("{}"), nil, false},
		{list, list1(""), nil, true},
		{list, list1("{1"), nil, true},
		{list, list1("{1}x"), nil, true},
		{list, list1("{one}"), nil, true},
		{list, list1("[2:3]={1,2}"), nil, true},
		{list, args{{null: true}}, nil, false},
		{list, nil, nil, true},
		{list, args{{val: []byte("{1,5}"), oid: oidInt4Array}}, []int64{1, 5}, false},
		{list, args{{val: []byte("{1,5}"), oid: oidTextArray}}, nil, true},
		{list, args{{val: []byte("{1,5}"), oid: 1231}}, nil, true}, // numeric[]
		{list + " -- binary", args{{val: binaryArray(4, 0, 9), format: 1, oid: oidInt8Array}}, []int64{4, 9}, false},
		{list, args{{val: binaryArray(), format: 1, oid: oidInt8Array}}, nil, false},
		{list, args{{val: binaryArray(4, 5)[:30], format: 1, oid: oidInt8Array}}, nil, true},
		{list, args{{val: binary.BigEndian.AppendUint32(make([]byte, 0), 1<<31), format: 1, oid: oidInt8Array}}, nil, true},
		{list, args{{val: append(append([]byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 20}, 0xff, 0xff, 0xff, 0xff), 0, 0, 0, 1), format: 1, oid: oidInt8Array}}, nil, true},
		{"select * from orders where customer_id in ($1, $2, 7)", args{{val: []byte("3")}, {null: true}}, []int64{3, 7}, false},
		{"select * from orders where customer_id in ($1, $2)", args{{val: []byte("3")}, {val: []byte("x")}}, []int64{3}, true},
		{"select * from orders where customer_id = any ($1::int[])", list1("{8}"), []int64{8}, false},
		{"select * from orders where customer_id = any ($1) or customer_id = $2", args{{val: []byte("{8}")}, {val: []byte("9")}}, []int64{9, 8}, false},
	} {
		plan := p.Plan(c, appEnv, x.sql)
		if plan.Target != Many || len(plan.Fan.Within) != 1 {
			t.Fatalf("%s: %s", x.sql, tell(plan))
		}
		var h heard
		if _, err := plan.Shards(&h, nil, x.args, true); err != nil {
			t.Errorf("%s %v: %v", x.sql, x.args, err)
			continue
		}
		var keys []string
		for _, k := range h.keys {
			keys = append(keys, string(k))
		}
		all := len(h.spans) == 1 && len(h.spans[0][0]) == 0 && len(h.spans[0][1]) == 0
		var want []string
		for _, n := range x.keys {
			want = append(want, hash(n))
		}
		if all != x.all || !x.all && !slices.Equal(keys, want) || h.sets != 1 {
			t.Errorf("%s %v: keys %x, want %x; all %v", x.sql, x.args, keys, want, all)
		}
	}
}

// TestShardsWithoutAllocating: to find the shards of parameters costs no memory.
func TestShardsWithoutAllocating(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	buf := make(rib.Key, 0, 256)
	for _, sql := range []string{
		"select * from orders where customer_id in ($1, $2)", "select * from days where day between $1 and $2", "select * from orders order by 1",
		"insert into orders (customer_id) values ($1), ($2)",
	} {
		plan := p.Plan(c, appEnv, sql)
		if plan.Target != Many {
			if strings.HasPrefix(sql, "insert") {
				continue
			}
			t.Fatal(tell(plan))
		}
		var values Args = args{{val: []byte("3")}, {val: []byte("9")}}
		var set Shards = quiet{}
		if n := testing.AllocsPerRun(100, func() {
			if p.Plan(c, appEnv, sql) != plan {
				t.Fatal("another plan")
			}
			if _, err := plan.Shards(set, buf, values, true); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", sql, n)
		}
	}
}

type quiet struct{}

func (quiet) Begin()                   {}
func (quiet) Key(rib.Key) error        { return nil }
func (quiet) Range(_, _ rib.Key) error { return nil }
