package cluster

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"rangefinder/rib"
)

// schemasSQL counts what the listed schemas hold on a server.
const schemasSQL = `
SELECT n.nspname::text, (SELECT count(*) FROM pg_class AS c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S'))
FROM pg_namespace AS n WHERE n.nspname = ANY($1::name[]) ORDER BY 1`

// schemas returns the listed schemas that are where they would not be looked for.
func (c *checker) schemas(ctx context.Context, conn *pgx.Conn, shard string) (all []Obstacle, err error) {
	names, shards := c.ks.Schemas()
	owner := make(map[string]string, len(names))
	for i, name := range names {
		owner[name] = shards[i]
	}
	rows, err := conn.Query(ctx, schemasSQL, pgx.QueryExecModeExec, names)
	if err != nil {
		return nil, err
	}
	var name string
	var holds int64
	_, err = pgx.ForEachRow(rows, []any{&name, &holds}, func() error {
		if owner[name] != shard {
			all = append(all, Obstacle{Shard: shard, Rows: holds, Problem: fmt.Sprintf(
				"schema %s is here, with %d tables and the like, and would belong to %s: move it there, list it for this shard, or drop it", rib.QuoteIdent(name), holds, owner[name])})
		}
		return nil
	})
	return all, err
}
