package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// What statements over several shards must keep to.
const (
	routingMust = 1000 // ns
	scatterMust = 1.2  // times the slowest shard alone, and a millisecond
)

// sqlBench is `bench sql`.
type sqlBench struct {
	// constant
	out    io.Writer
	rounds int
	rows   int
	json   bool

	// owned by run
	world  *sqlWorld
	result sqlResult
}

// sqlResult is the last line of -json.
type sqlResult struct {
	RoutingNS     float64 `json:"routing_ns"` // the slower of text and normal form
	RoutingAllocs int64   `json:"routing_allocs"`
	MissUS        float64 `json:"miss_us"`
	ScatterRatio  float64 `json:"scatter_ratio"` // to the slowest shard alone
	MergeMBs      float64 `json:"merge_mb_s"`
	CopyRatio     float64 `json:"copy_ratio"`  // to COPY into one shard, in MB/s
	TwoPCRatio    float64 `json:"twopc_ratio"` // to the same transaction on one shard, in time

	TextNS      float64 `json:"text_ns"`
	NormalNS    float64 `json:"normal_ns"`
	ScatterMS   float64 `json:"scatter_ms"`
	SlowestMS   float64 `json:"slowest_shard_ms"`
	PlainMBs    float64 `json:"plain_mb_s"`       // the merge's statement on one PostgreSQL that has all rows
	MergeCPU    float64 `json:"merge_cpu_ms_mb"`  // of the node
	CopyMBs     float64 `json:"copy_mb_s"`        // through the node
	CopyCPU     float64 `json:"copy_cpu_ms_mb"`   // of the node
	OneShardMBs float64 `json:"one_shard_mb_s"`   // COPY into one shard, without the node
	TwoPCMS     float64 `json:"twopc_ms"`         // a transaction that writes on two shards
	OnePhaseMS  float64 `json:"single_commit_ms"` // one that writes twice on one
	GatheredMS  float64 `json:"gathered_ms"`      // GROUP BY over all shards
	GatheredOne float64 `json:"gathered_one_ms"`  // the same on one PostgreSQL that has all rows
}

// runSQL runs `bench sql`.
func runSQL(ctx context.Context, args []string) error {
	b := &sqlBench{out: os.Stdout}
	f := flag.NewFlagSet("bench sql", flag.ContinueOnError)
	f.IntVar(&b.rounds, "rounds", 7, "rounds; the medians are printed")
	f.IntVar(&b.rows, "rows", 400_000, "rows of the sharded table, some 110 bytes each")
	f.BoolVar(&b.json, "json", false, "print one JSON object as the last line")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 || b.rounds < 1 || b.rows < 1000 || b.rows > 10_000_000 {
		return errors.New("sql wants -rounds of 1 or more, -rows of 1000 to 10000000, and nothing else but its flags")
	}
	return b.run(ctx)
}

func (b *sqlBench) printf(format string, args ...any) { fmt.Fprintf(b.out, format, args...) }

func (b *sqlBench) run(ctx context.Context) (err error) {
	began := time.Now()
	if err := b.routing(); err != nil {
		return err
	}
	b.printf("-- %d PostgreSQL servers, one of them with all %d rows\n", sqlShards+1, b.rows)
	if b.world, err = newSQLWorld(ctx, b.rows); err != nil {
		return err
	}
	defer b.world.close()
	for _, part := range []struct {
		name  string
		delay time.Duration // added to the way to the shards
		run   func(context.Context) error
	}{
		{"scatter", 20 * time.Millisecond, b.scatter}, {"merge", 0, b.merge}, {"gather", 0, b.gather}, {"COPY", 0, b.copies}, {"two-phase commit", 0, b.commits},
	} {
		b.printf("-- %s\n", part.name)
		if err := b.world.restart(ctx, part.delay); err != nil {
			return err
		}
		if err := part.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	b.printf("took %s\n", time.Since(began).Round(time.Second))
	if b.json {
		return json.NewEncoder(b.out).Encode(b.result)
	}
	return nil
}

// verdict says whether a must was kept.
func verdict(kept bool) string {
	if kept {
		return ""
	}
	return " MISSED"
}

// routing times the planning and routing of one statement.
func (b *sqlBench) routing() error {
	r, err := newRouter()
	if err != nil {
		return err
	}
	var allocs [2]int64
	if b.result.TextNS, allocs[0], err = r.timed(byParameter); err != nil {
		return err
	}
	texts := make([][]byte, 1024)
	for i := range texts {
		texts[i] = fmt.Appendf(nil, "SELECT abalance FROM pgbench_accounts WHERE aid = %d;", 100_000+i)
	}
	if b.result.NormalNS, allocs[1], err = r.timed(func(r *router, i int) error { return r.route(texts[i%len(texts)], nil, uint32(i)) }); err != nil {
		return err
	}
	miss, _, err := r.timed(func(r *router, i int) error {
		return r.route(fmt.Appendf(nil, "SELECT abalance AS a%d FROM pgbench_accounts WHERE aid = %d", i, i), nil, uint32(i))
	})
	if err != nil {
		return err
	}
	b.result.MissUS = round(miss / 1000)
	b.result.RoutingNS, b.result.RoutingAllocs = max(b.result.TextNS, b.result.NormalNS), max(allocs[0], allocs[1])
	b.printf("routing a statement whose plan is known: %.0f ns by its text, %.0f ns by its normal form, %d allocations (must %d ns and 0%s); one that was never seen: %.1f us\n",
		b.result.TextNS, b.result.NormalNS, b.result.RoutingAllocs, routingMust, verdict(b.result.RoutingNS <= routingMust && b.result.RoutingAllocs == 0), b.result.MissUS)
	return nil
}

// once times a statement and checks how many rows it gives; -1: any number.
func once(ctx context.Context, c *pgconn.PgConn, sql string, rows int) (time.Duration, error) {
	began := time.Now()
	results, err := c.Exec(ctx, sql).ReadAll()
	took := time.Since(began)
	if err != nil {
		return 0, err
	}
	if len(results) == 0 || rows >= 0 && len(results[0].Rows) != rows {
		return 0, fmt.Errorf("%s: %d results, not one of %d rows", sql, len(results), rows)
	}
	return took, nil
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// scatter compares a statement on all shards with the same on each of them alone.
func (b *sqlBench) scatter(ctx context.Context) error {
	c, err := b.world.client(ctx)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	const sql = "SELECT id, tag FROM items WHERE tag = 7 ORDER BY id LIMIT 10"
	var all []float64
	alone := make([][]float64, sqlShards)
	for range b.rounds + 1 { // the first makes connections
		took, err := once(ctx, c, sql, 10)
		if err != nil {
			return err
		}
		all = append(all, millis(took))
		for i := range alone {
			took, err := once(ctx, c, fmt.Sprintf("/* rangefinder: shard=%s */ %s", sqlShard(i), sql), -1)
			if err != nil {
				return err
			}
			alone[i] = append(alone[i], millis(took))
		}
	}
	for i := range alone {
		b.result.SlowestMS = max(b.result.SlowestMS, median(alone[i][1:]))
	}
	b.result.ScatterMS = median(all[1:])
	b.result.ScatterRatio = round(b.result.ScatterMS / b.result.SlowestMS)
	b.printf("the first 10 of %d shards, 20 ms away: %.2f ms; the slowest shard alone: %.2f ms; ratio %.2f (must %.1f and a millisecond%s)\n", sqlShards,
		b.result.ScatterMS, b.result.SlowestMS, b.result.ScatterRatio, scatterMust, verdict(b.result.ScatterMS <= scatterMust*b.result.SlowestMS+1))
	return nil
}

// merge compares a large sorted result of all shards with that of one server.
func (b *sqlBench) merge(ctx context.Context) error {
	const sql = "SELECT id, tag, filler FROM items ORDER BY id"
	var ours, plain, cpus []float64
	var want result
	for round := range b.rounds {
		for _, d := range []door{b.world.plainDoor(), b.world.door()} {
			began, from := time.Now(), cpu(b.world.pids())
			got, err := fetch(ctx, d, sql, func(f func() error) error { return f() })
			if err != nil {
				return err
			}
			took, mb := time.Since(began).Seconds(), float64(got.bytes)/1e6
			if d.addr == b.world.plainDoor().addr {
				plain = append(plain, mb/took)
				if round == 0 {
					want = got
				}
				continue
			}
			if got.rows != want.rows || got.sum != want.sum {
				return fmt.Errorf("%d rows with the sum %x, and not %d with %x: the order, or a row, is another", got.rows, got.sum, want.rows, want.sum)
			}
			ours = append(ours, mb/took)
			cpus = append(cpus, millis(cpu(b.world.pids())-from)/mb)
		}
	}
	b.result.MergeMBs, b.result.PlainMBs, b.result.MergeCPU = round(median(ours)), round(median(plain)), round(median(cpus))
	b.printf("ORDER BY over all shards: %.0f MB/s, %.1f ms of the node's processor time for each MB; on one server that has all rows: %.0f MB/s\n",
		b.result.MergeMBs, b.result.MergeCPU, b.result.PlainMBs)
	return nil
}

// gather compares GROUP BY over all shards with one server.
func (b *sqlBench) gather(ctx context.Context) error {
	const sql = "SELECT tag % 50 AS t, count(*), avg(id) FROM items GROUP BY 1 HAVING count(*) > 1 ORDER BY 1"
	took := make(map[bool][]float64)
	for _, plain := range []bool{false, true} {
		d := b.world.door()
		if plain {
			d = b.world.plainDoor()
		}
		c, err := connect(ctx, d)
		if err != nil {
			return err
		}
		for range b.rounds + 1 {
			t, err := once(ctx, c, sql, 50)
			if err != nil {
				return errors.Join(err, c.Close(ctx))
			}
			took[plain] = append(took[plain], millis(t))
		}
		c.Close(ctx)
	}
	b.result.GatheredMS, b.result.GatheredOne = median(took[false][1:]), median(took[true][1:])
	b.printf("GROUP BY over all shards: %.1f ms; on one server that has all rows: %.1f ms\n", b.result.GatheredMS, b.result.GatheredOne)
	return nil
}

// copies compares COPY that is split with COPY into one shard.
func (b *sqlBench) copies(ctx context.Context) error {
	var data strings.Builder
	for i := range b.rows {
		fmt.Fprintf(&data, "%d\t%d\t%s\n", i, i%1000, sqlFiller)
	}
	mb := float64(data.Len()) / 1e6
	c, err := b.world.writer(ctx)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	one, err := connect(ctx, b.world.shardDoor(0))
	if err != nil {
		return err
	}
	defer one.Close(ctx)
	var ours, direct, cpus []float64
	for range b.rounds {
		for _, to := range []*pgconn.PgConn{one, c} {
			if err := b.world.empty(ctx, "loaded"); err != nil {
				return err
			}
			began, from := time.Now(), cpu(b.world.pids())
			tag, err := to.CopyFrom(ctx, strings.NewReader(data.String()), "COPY loaded FROM STDIN")
			if err != nil {
				return err
			}
			took := time.Since(began).Seconds()
			if tag.RowsAffected() != int64(b.rows) {
				return fmt.Errorf("%d rows were copied, not %d", tag.RowsAffected(), b.rows)
			}
			if to == one {
				direct = append(direct, mb/took)
				continue
			}
			ours = append(ours, mb/took)
			cpus = append(cpus, millis(cpu(b.world.pids())-from)/mb)
			if n, err := b.world.count(ctx, "loaded"); err != nil || n != b.rows {
				return fmt.Errorf("%d of %d rows are on the shards: %w", n, b.rows, err)
			}
		}
	}
	b.result.CopyMBs, b.result.OneShardMBs, b.result.CopyCPU = round(median(ours)), round(median(direct)), round(median(cpus))
	b.result.CopyRatio = round(median(ours) / median(direct))
	b.printf("COPY split over %d shards: %.0f MB/s, %.1f ms of the node's processor time for each MB; into one shard, without the node: %.0f MB/s; ratio %.2f\n",
		sqlShards, b.result.CopyMBs, b.result.CopyCPU, b.result.OneShardMBs, b.result.CopyRatio)
	return nil
}

// commits compares a transaction that writes on two shards with one that writes as much on one.
func (b *sqlBench) commits(ctx context.Context) error {
	c, err := b.world.writer(ctx)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	near, far, err := b.world.keys(ctx)
	if err != nil {
		return err
	}
	transaction := func(keys [2]int) (time.Duration, error) {
		began := time.Now()
		for _, sql := range []string{"BEGIN", update(keys[0]), update(keys[1]), "COMMIT"} {
			results, err := c.Exec(ctx, sql).ReadAll()
			if err != nil {
				return 0, err
			}
			if tag := results[0].CommandTag; tag.Update() && tag.RowsAffected() != 1 {
				return 0, fmt.Errorf("%s: %s", sql, tag)
			}
		}
		return time.Since(began), nil
	}
	var one, two []float64
	for range 40 * b.rounds {
		for _, k := range []struct {
			keys [2]int
			took *[]float64
		}{{[2]int{near[0], near[1]}, &one}, {[2]int{near[0], far}, &two}} {
			took, err := transaction(k.keys)
			if err != nil {
				return err
			}
			*k.took = append(*k.took, millis(took))
		}
	}
	slices.Sort(two)
	b.result.TwoPCMS, b.result.OnePhaseMS = median(two), median(one)
	b.result.TwoPCRatio = round(b.result.TwoPCMS / b.result.OnePhaseMS)
	b.printf("a transaction that writes on two shards: %.2f ms (99 of 100: %.2f); one that writes twice on one: %.2f ms; ratio %.2f\n",
		b.result.TwoPCMS, two[len(two)*99/100], b.result.OnePhaseMS, b.result.TwoPCRatio)
	return nil
}

func update(id int) string { return fmt.Sprintf("UPDATE items SET tag = tag WHERE id = %d", id) }
