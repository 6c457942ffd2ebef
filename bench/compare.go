package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// results are what -json prints.
type results struct {
	Rows          []resultRow  `json:"rows"`
	Large         []largeRow   `json:"large"`
	Connect       []connectRow `json:"connect"`
	Idle          []idleRow    `json:"idle"`
	RoutingNS     float64      `json:"routing_ns"`
	RoutingAllocs int64        `json:"routing_allocs"`
}

type resultRow struct {
	Mode     string  `json:"mode"`
	Clients  int     `json:"clients"`
	Target   string  `json:"target"`
	VsDirect float64 `json:"tps_vs_direct"`
	CPU      float64 `json:"cpu_us_per_query"`
	// VsPgBouncer is relative to HAProxy in the mode that this PgBouncer cannot do.
	VsPgBouncer float64 `json:"cpu_vs_pgbouncer"`
	P50         float64 `json:"p50_added_us"`
	P99         float64 `json:"p99_added_us"`
}

type largeRow struct {
	Target string  `json:"target"`
	CPU    float64 `json:"cpu_ms_per_mb"`
}

type connectRow struct {
	Target      string  `json:"target"`
	VsPgBouncer float64 `json:"cpu_vs_pgbouncer"`
}

type idleRow struct {
	Target string  `json:"target"`
	KiB    float64 `json:"kib_per_client"`
}

// comparison is one run of everything.
type comparison struct {
	*options
	s      *scenario
	result results
}

// quickEnough is when -quick begins nothing more.
const quickEnough = 38 * time.Second

func compare(ctx context.Context, o *options) error {
	begin := time.Now()
	s, err := newScenario(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	c := &comparison{options: o, s: s, result: results{Rows: []resultRow{}, Large: []largeRow{}, Connect: []connectRow{}, Idle: []idleRow{}}}
	if err := c.start(ctx); err != nil {
		return err
	}
	parts := map[string]func(context.Context) error{"rows": c.rows, "large": c.large, "connect": c.connect, "idle": c.idle, "routing": c.routing}
	order := []string{"rows", "routing", "large", "connect", "idle"}
	for i, name := range order {
		if !o.wants(name) {
			continue
		}
		if o.quick && i > 0 {
			c.options = glance(o)
			if time.Since(begin) > quickEnough {
				c.printf("\nleft out, no time: %s\n", name)
				continue
			}
		}
		if err := parts[name](ctx); err != nil {
			return err
		}
	}
	c.printf("\ntook %s\n", time.Since(begin).Round(time.Second))
	if o.json {
		return json.NewEncoder(o.out).Encode(c.result)
	}
	return nil
}

// glance are the options of what -quick does once.
func glance(o *options) *options {
	once := *o
	once.rounds, once.seconds = 1, 1
	return &once
}

// start starts the targets. One that is not installed is left out, and said to be.
func (c *comparison) start(ctx context.Context) error {
	s := c.s
	if _, err := s.add(ctx, s.direct(), nil); err != nil {
		return err
	}
	makers := map[string]func(context.Context) (*target, error){rangefinder: s.node, pgbouncer: s.pgbouncer, haproxy: s.haproxy, pgpool: s.pgpool}
	for _, name := range allPeers {
		if !slices.Contains(c.targets, name) {
			c.printf("left out: %s\n", name)
			continue
		}
		t, err := makers[name](ctx)
		if errors.Is(err, errMissing) {
			c.printf("left out, %v (on Debian: make peers)\n", err)
			continue
		}
		if _, err = s.add(ctx, t, err); err != nil {
			return err
		}
	}
	for _, t := range s.targets {
		if err := t.answers(ctx); err != nil {
			return fmt.Errorf("through %s: %w", t.name, err)
		}
	}
	return nil
}

// rotate changes who goes first from round to round: the later ones find warmer caches.
func rotate(all []*target, i int) []*target {
	i %= len(all)
	return append(append([]*target{}, all[i:]...), all[:i]...)
}

func (c *comparison) rows(ctx context.Context) error {
	c.printf("pgbench -S with checked answers; medians of %d rounds of %d s, alternating\n", c.rounds, c.seconds)
	for _, mode := range c.modes {
		for _, clients := range c.clients {
			if err := c.row(ctx, mode, clients); err != nil {
				return err
			}
		}
		if c.profile != "" && c.s.target(rangefinder) != nil {
			if err := c.profiled(ctx, mode, load{mode: mode, clients: c.clients[len(c.clients)-1]}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *comparison) row(ctx context.Context, mode string, clients int) error {
	samples, base := make(map[string][]sample), ""
	var targets []*target
	for _, t := range c.s.targets {
		if mode == "prepared" && !t.prepared {
			continue
		}
		if targets = append(targets, t); t.name == pgbouncer || t.name == haproxy {
			base = cmp.Or(base, t.name)
		}
	}
	for i := range c.rounds {
		for _, t := range rotate(targets, i) {
			r, err := c.s.pgbench(ctx, t, load{mode: mode, clients: clients, seconds: c.seconds, turn: i})
			if err != nil {
				return err
			}
			samples[t.name] = append(samples[t.name], r)
		}
	}
	c.printf("\n%-10s %3s %-12s %10s %11s %10s %16s %10s %10s %7s\n", "mode", "", "target", "tps", "tps/direct", "CPU us", "CPU/"+cmp.Or(base, "(nothing)"), "p50 added", "p99 added", "others")
	for _, t := range targets {
		v := samples[t.name]
		vs := func(other string, f func(a, b sample) float64) float64 {
			var all []float64
			for i, b := range samples[other] {
				all = append(all, f(v[i], b))
			}
			return median(all)
		}
		r := resultRow{
			Mode: mode, Clients: clients, Target: t.name,
			VsDirect: round(vs(direct, func(a, b sample) float64 { return a.tps / b.tps })),
			CPU:      round(median(of(v, cpuOf))),
			P50:      round(vs(direct, func(a, b sample) float64 { return a.p50 - b.p50 })),
			P99:      round(vs(direct, func(a, b sample) float64 { return a.p99 - b.p99 })),
		}
		if t.processes != nil && base != "" {
			r.VsPgBouncer = round(vs(base, func(a, b sample) float64 { return a.cpu / b.cpu }))
		}
		c.result.Rows = append(c.result.Rows, r)
		c.printf("%-10s %3d %-12s %10.0f %11.2f %10.1f %16s %10.0f %10.0f %6.0f%%\n", mode, clients, t.name, median(of(v, tps)), r.VsDirect, r.CPU, ratio(r.VsPgBouncer, 1), r.P50, r.P99, 100*median(of(v, othersOf)))
	}
	return nil
}

func tps(s sample) float64      { return s.tps }
func cpuOf(s sample) float64    { return s.cpu }
func othersOf(s sample) float64 { return s.others }

func of(samples []sample, f func(sample) float64) []float64 {
	out := make([]float64, len(samples))
	for i, s := range samples {
		out[i] = f(s)
	}
	return out
}

// ratio is for a table: nothing where there is nothing to compare with.
func ratio(v, base float64) string {
	if base == 0 || v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", v/base)
}

// round keeps what a reader of JSON can use.
func round(v float64) float64 { return math.Round(v*1000) / 1000 }
