package node

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"rangefinder/gossip"
	"rangefinder/wire"
)

func TestMetricsHaveTheirNames(t *testing.T) {
	m := newMetrics(func() gauges {
		return gauges{Sessions: 3, NoTLS: 12, Members: 2, EpochIndex: 7, Failures: 1, Gossip: gossip.Stats{Unknown: 5, Deaths: 6, Implausible: 9, Calmed: 10, Malformed: 13, Dropped: 14, OverBound: 15, Jumps: 16, Unanswered: 18}, Drains: 11, Ready: true,
			Pools: []PoolView{{Backend: "b1", InUse: 4, Idle: 2, Waiting: 1, Limit: 20, Refusals: 8}}, BackendUp: map[string]bool{"b1": true, "b2": false}, ProbeFailures: map[string]uint64{"b1": 0, "b2": 17}}
	})
	m.Routed(1, 0, 300*time.Nanosecond)
	m.Routed(0, 1, 40*time.Microsecond)
	m.BackendError("b1", "08006")
	m.Failover("b1")
	m.Refused("0A000")
	m.Limited(wire.RefusedIdle)
	w := httptest.NewRecorder()
	m.handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		"proxy_backend_failover_total 1\n",
		"proxy_backend_errors_total{backend=\"b1\"} 1\n",
		"proxy_routing_latency_seconds_count 2\n",
		"proxy_routing_latency_seconds_bucket{le=\"5e-07\"} 1\n",
		"rangefinder_statements_total{intent=\"read\"} 1\n",
		"rangefinder_statements_total{intent=\"write\"} 1\n",
		"rangefinder_refused_total{sqlstate=\"0A000\"} 1\n",
		"rangefinder_sessions 3\n",
		"rangefinder_clients_no_tls_total 12\n",
		"rangefinder_pool_connections{backend=\"b1\",state=\"in_use\"} 4\n",
		"rangefinder_pool_connections{backend=\"b1\",state=\"idle\"} 2\n",
		"rangefinder_pool_waiting{backend=\"b1\"} 1\n",
		"rangefinder_backend_usable{backend=\"b2\"} 0\n",
		"rangefinder_members 2\n",
		"rangefinder_epoch_index 7\n",
		"rangefinder_fib_compile_failures_total 1\n",
		"rangefinder_gossip_unknown_records_total 5\n",
		"rangefinder_gossip_deaths_total 6\n",
		"rangefinder_gossip_implausible_total 9\n",
		"rangefinder_gossip_calmed_total 10\n",
		"rangefinder_gossip_malformed_total 13\n",
		"rangefinder_gossip_dropped_total 14\n",
		"rangefinder_gossip_unanswered_total 18\n",
		"rangefinder_gossip_over_bound_total 15\n",
		"rangefinder_gossip_jumps_total 16\n",
		"rangefinder_probe_failures_total{backend=\"b1\"} 0\n",
		"rangefinder_probe_failures_total{backend=\"b2\"} 17\n",
		"rangefinder_drains 11\n",
		"rangefinder_ready 1\n",
		"rangefinder_limited_total{limit=\"idle_timeout\"} 1\n",
		"rangefinder_limited_total{limit=\"pool_wait\"} 0\n",
		"rangefinder_backend_full_total{backend=\"b1\"} 8\n",
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("/metrics lacks %q", strings.TrimSpace(want))
		}
	}
}

// TestCountingAllocatesNothing: what is counted on a statement's way must cost it nothing that the collector of garbage sees.
func TestCountingAllocatesNothing(t *testing.T) {
	m := newMetrics(func() gauges { return gauges{} })
	if n := testing.AllocsPerRun(1000, func() { m.Routed(1, 0, time.Microsecond) }); n != 0 {
		t.Errorf("Routed allocates %v times", n)
	}
}
