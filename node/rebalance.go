package node

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"rangefinder/cluster/balance"
	"rangefinder/rib"
)

// Bounds of what a measurement looks at.
const (
	sampleRows   = 100_000 // of a table on a shard, about
	sampleRanges = 500     // of a keyspace on a shard; where it has more, all count alike
)

// RebalanceQuery says what a plan is for.
type RebalanceQuery struct {
	Keyspace  string  // "": all of the methods hash and range
	Empty     string  // a shard that is to have nothing any more; "": none
	Only      string  // the one shard that may be given ranges; "": any
	Tolerance float64 // see balance.Options
}

// Rebalance measures what the shards hold and do, and works out which ranges should move. It changes nothing.
func (n *Node) Rebalance(ctx context.Context, q RebalanceQuery) (balance.Plan, error) {
	o := n.table.Owners().Get()
	if q.Keyspace != "" && o.KeyspaceByName(q.Keyspace) == nil {
		return balance.Plan{}, noKeyspace(q.Keyspace)
	}
	options := balance.Options{Only: q.Only, Tolerance: q.Tolerance}
	for _, s := range o.Shards {
		options.Shards = append(options.Shards, s.Name)
	}
	for _, shard := range []string{q.Empty, q.Only} {
		if shard == "" {
			continue
		}
		if err := n.shardNamed(shard); err != nil {
			return balance.Plan{}, err
		}
	}
	if q.Empty != "" {
		options.Empty = []string{q.Empty}
	}
	var all []balance.Range
	sum := n.loadNow(ctx)
	for i := range o.Keyspaces {
		ks := &o.Keyspaces[i]
		if ks.Listed() || ks.Reference() || q.Keyspace != "" && ks.Name != q.Keyspace {
			continue
		}
		measured, err := n.measure(ctx, ks, sum)
		if err != nil {
			return balance.Plan{}, unhealthy(err)
		}
		all = append(all, measured...)
	}
	p, err := balance.Make(all, options)
	if err != nil {
		return p, &apiError{Status: http.StatusUnprocessableEntity, ErrorView: ErrorView{Error: err.Error(), Hint: "'rangefinder status' lists the shards."}}
	}
	p.Missing = sum.missing
	if err := n.cutBySize(ctx, o, &p); err != nil {
		return balance.Plan{}, unhealthy(err)
	}
	return p, nil
}

// measure asks the primaries of a keyspace's shards for the sizes of its ranges, by a sample. Their load is what the nodes have counted.
func (n *Node) measure(ctx context.Context, ks *rib.Keyspace, sum *loadSum) ([]balance.Range, error) {
	m, err := rib.MethodByName(ks.Method)
	if err != nil {
		return nil, err
	}
	list := make([]balance.Range, len(ks.Ranges))
	for i := range ks.Ranges {
		r := &ks.Ranges[i]
		list[i] = balance.Range{Keyspace: ks.Name, Bounds: ks.FormatInterval(r.From, r.To), Shard: r.Shard, Load: sum.of(ks.ID, r.From), Keys: sum.keyLoads(ks, m, r)}
	}
	shards := ks.Shards()
	errs := make([]error, len(shards))
	n.eachShard(shards, func(i int) {
		errs[i] = n.measureShard(ctx, ks, shards[i], list)
	})
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// measureShard fills in the ranges of one shard.
func (n *Node) measureShard(ctx context.Context, ks *rib.Keyspace, shard string, list []balance.Range) error {
	conn, err := n.connectPrimary(ctx, shard, ks.Database)
	if err != nil {
		return fmt.Errorf("shard %s: %w", shard, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	m, err := rib.MethodByName(ks.Method)
	if err != nil {
		return err
	}
	var mine []int
	for i := range ks.Ranges {
		if ks.Ranges[i].Shard == shard {
			mine = append(mine, i)
		}
	}
	for _, t := range ks.Tables {
		tuples, size, err := sizeOf(ctx, conn, &t)
		if err != nil {
			return fmt.Errorf("shard %s: %w", shard, err)
		}
		counts, total, err := sample(ctx, conn, ks, m, &t, mine, tuples)
		if err != nil {
			return fmt.Errorf("shard %s, table %s: %w", shard, t.Name, err)
		}
		for at, i := range mine {
			part := 1 / float64(len(mine))
			if total > 0 {
				part = float64(counts[at]) / float64(total)
			}
			list[i].Rows += int64(part * float64(max(tuples, total)))
			list[i].Bytes += int64(part * float64(size))
		}
	}
	return nil
}

// sample counts the rows of each range in a part of a table's blocks.
func sample(ctx context.Context, conn *pgx.Conn, ks *rib.Keyspace, m rib.Method, t *rib.KeyedTable, mine []int, tuples int64) (counts []int64, total int64, err error) {
	counts = make([]int64, len(mine))
	if len(mine) > sampleRanges {
		for i := range counts {
			counts[i] = 1
		}
		return counts, int64(len(counts)), nil
	}
	columns := rib.QuoteIdents(t.Columns)
	var b strings.Builder
	b.WriteString("SELECT CASE")
	for at, i := range mine {
		fmt.Fprintf(&b, " WHEN %s THEN %d", m.Predicate(columns, ks.Types, ks.Ranges[i].From, ks.Ranges[i].To), at)
	}
	fmt.Fprintf(&b, " ELSE -1 END AS at, count(*) FROM %s", sampled(t, tuples))
	rows, err := conn.Query(ctx, b.String()+" GROUP BY 1", pgx.QueryExecModeExec)
	if err != nil {
		return nil, 0, err
	}
	var at int
	var count int64
	_, err = pgx.ForEachRow(rows, []any{&at, &count}, func() error {
		if at >= 0 && at < len(counts) {
			counts[at] = count
			total += count
		}
		return nil
	})
	return counts, total, err
}

func rebalanceQuery(v url.Values) (q RebalanceQuery, err error) {
	q = RebalanceQuery{Keyspace: v.Get("keyspace"), Empty: v.Get("empty"), Only: v.Get("only")}
	if text := v.Get("tolerance"); text != "" {
		if q.Tolerance, err = strconv.ParseFloat(text, 64); err != nil || !(q.Tolerance >= 0.01 && q.Tolerance <= 10) {
			return q, badRequest(fmt.Sprintf("tolerance is %.40q", text), "It is a part of the mean, from 0.01 to 10: 0.1 is a tenth.")
		}
	}
	return q, nil
}

// path is the call that asks this.
func (q RebalanceQuery) path() string {
	v := url.Values{}
	for name, text := range map[string]string{"keyspace": q.Keyspace, "empty": q.Empty, "only": q.Only} {
		if text != "" {
			v.Set(name, text)
		}
	}
	if q.Tolerance != 0 {
		v.Set("tolerance", strconv.FormatFloat(q.Tolerance, 'g', -1, 64))
	}
	return "/api/v1/rebalance?" + v.Encode()
}

func (a *api) rebalance(w http.ResponseWriter, r *http.Request) {
	q, err := rebalanceQuery(r.URL.Query())
	if err != nil {
		fail(w, err)
		return
	}
	v, err := a.office.Rebalance(r.Context(), q)
	answered(w, http.StatusOK, v, err)
}
