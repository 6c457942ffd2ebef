package node

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/rib"
	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// uniqueSQL makes the function that a column's default names. Servers make no numbers, for they have none of their own among the nodes' (see
// unique.go): it says so.
const uniqueSQL = rib.SchemaSQL + `
GRANT USAGE ON SCHEMA rangefinder TO PUBLIC;
CREATE OR REPLACE FUNCTION rangefinder.unique_id() RETURNS bigint
	LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS
$$ BEGIN
	RAISE EXCEPTION USING ERRCODE = 'feature_not_supported', MESSAGE = 'rangefinder.unique_id() is left to the server, which makes no numbers',
		DETAIL = 'Nodes make them, for INSERT INTO table (columns) VALUES (...).',
		HINT = 'Send such an INSERT through a node. COPY, INSERT ... SELECT, triggers and functions must give the column: SELECT rangefinder.unique_id() makes a number.';
END $$`

const (
	uniqueMakeEvery = 2 * time.Second  // between two looks at which databases lack the function
	uniqueMakeRetry = 30 * time.Second // after it could not be made
)

// databaseOn is a database on the server that a shard's primary is.
type databaseOn struct {
	shard, database string
	system          uint64
}

// uniqueMakeLoop has the function made in each database that has a keyspace, on the shards whose primaries this node observes.
func (n *Node) uniqueMakeLoop(ctx context.Context) {
	made, later := make(map[databaseOn]bool), make(map[databaseOn]time.Time)
	for pause(ctx, uniqueMakeEvery) {
		o := n.table.Owners().Get()
		here := n.shardsHere()
		for database, shards := range n.databaseShards(o) {
			for _, shard := range shards {
				s := o.Shard(shard)
				if s == nil || !slices.Contains(here, shard) {
					continue
				}
				at := databaseOn{shard, database, s.SystemID}
				if made[at] || time.Now().Before(later[at]) {
					continue
				}
				if err := n.makeUnique(ctx, shard, database); err != nil {
					if later[at].IsZero() {
						n.log.Info("rangefinder.unique_id() is no column's default there yet", "shard", shard, "database", database, "error", err)
					}
					later[at] = time.Now().Add(uniqueMakeRetry)
					continue
				}
				made[at] = true
			}
		}
	}
}

// databaseShards are the shards of the configured databases that have a keyspace.
func (n *Node) databaseShards(o *rib.Ownership) map[string][]string {
	all := make(map[string][]string)
	rules := n.cfg().databaseRules()
	catalog := sqlkey.NewCatalog(o, rules, nil) // a node that starts has no server yet
	for i := range o.Keyspaces {
		if name := o.Keyspaces[i].Database; all[name] == nil {
			if _, ok := rules[name]; ok {
				all[name] = catalog.Shards(name)
			}
		}
	}
	return all
}

// makeUnique makes the function on one shard, unless it is there.
func (n *Node) makeUnique(ctx context.Context, shard, database string) error {
	ctx, cancel := context.WithTimeout(ctx, shardTimeout)
	defer cancel()
	conn, err := n.connectPrimary(ctx, shard, database)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var there bool
	if err := conn.QueryRow(ctx, "SELECT pg_catalog.to_regprocedure('rangefinder.unique_id()') IS NOT NULL", pgx.QueryExecModeExec).Scan(&there); err != nil || there {
		return err
	}
	_, err = conn.PgConn().Exec(ctx, "SET search_path = pg_catalog; SET lock_timeout = '5s';"+uniqueSQL).ReadAll()
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == pg.CodeInsufficientPrivilege {
		c := conn.Config()
		return errors.New(refused.Message + ": GRANT CREATE ON DATABASE " + pgx.Identifier{c.Database}.Sanitize() + " TO " + pgx.Identifier{c.User}.Sanitize() + " on its primary, or make it by hand")
	}
	return err
}
