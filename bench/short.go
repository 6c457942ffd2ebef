package main

import (
	"context"
	"encoding/json"
	"time"
)

// shortRow is one line of the short comparison.
type shortRow struct {
	Mode     string  `json:"mode"`
	Clients  int     `json:"clients"`
	Direct   float64 `json:"direct_tps"`
	Node     float64 `json:"node_tps"`
	VsDirect float64 `json:"tps_vs_direct"` // median of the rounds' ratios
}

// short compares a node with PostgreSQL alone.
func short(ctx context.Context, o *options) error {
	o.printf("starting PostgreSQL and a node\n")
	s, err := newScenario(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	alone, err := s.add(ctx, s.direct(), nil)
	if err != nil {
		return err
	}
	node, err := s.node(ctx)
	if node, err = s.add(ctx, node, err); err != nil {
		return err
	}
	rss, err := rss(node.pids())
	if err != nil {
		return err
	}
	o.printf("node at rest: %.1f MiB resident\n", float64(rss)/(1<<20))

	var rows []shortRow
	for _, clients := range o.clients {
		o.printf("\npgbench -S, %d clients, %d rounds of %d s, alternating\n", clients, o.rounds, o.seconds)
		o.printf("%-10s %12s %12s %16s\n", "mode", "direct tps", "node tps", "node / direct")
		for _, mode := range o.modes {
			tps := make(map[*target][]float64)
			var ratios []float64
			for i := range o.rounds {
				for _, t := range rotate(s.targets, i) {
					v, err := s.pgbench(ctx, t, load{mode: mode, clients: clients, seconds: o.seconds, turn: i})
					if err != nil {
						return err
					}
					tps[t] = append(tps[t], v.tps)
				}
				ratios = append(ratios, tps[node][i]/tps[alone][i])
			}
			r := shortRow{Mode: mode, Clients: clients, Direct: median(tps[alone]), Node: median(tps[node]), VsDirect: median(ratios)}
			rows = append(rows, r)
			o.printf("%-10s %12.0f %12.0f %16.2f\n", r.Mode, r.Direct, r.Node, r.VsDirect)
		}
	}
	if o.json {
		return json.NewEncoder(o.out).Encode(map[string]any{"rows": rows, "idle_rss_mib": float64(rss) / (1 << 20), "at": time.Now().UTC().Format(time.RFC3339)})
	}
	return nil
}
