package node

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"rangefinder/cluster/balance"
	"rangefinder/rib"
)

// cutBySize suggests bounds for the splits of which no load tells where: those by which the rows of the largest table fall into parts that are about alike, by a sample.
func (n *Node) cutBySize(ctx context.Context, o *rib.Ownership, p *balance.Plan) error {
	for i := range p.Splits {
		s := &p.Splits[i]
		if ks := o.KeyspaceByName(s.Keyspace); ks != nil && len(s.At) == 0 {
			at, err := n.boundsBySize(ctx, ks, s)
			if err != nil {
				return err
			}
			s.At = at
		}
	}
	return nil
}

func (n *Node) boundsBySize(ctx context.Context, ks *rib.Keyspace, s *balance.Split) ([]string, error) {
	m, err := rib.MethodByName(ks.Method)
	if err != nil {
		return nil, err
	}
	from, to, err := ks.ParseInterval(s.Bounds)
	if err != nil {
		return nil, err
	}
	conn, err := n.connectPrimary(ctx, s.Shard, ks.Database)
	if err != nil {
		return nil, fmt.Errorf("shard %s: %w", s.Shard, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	keys, err := sampleKeys(ctx, conn, ks, m, from, to)
	if err != nil {
		return nil, fmt.Errorf("shard %s: %w", s.Shard, err)
	}
	return quantiles(m, ks.Types, from, keys, min(s.Parts, balance.MaxCuts+1)), nil
}

// sampleKeys are the keys of rows of an interval, of the keyspace's largest table there.
func sampleKeys(ctx context.Context, conn *pgx.Conn, ks *rib.Keyspace, m rib.Method, from, to rib.Key) ([]rib.Key, error) {
	var largest *rib.KeyedTable
	var most, tuples int64
	for i := range ks.Tables {
		rows, size, err := sizeOf(ctx, conn, &ks.Tables[i])
		if err != nil {
			return nil, err
		}
		if largest == nil || size > most {
			largest, most, tuples = &ks.Tables[i], size, rows
		}
	}
	if largest == nil {
		return nil, nil
	}
	columns := rib.QuoteIdents(largest.Columns)
	rows, err := conn.Query(ctx, fmt.Sprintf("SELECT ARRAY[%s::text] FROM %s WHERE %s", strings.Join(columns, "::text, "), sampled(largest, tuples), m.Predicate(columns, ks.Types, from, to)), pgx.QueryExecModeExec)
	if err != nil {
		return nil, err
	}
	var keys []rib.Key
	var texts []string
	_, err = pgx.ForEachRow(rows, []any{&texts}, func() error {
		var key rib.Key
		for i, t := range ks.Types {
			v, err := rib.ParseText(t, []byte(texts[i]))
			if err == nil {
				key, err = m.AppendKey(key, v)
			}
			if err != nil {
				return err
			}
		}
		keys = append(keys, m.Join(key, 0))
		return nil
	})
	return keys, err
}

// quantiles are bounds behind from by which keys fall into so many parts that are about alike, as far as there are such: of a key with many rows there is one.
func quantiles(m rib.Method, types []rib.Type, from rib.Key, keys []rib.Key, parts int) (at []string) {
	slices.SortFunc(keys, rib.Key.Compare)
	before := from
	for i := 1; i < parts && len(keys) > 0; i++ {
		key := keys[i*len(keys)/parts]
		text := m.FormatKey(types, key)
		if again, err := m.ParseBound(types, text); key.Compare(before) <= 0 || err != nil || again.Compare(key) != 0 {
			continue
		}
		at, before = append(at, text), key
	}
	return at
}

// sizeOf is how many rows a table of a shard has, about, and how large it is with its indexes, or both of all of its partitions.
func sizeOf(ctx context.Context, conn *pgx.Conn, t *rib.KeyedTable) (rows, size int64, err error) {
	const look = `SELECT coalesce(sum(greatest(reltuples, 0)), 0)::bigint, coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
WHERE relkind <> 'p' AND (oid = $1::regclass OR oid IN (SELECT relid FROM pg_partition_tree($1::regclass)))`
	name := t.SQL()
	if err := conn.QueryRow(ctx, look, pgx.QueryExecModeExec, name).Scan(&rows, &size); err != nil {
		return 0, 0, fmt.Errorf("table %s: %w", name, err)
	}
	return rows, size, nil
}

// sampled is a table in a FROM, or, if it is large, so many of its blocks that they have about sampleRows rows.
func sampled(t *rib.KeyedTable, rows int64) string {
	name := t.SQL()
	if rows > sampleRows {
		name += " TABLESAMPLE SYSTEM (" + strconv.FormatFloat(100*sampleRows/float64(rows), 'f', 6, 64) + ")"
	}
	return name
}
