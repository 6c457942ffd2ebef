package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"rangefinder/internal/pgtest"
)

const usage = `bench compares a node with direct connections to PostgreSQL.

  go run ./bench [flags]

It starts one PostgreSQL server with pgbench's tables and one node in front of it, with a keyspace over
pgbench_accounts so that every statement is routed by its key, and runs pgbench -S against both in alternation.

`

// row is one line of the result.
type row struct {
	Mode     string  `json:"mode"`
	Clients  int     `json:"clients"`
	Direct   float64 `json:"direct_tps"`
	Node     float64 `json:"node_tps"`
	VsDirect float64 `json:"tps_vs_direct"` // median of the rounds' ratios
}

func main() {
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	rounds := flag.Int("rounds", 5, "rounds a mode; the medians are printed")
	seconds := flag.Int("seconds", 2, "seconds a run")
	clients := flag.Int("clients", 8, "pgbench clients")
	scale := flag.Int("scale", 5, "pgbench scale factor")
	asJSON := flag.Bool("json", false, "print one JSON object as the last line")
	flag.Parse()
	if flag.NArg() > 0 || *rounds < 1 || *seconds < 1 || *clients < 1 || *scale < 1 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *rounds, *seconds, *clients, *scale, *asJSON); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, rounds, seconds, clients, scale int, asJSON bool) error {
	farm, err := pgtest.Open(ctx, "")
	if err != nil {
		return err
	}
	defer farm.Close()
	fmt.Println("starting PostgreSQL and a node")
	s, err := newScenario(ctx, farm, scale)
	if err != nil {
		return err
	}
	defer s.close()
	rss, err := s.node.rss()
	if err != nil {
		return err
	}
	fmt.Printf("node at rest: %.1f MiB resident\n\n", float64(rss)/(1<<20))

	fmt.Printf("pgbench -S, %d clients, %d rounds of %d s, alternating\n", clients, rounds, seconds)
	fmt.Printf("%-10s %12s %12s %16s\n", "mode", "direct tps", "node tps", "node / direct")
	var rows []row
	for _, mode := range []string{"simple", "extended", "prepared"} {
		var direct, node, ratio []float64
		for i := range rounds {
			// Who goes first changes from round to round: the second finds warmer caches.
			order := []endpoint{s.direct, s.routed}
			if i%2 == 1 {
				order = []endpoint{s.routed, s.direct}
			}
			var tps [2]float64
			for j, e := range order {
				v, err := s.pgbench(ctx, e, mode, clients, seconds)
				if err != nil {
					return fmt.Errorf("pgbench -M %s against %s: %w", mode, e.name, err)
				}
				tps[j] = v
			}
			if i%2 == 1 {
				tps[0], tps[1] = tps[1], tps[0]
			}
			direct, node, ratio = append(direct, tps[0]), append(node, tps[1]), append(ratio, tps[1]/tps[0])
		}
		r := row{Mode: mode, Clients: clients, Direct: median(direct), Node: median(node), VsDirect: median(ratio)}
		rows = append(rows, r)
		fmt.Printf("%-10s %12.0f %12.0f %16.2f\n", r.Mode, r.Direct, r.Node, r.VsDirect)
	}
	if asJSON {
		return json.NewEncoder(os.Stdout).Encode(map[string]any{"rows": rows, "idle_rss_mib": float64(rss) / (1 << 20), "at": time.Now().UTC().Format(time.RFC3339)})
	}
	return nil
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}
