package node

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"rangefinder/gossip"
	"rangefinder/wire"
	"rangefinder/wire/sqlkey"
	"rangefinder/wire/twophase"
)

// metrics is what a node counts. It is told by sessions (it implements wire.Metrics) and asks the node when it is scraped.
type metrics struct {
	// constant
	registry *prometheus.Registry
	latency  prometheus.Histogram
	reads    prometheus.Counter // resolved once: looking up a label takes a lock
	writes   prometheus.Counter
	refused  *prometheus.CounterVec
	errors   *prometheus.CounterVec
	failover prometheus.Counter
	limited  *prometheus.CounterVec
	lookups  *prometheus.CounterVec
	ejected  *prometheus.CounterVec

	scattered, touched prometheus.Counter
}

// gauges is what a scrape reads of a node that runs.
type gauges struct {
	Sessions, Members, Backends, Voters        int
	Accepted, NoTLS                            uint64
	EpochGeneration                            uint32
	EpochIndex, FIBVersion, Compiles, Failures uint64
	Gossip                                     gossip.Stats
	Statements                                 sqlkey.Usage // all of them together
	Drains                                     int
	TwoPhase                                   twophase.Counts
	TwoPhaseOpen                               int
	Alarms                                     int
	Ready, Leader                              bool
	Pools                                      []PoolView
	BackendUp                                  map[string]bool   // by backend: whether this node uses it
	ProbeFailures                              map[string]uint64 // by backend, of those that this node probes
}

// newMetrics makes a registry of its own, so that one process can run several nodes. read is called at each scrape.
func newMetrics(read func() gauges) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "proxy_routing_latency_seconds", Help: "Time to find where a request goes: what routing adds to it, without the backend's time.",
			// From a plan found by its text (100 ns) to one parsed afresh (50 us) and a stall.
			Buckets: []float64{100e-9, 250e-9, 500e-9, 1e-6, 2.5e-6, 5e-6, 10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 1e-3, 10e-3},
		}),
		refused:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rangefinder_refused_total", Help: "Requests that the node itself answered with an error."}, []string{"sqlstate"}),
		errors:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "proxy_backend_errors_total", Help: "Errors that a backend answered with, could not be reached with, or was lost with."}, []string{"backend"}),
		failover: prometheus.NewCounter(prometheus.CounterOpts{Name: "proxy_backend_failover_total", Help: "Statements that went to another backend because the first one failed."}),
	}
	m.limited = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rangefinder_limited_total", Help: "Clients and statements that met a limit, by which one."}, []string{"limit"})
	for _, kind := range wire.Refusals() {
		m.limited.WithLabelValues(string(kind)) // shown from the start, as 0
	}
	m.ejected = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rangefinder_backend_ejections_total", Help: "Times that a backend got no reads from this node for a while, because of how it answered."}, []string{"backend"})
	m.lookups = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rangefinder_user_lookups_total", Help: "Questions to backends about users who are not listed, by what came of them."}, []string{"outcome"})
	for _, outcome := range []string{lookupFound, lookupUnknown, lookupFailed} {
		m.lookups.WithLabelValues(outcome) // shown from the start, as 0
	}
	statements := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rangefinder_statements_total", Help: "Statements sent to backends, by what they may do."}, []string{"intent"})
	m.reads, m.writes = statements.WithLabelValues("read"), statements.WithLabelValues("write")
	m.scattered = prometheus.NewCounter(prometheus.CounterOpts{Name: "rangefinder_scattered_total", Help: "Statements that ran on several shards because nothing bound them to one."})
	m.touched = prometheus.NewCounter(prometheus.CounterOpts{Name: "rangefinder_scattered_shards_total", Help: "Shards that they were asked of."})
	m.registry.MustRegister(m.latency, m.scattered, m.touched, statements, m.refused, m.errors, m.failover, m.limited, m.lookups, m.ejected, newNodeCollector(read),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

// Routed counts a request's statements and the time it took to find where it goes.
func (m *metrics) Routed(reads, writes int, took time.Duration) {
	m.latency.Observe(took.Seconds())
	if reads > 0 {
		m.reads.Add(float64(reads))
	}
	if writes > 0 {
		m.writes.Add(float64(writes))
	}
}

// Refused counts a request that the node answered with an error of its own.
func (m *metrics) Refused(sqlstate string) { m.refused.WithLabelValues(sqlstate).Inc() }

// BackendError counts an error of a backend. Which error is in the log, not in a label: they are too many.
func (m *metrics) BackendError(backend, _ string) { m.errors.WithLabelValues(backend).Inc() }

// Failover counts a statement that went elsewhere because a backend failed.
func (m *metrics) Failover(string) { m.failover.Inc() }

// Limited counts a client or statement that met a limit.
func (m *metrics) Limited(kind wire.Refusal) { m.limited.WithLabelValues(string(kind)).Inc() }

// Scattered counts a statement that ran on several shards.
func (m *metrics) Scattered(shards int) {
	m.scattered.Inc()
	m.touched.Add(float64(shards))
}

// Ejected counts an ejection of a backend.
func (m *metrics) Ejected(backend string) { m.ejected.WithLabelValues(backend).Inc() }

// What comes of a question about a user.
const (
	lookupFound   = "found"
	lookupUnknown = "unknown"
	lookupFailed  = "failed"
)

// LookedUp counts a question about a user.
func (m *metrics) LookedUp(outcome string) { m.lookups.WithLabelValues(outcome).Inc() }

// nodeCollector reads the node at each scrape, so nothing has to be kept up to date in between.
type nodeCollector struct {
	read  func() gauges
	descs map[string]*prometheus.Desc
}

func newNodeCollector(read func() gauges) *nodeCollector {
	c := &nodeCollector{read: read, descs: map[string]*prometheus.Desc{}}
	for _, d := range []struct {
		name, help string
		labels     []string
	}{
		{"sessions", "Client sessions open now.", nil},
		{"clients_accepted_total", "Client connections accepted since the start.", nil},
		{"clients_no_tls_total", "Of those, whose TLS handshake has failed; the log says why.", nil},
		{"pool_connections", "Connections to a backend, by what they do.", []string{"backend", "state"}},
		{"pool_waiting", "Statements that wait for a connection to a backend.", []string{"backend"}},
		{"pool_limit", "Connections that a backend's pool may have.", []string{"backend"}},
		{"backend_full_total", "Connections that a backend refused because it had none left; who wanted one waits.", []string{"backend"}},
		{"members", "Live nodes of the cluster, this one included.", nil},
		{"backends", "Backends that this node has heard of.", nil},
		{"backend_usable", "1 if statements of this node go to the backend now; 0: it is down, refused, drained, or left out as too far behind, say.", []string{"backend"}},
		{"probe_failures_total", "This node's probes of a backend that had no answer, or none that is one; what came of the last is in the log and in /debug/rib.", []string{"backend"}},
		{"epoch_generation", "Recovery generation of the newest ownership known.", nil},
		{"epoch_index", "Raft index of the newest ownership known.", nil},
		{"fib_version", "Version of the table that statements are routed by.", nil},
		{"fib_compiles_total", "Tables compiled.", nil},
		{"fib_compile_failures_total", "Tables that could not be compiled; the last good one stayed.", nil},
		{"gossip_heard_total", "Records heard that changed what this node believes.", nil},
		{"gossip_unknown_records_total", "Gossip of an unknown kind or version, ignored.", nil},
		{"gossip_malformed_total", "Gossip that is no message, ignored.", nil},
		{"gossip_dropped_total", "Gossip that came faster than this node could work it off, ignored; what was lost is asked for again.", nil},
		{"gossip_unanswered_total", "Questions of other nodes for what they lack that came faster than this node answers them; they ask again. Some are no sign of trouble.", nil},
		{"gossip_over_bound_total", "Records and names that were not kept, as there are as many as a node holds.", nil},
		{"gossip_jumps_total", "Times that this node heard what it had not said in its own name, and went on above it.", nil},
		{"gossip_refused_total", "Gossip packets and nodes with another key or cluster, refused.", nil},
		{"gossip_deaths_total", "Nodes that went without a goodbye, as far as can be told: crashed, or cut off.", nil},
		{"gossip_implausible_total", "Records that cannot be from whom they say they are, not believed.", nil},
		{"gossip_calmed_total", "Flips that were left to the next round, because too many came at once to push each.", nil},
		{"twophase_total", "Transactions that wrote on several shards, by how they ended for their client.", []string{"outcome"}},
		{"twophase_open", "Transactions over several shards that have not come to their end, of this node and found on the shards that it observes.", nil},
		{"twophase_resolved_total", "Parts of such transactions, of any node, that this one has found left behind on a shard and ended.", nil},
		{"statement_shards_total", "Shards that statements have touched, one by one.", nil},
		{"statement_rows_total", "Rows that statements have returned or changed, as their command tags say.", nil},
		{"statement_seconds_total", "Time from when statements came to when the last server had done with them.", nil},
		{"twophase_deadlocks_total", "Transactions over several shards that were ended because they and others waited for each other.", nil},
		{"drains", "Regions, backends and nodes that operators have drained.", nil},
		{"alarms", "Things that a person should look at; see /debug.", nil},
		{"ready", "1 if /readyz says so.", nil},
		{"raft_leader", "1 on the leader.", nil},
		{"raft_voters", "Voters of the ledger.", nil},
	} {
		c.descs[d.name] = prometheus.NewDesc("rangefinder_"+d.name, d.help, d.labels, nil)
	}
	return c
}

// Describe names what Collect sends.
func (c *nodeCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		out <- d
	}
}

// Collect reads the node once.
func (c *nodeCollector) Collect(out chan<- prometheus.Metric) {
	g := c.read()
	send := func(kind prometheus.ValueType, name string, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(c.descs[name], kind, value, labels...)
	}
	gauge := func(name string, value float64, labels ...string) {
		send(prometheus.GaugeValue, name, value, labels...)
	}
	counter := func(name string, value uint64) { send(prometheus.CounterValue, name, float64(value)) }
	gauge("sessions", float64(g.Sessions))
	counter("clients_accepted_total", g.Accepted)
	counter("clients_no_tls_total", g.NoTLS)
	for _, p := range g.Pools {
		gauge("pool_connections", float64(p.InUse), p.Backend, "in_use")
		gauge("pool_connections", float64(p.Idle), p.Backend, "idle")
		gauge("pool_waiting", float64(p.Waiting), p.Backend)
		gauge("pool_limit", float64(p.Limit), p.Backend)
		send(prometheus.CounterValue, "backend_full_total", float64(p.Refusals), p.Backend)
	}
	gauge("members", float64(g.Members))
	gauge("backends", float64(g.Backends))
	for backend, up := range g.BackendUp {
		gauge("backend_usable", truth(up), backend)
	}
	for backend, failures := range g.ProbeFailures {
		send(prometheus.CounterValue, "probe_failures_total", float64(failures), backend)
	}
	gauge("epoch_generation", float64(g.EpochGeneration))
	gauge("epoch_index", float64(g.EpochIndex))
	gauge("fib_version", float64(g.FIBVersion))
	counter("fib_compiles_total", g.Compiles)
	counter("fib_compile_failures_total", g.Failures)
	counter("gossip_heard_total", g.Gossip.Heard)
	counter("gossip_unknown_records_total", g.Gossip.Unknown)
	counter("gossip_malformed_total", g.Gossip.Malformed)
	counter("gossip_dropped_total", g.Gossip.Dropped)
	counter("gossip_unanswered_total", g.Gossip.Unanswered)
	counter("gossip_over_bound_total", g.Gossip.OverBound)
	counter("gossip_jumps_total", g.Gossip.Jumps)
	counter("gossip_refused_total", g.Gossip.Refused)
	counter("gossip_deaths_total", g.Gossip.Deaths)
	counter("gossip_implausible_total", g.Gossip.Implausible)
	counter("gossip_calmed_total", g.Gossip.Calmed)
	for outcome, count := range map[string]uint64{"committed": g.TwoPhase.Committed, "rolled_back": g.TwoPhase.RolledBack, "in_doubt": g.TwoPhase.Doubtful} {
		send(prometheus.CounterValue, "twophase_total", float64(count), outcome)
	}
	gauge("twophase_open", float64(g.TwoPhaseOpen))
	counter("twophase_resolved_total", g.TwoPhase.Ended)
	counter("statement_shards_total", g.Statements.Shards)
	counter("statement_rows_total", g.Statements.Rows)
	send(prometheus.CounterValue, "statement_seconds_total", g.Statements.Total.Seconds())
	counter("twophase_deadlocks_total", g.TwoPhase.Deadlocks)
	gauge("drains", float64(g.Drains))
	gauge("alarms", float64(g.Alarms))
	gauge("ready", truth(g.Ready))
	gauge("raft_leader", truth(g.Leader))
	gauge("raft_voters", float64(g.Voters))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
