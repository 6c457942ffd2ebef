package main

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"
)

// The whole benchmark on small tables: each contestant's answers are compared with the keyspace's before it is measured.
func TestFIBBench(t *testing.T) {
	var out bytes.Buffer
	b := &fibBench{out: &out, sizes: []int{16, 700}, rounds: 1, batch: time.Millisecond, json: true}
	if err := b.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(b.rows) != 2*2*2*2 {
		t.Errorf("%d rows", len(b.rows))
	}
	lines := bytes.Split(bytes.TrimSpace(out.Bytes()), []byte("\n"))
	var last struct {
		Dispatch map[string]float64 `json:"dispatch_ns"`
		Slice    map[string]float64 `json:"sorted_slice_ns"`
		Flip     float64            `json:"flip_ns"`
		Allocs   *float64           `json:"allocs"`
	}
	if err := json.Unmarshal(lines[len(lines)-1], &last); err != nil {
		t.Fatal(err)
	}
	for _, size := range []string{"16", "700"} {
		if last.Dispatch[size] <= 0 || last.Slice[size] <= 0 {
			t.Errorf("%s ranges: %v and %v ns", size, last.Dispatch[size], last.Slice[size])
		}
	}
	if last.Flip <= 0 || last.Allocs == nil || *last.Allocs != 0 {
		t.Errorf("a flip takes %v ns, a dispatch allocates %v", last.Flip, last.Allocs)
	}
}

// A contestant that is wrong is found out.
func TestFIBBenchFindsWrongAnswers(t *testing.T) {
	w, err := newFIBWorld(16, skewed, integer)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	all := w.contestants()
	if err := w.agree(all); err != nil {
		t.Fatal(err)
	}
	w.asked[7]++
	if err := w.agree(all); err == nil {
		t.Error("a wrong answer passed")
	}
}

// What the must is missed by, be it with two goroutines, is not left out of the result.
func TestFIBResultIsTheWorst(t *testing.T) {
	b := &fibBench{flips: []float64{500}, rows: []fibRow{
		{ranges: 16, goroutines: 1, fib: 10, slice: 30}, {ranges: 16, goroutines: 2, fib: 12, slice: 20},
		{ranges: 16, goroutines: 1, fib: 11, slice: 40, allocs: 1}, {ranges: 1000, goroutines: 1, fib: 5, slice: 6},
	}}
	r := b.result()
	if r.Dispatch["16"] != 12 || r.Slice["16"] != 20 || r.Dispatch["1000"] != 5 || r.Allocs != 1 {
		t.Errorf("%+v", r)
	}
}
