package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// large measures what each target spends on a megabyte: of a SELECT of all rows of big, and of a COPY of them.
func (c *comparison) large(ctx context.Context) error {
	queries := []string{"SELECT * FROM big", "COPY big TO STDOUT"}
	perMB := make(map[string][3][]float64) // by target: SELECT, COPY, both
	var want [2]result
	for i := range c.rounds {
		for _, t := range rotate(c.s.targets, i) {
			var spent [3]time.Duration
			var bytes [3]int
			for q, sql := range queries {
				pids := t.pids()
				got, err := fetch(ctx, t.doors[0], sql, func(work func() error) error {
					before := cpu(pids)
					err := work()
					spent[q] = cpu(pids) - before
					return err
				})
				if err != nil {
					return fmt.Errorf("%s through %s: %w", sql, t.name, err)
				}
				if want[q].rows == 0 {
					want[q] = got
				}
				if got.rows != tableRows || got.sum != want[q].sum {
					return fmt.Errorf("%s through %s: %d rows with sum %x, want %d with %x", sql, t.name, got.rows, got.sum, tableRows, want[q].sum)
				}
				bytes[q] = got.bytes
				spent[2], bytes[2] = spent[2]+spent[q], bytes[2]+got.bytes
			}
			v := perMB[t.name]
			for k := range v {
				v[k] = append(v[k], spent[k].Seconds()*1000/(float64(bytes[k])/1e6))
			}
			perMB[t.name] = v
		}
	}
	c.printf("\n%d rows in one result, CPU milliseconds a megabyte\n%-12s %10s %10s %10s %16s\n", tableRows, "target", "SELECT", "COPY", "both", "both / pgbouncer")
	base := median(perMB[pgbouncer][2])
	for _, t := range c.s.targets {
		if t.processes == nil {
			continue
		}
		v := perMB[t.name]
		c.printf("%-12s %10.3f %10.3f %10.3f %16s\n", t.name, median(v[0]), median(v[1]), median(v[2]), ratio(median(v[2]), base))
		c.result.Large = append(c.result.Large, largeRow{t.name, round(median(v[2]))})
	}
	return nil
}

// connect measures what a login and one query cost.
func (c *comparison) connect(ctx context.Context) error {
	samples := make(map[string][]sample)
	for i := range c.rounds {
		for _, t := range rotate(c.s.targets, i) {
			r, err := c.s.pgbench(ctx, t, load{mode: "simple", clients: 8, seconds: c.seconds, reconnect: true})
			if err != nil {
				return err
			}
			samples[t.name] = append(samples[t.name], r)
		}
	}
	c.printf("\nlogin without a password, one query, logout; 8 clients\n%-12s %10s %10s %16s\n", "target", "a second", "CPU us", "CPU / pgbouncer")
	for _, t := range c.s.targets {
		v := samples[t.name]
		if t.processes == nil {
			c.printf("%-12s %10.0f %10s %16s\n", t.name, median(of(v, tps)), "-", "-")
			continue
		}
		var ratios []float64
		for i, b := range samples[pgbouncer] {
			ratios = append(ratios, v[i].cpu/b.cpu)
		}
		c.printf("%-12s %10.0f %10.1f %16s\n", t.name, median(of(v, tps)), median(of(v, cpuOf)), ratio(median(ratios), 1))
		c.result.Connect = append(c.result.Connect, connectRow{t.name, round(median(ratios))})
	}
	if c.profile != "" && c.s.target(rangefinder) != nil {
		return c.profiled(ctx, "connect", load{mode: "simple", clients: 8, reconnect: true})
	}
	return nil
}

// idle measures what thousands of clients take that do nothing. Each round begins with fresh processes.
func (c *comparison) idle(ctx context.Context) error {
	kib := make(map[string][]float64)
	for i := range c.rounds {
		for _, t := range rotate(c.s.targets, i) {
			if t.idle == nil {
				continue
			}
			v, err := c.idleOf(ctx, t)
			if err != nil {
				return fmt.Errorf("%d clients of %s: %w", idleClients, t.name, err)
			}
			kib[t.name] = append(kib[t.name], v)
		}
	}
	c.printf("\n%d idle clients, KiB resident a client\n%-12s %10s\n", idleClients, "target", "KiB")
	for _, t := range c.s.targets {
		if v := kib[t.name]; len(v) > 0 {
			c.printf("%-12s %10.2f\n", t.name, median(v))
			c.result.Idle = append(c.result.Idle, idleRow{t.name, round(median(v))})
		}
	}
	return nil
}

func (c *comparison) idleOf(ctx context.Context, t *target) (float64, error) {
	if err := t.restart(ctx); err != nil {
		return 0, err
	}
	// What is made once, at the first query, is not the clients'.
	if err := t.answers(ctx); err != nil {
		return 0, err
	}
	before, err := rss(t.pids())
	if err != nil {
		return 0, err
	}
	all, err := gather(ctx, t.idle, idleClients)
	if err != nil {
		return 0, err
	}
	defer all.leave()
	if err := pause(ctx, 5*time.Second); err != nil {
		return 0, err
	}
	after, err := rss(t.pids())
	if err == nil && c.profile != "" && t.name == rangefinder {
		// The second has runtime.MemStats, with the stacks that the first leaves out.
		err = errors.Join(c.saveProfile(ctx, "idle-heap.pprof", t, "heap"), c.saveProfile(ctx, "idle-heap.txt", t, "heap?debug=1"))
	}
	return float64(after-before) / 1024 / idleClients, err
}
