package demo

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"sync"
	"time"

	"rangefinder/internal/pgtest"
)

// backend is one PostgreSQL server of the demo.
type backend struct {
	*pgtest.Server
	name   string // shard_1-iad
	shard  int
	region region
}

func (b *backend) primary() bool { return home(b.shard) == b.region }

func (b *backend) role() string {
	if b.primary() {
		return "primary"
	}
	return "replica"
}

// Users on the servers: the application's, and the nodes' own for probes, for looking at tables and for moving ranges.
const (
	appUser  = "app"
	nodeUser = "rangefinder"
	database = "app"
)

// schema is what whoever runs the database has made on every shard before Rangefinder comes in.
const schema = `
CREATE TABLE orders (customer_id bigint NOT NULL, id bigint NOT NULL, note text NOT NULL, PRIMARY KEY (customer_id, id));
CREATE TABLE readings (device_id bigint PRIMARY KEY, value double precision NOT NULL);
ALTER TABLE orders OWNER TO app;
ALTER TABLE readings OWNER TO app`

// startServers starts all shards: a primary at home, a streaming replica in each other region.
func (d *demo) startServers(ctx context.Context) error {
	d.report.step("Start %d PostgreSQL servers: each shard a primary in one region, streaming replicas in the other two", shards*len(regions))
	d.appPassword, d.nodePassword = rand.Text(), rand.Text()
	begin := time.Now()
	var mu sync.Mutex
	var wg sync.WaitGroup
	errs := make([]error, shards)
	add := func(s *pgtest.Server, shard int, r region) *backend {
		mu.Lock()
		defer mu.Unlock()
		b := &backend{Server: s, name: s.Name(), shard: shard, region: r}
		d.backends = append(d.backends, b)
		d.byAddr[s.Addr()] = b
		return b
	}
	for shard := 1; shard <= shards; shard++ {
		wg.Go(func() { errs[shard-1] = d.startShard(ctx, shard, add) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	rows := [][]string{{"", "iad", "fra", "syd"}}
	for shard := 1; shard <= shards; shard++ {
		row := []string{shardName(shard)}
		for _, r := range regions {
			b := d.backend(shard, r)
			row = append(row, b.role()+" "+b.Addr())
		}
		rows = append(rows, row)
	}
	d.report.table(rows)
	d.report.check(true, "%d servers run after %.1f s, and all replicas stream", len(d.backends), time.Since(begin).Seconds())
	return nil
}

func (d *demo) startShard(ctx context.Context, shard int, add func(*pgtest.Server, int, region) *backend) error {
	options := func(r region) pgtest.Options {
		return pgtest.Options{
			Name: shardName(shard) + "-" + r.name, Bind: d.net.server(r, shard), Port: portIfFree(d.net.server(r, shard), 5432),
			Auth: "scram-sha-256", Params: map[string]string{"max_connections": "200", "wal_level": "logical"},
		}
	}
	primary, err := d.farm.Primary(ctx, options(home(shard)))
	if err != nil {
		return err
	}
	add(primary, shard, home(shard))
	if err := primary.CreateUser(ctx, appUser, d.appPassword, ""); err != nil {
		return err
	}
	if err := primary.CreateUser(ctx, nodeUser, d.nodePassword, "SUPERUSER REPLICATION"); err != nil {
		return err
	}
	if err := primary.Exec(ctx, fmt.Sprintf("CREATE DATABASE %s OWNER %s", database, appUser)); err != nil {
		return err
	}
	if err := primary.ExecIn(ctx, database, schema); err != nil {
		return err
	}
	for _, r := range regions {
		if r == home(shard) {
			continue
		}
		replica, err := d.farm.Replica(ctx, primary, options(r))
		if err != nil {
			return err
		}
		add(replica, shard, r)
	}
	return nil
}

// backend returns a region's copy of a shard.
func (d *demo) backend(shard int, r region) *backend {
	for _, b := range d.backends {
		if b.shard == shard && b.region == r {
			return b
		}
	}
	return nil
}

// caughtUp waits until every running replica has what its primary has.
func (d *demo) caughtUp(ctx context.Context) error {
	for _, b := range d.backends {
		if b.primary() || b.PID() == 0 {
			continue
		}
		if err := b.CaughtUp(ctx); err != nil {
			return err
		}
	}
	return nil
}

// portIfFree returns port if nobody listens there, else 0: any other.
func portIfFree(host string, port int) int {
	ln, err := net.Listen("tcp", fmt.Sprintf("%s:%d", host, port))
	if err != nil {
		return 0
	}
	_ = ln.Close()
	return port
}
