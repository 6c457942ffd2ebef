package rib

import (
	"encoding/json"
	"testing"
	"time"
)

// TestRouteInJSON: one process writes what it believes, the one that takes over from it reads it.
func TestRouteInJSON(t *testing.T) {
	for _, r := range []Route{
		{Backend: "b", Observer: "n", Stamp: Stamp{3, 1 << 40}, State: Withdrawn, Role: Replica, Timeline: 7, Latency: time.Millisecond, Lag: LagUnknown, Load: LoadAtLimit},
		{Backend: "c", State: Up, Role: Primary},
		{},
	} {
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var back Route
		if err := json.Unmarshal(text, &back); err != nil || back != r {
			t.Errorf("%s: %+v, %v", text, back, err)
		}
	}
	var r Route
	if err := json.Unmarshal([]byte(`{"State": "asleep"}`), &r); err == nil {
		t.Errorf("%+v", r)
	}
}
