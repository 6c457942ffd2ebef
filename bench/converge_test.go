package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestConverge(t *testing.T) {
	var out bytes.Buffer
	c := &converge{out: &out, nodes: 6, loss: 0.1, flips: 4, watch: time.Minute, seed: 1, began: wall()}
	r, err := c.run(t)
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	if r.Nodes != 6 || r.Loss != 10 || r.Missed != 0 || r.FalseDown != 0 {
		t.Errorf("%+v", r)
	}
	if r.P50 < 1 || r.P50 > r.P99 || r.P99 > r.All || r.All > 400 || r.LANP99 < r.P99 || r.Bytes < 1000 {
		t.Errorf("%+v\n%s", r, &out)
	}
	line, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]float64{}
	if err := json.Unmarshal(line, &keys); err != nil {
		t.Fatal(err)
	}
	want := strings.Fields("all_ms bytes_per_node_s false_down lan_default_p99_ms loss missed nodes p50_ms p99_ms")
	if got := slices.Sorted(maps.Keys(keys)); !slices.Equal(got, want) {
		t.Errorf("keys %v, want %v", got, want)
	}
}

// What the prober's server says must be what a probe takes for well, and a server that is not there must be seen, be it from beside it or from another
// region: else the watch would count nothing.
func TestConvergeSeesAFalseVerdict(t *testing.T) {
	c := &converge{out: new(bytes.Buffer), nodes: 3, flips: 1, watch: time.Minute, began: wall()}
	var r report
	err := bubble(t, func() error {
		w := newConvergeWorld(1, c.nodes)
		defer w.close()
		if err := w.form(); err != nil {
			return err
		}
		w.net.Cut(w.backends[0].Name, w.lister(0).self.Name)
		w.net.Cut(w.backends[1].Name, w.elsewhere(1).self.Name)
		return w.watch(c, &r)
	})
	if err != nil || r.falseDown != 2 || r.falseDead != 0 {
		t.Errorf("%d verdicts, %d deaths, %v; want 2 and 0", r.falseDown, r.falseDead, err)
	}
}

// TestConvergeMusts: a result that misses what must hold is an error.
func TestConvergeMusts(t *testing.T) {
	good := convergeResult{Nodes: 10, Loss: 10, P50: 40, P99: 300, All: 400, LANP99: 900}
	if err := good.missedMusts(); err != nil {
		t.Error(err)
	}
	for what, spoil := range map[string]func(r *convergeResult){
		"missed": func(r *convergeResult) { r.Missed = 1 }, "99 %": func(r *convergeResult) { r.P99 = 301 },
		"all": func(r *convergeResult) { r.All = 401 }, "false": func(r *convergeResult) { r.FalseDown = 1 },
	} {
		r := good
		if spoil(&r); r.missedMusts() == nil {
			t.Errorf("%s: no error of %+v", what, r)
		}
	}
	good.Loss, good.FalseDown = 25, 1
	if err := good.missedMusts(); err != nil {
		t.Error(err)
	}
}
