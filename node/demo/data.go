package demo

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// What is loaded: customers 1..customers with an order each, and devices at even steps over three ranges.
const (
	customers  = 300
	devices    = 300
	deviceStep = 10
)

// firstDevice is a shard's first device. Those from 1000 to 2000 are left out: a range without rows, to be given another shard.
func firstDevice(shard int) int64 { return []int64{0, 2000, 3000}[shard-1] }

// deviceShard is the shard of a device by the range keyspace's splits.
func deviceShard(device int64) int {
	for shard := shards; shard > 1; shard-- {
		if device >= firstDevice(shard) {
			return shard
		}
	}
	return 1
}

// makeKeyspaces says which tables are sharded, and how.
func (d *demo) makeKeyspaces(ctx context.Context) error {
	d.report.step("Make two keyspaces: orders by the hash of customer_id, readings by ranges of device_id")
	var names []string
	for shard := 1; shard <= shards; shard++ {
		names = append(names, shardName(shard))
	}
	err := d.run(ctx, "keyspace", "create", "app.orders", "--key", "customer_id", "--type", "bigint", "--method", "hash", "--shards", strings.Join(names, ","))
	if err != nil {
		return err
	}
	err = d.run(ctx, "keyspace", "create", "app.readings", "--key", "device_id", "--type", "bigint", "--method", "range",
		"--range", "..2000=shard_1", "--range", "2000..3000=shard_2", "--range", "3000..=shard_3")
	if err != nil {
		return err
	}
	begin := time.Now()
	err = d.until(ctx, 30*time.Second, func() error {
		for _, r := range d.routers {
			var v struct{ Ranges []struct{ Keyspace string } }
			if err := get(ctx, r.url("/api/v1/ranges"), &v); err != nil {
				return err
			}
			if len(v.Ranges) != 2*shards {
				return fmt.Errorf("node %s knows %d ranges of %d", r.region.name, len(v.Ranges), 2*shards)
			}
		}
		return nil
	})
	if err == nil {
		d.report.check(true, "all nodes know all %d ranges, %s after the command", 2*shards, millis(time.Since(begin)))
	}
	return err
}

// connect opens a client's connection to a region's node.
func (d *demo) connect(ctx context.Context, r *router) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable&application_name=demo", appUser, r.addr(r.ports.postgres), database))
	if err != nil {
		return nil, err
	}
	config.Password = d.appPassword
	config.ConnectTimeout = 10 * time.Second
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to node %s: %w", r.region.name, err)
	}
	return conn, nil
}

// session is connect for a connection that is closed with the demo.
func (d *demo) session(ctx context.Context, r *router) (*pgx.Conn, error) {
	conn, err := d.connect(ctx, r)
	if err == nil {
		d.conns = append(d.conns, conn)
	}
	return conn, err
}

// loadRows inserts all rows through the three nodes and then counts, on the shards themselves, where they are.
func (d *demo) loadRows(ctx context.Context) error {
	d.report.step("Load %d orders and %d readings through the three nodes, a row a statement", customers, devices)
	type row struct {
		sql  string
		args []any
	}
	work := make([]chan row, len(d.routers))
	for i := range work {
		work[i] = make(chan row, customers+devices)
	}
	for i := range int64(customers) {
		id := i + 1
		d.notes[id] = fmt.Sprintf("order of customer %d", id)
		work[id%int64(len(work))] <- row{"INSERT INTO orders (customer_id, id, note) VALUES ($1, 1, $2)", []any{id, d.notes[id]}}
	}
	for i := range int64(devices) {
		each := int64(devices / shards)
		device := firstDevice(int(i/each)+1) + i%each*deviceStep
		work[i%int64(len(work))] <- row{"INSERT INTO readings (device_id, value) VALUES ($1, $2)", []any{device, float64(device) / 2}}
	}
	begin := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, fmt.Errorf("the rows were not loaded within 2 minutes"))
	defer cancel()
	const clients = 8 // a node; most of their time goes into waiting for another region
	errs := make(chan error, clients*len(work))
	var wg sync.WaitGroup
	for i, rows := range work {
		close(rows)
		for range clients {
			wg.Go(func() {
				conn, err := d.connect(ctx, d.routers[i])
				if err != nil {
					errs <- err
					return
				}
				defer func() { _ = conn.Close(ctx) }()
				for r := range rows {
					if _, err := conn.Exec(ctx, r.sql, r.args...); err != nil {
						errs <- fmt.Errorf("node %s: %s %v: %w", d.routers[i].region.name, r.sql, r.args, err)
						return
					}
				}
			})
		}
	}
	wg.Wait()
	close(errs)
	if err := <-errs; err != nil {
		return err
	}
	took := time.Since(begin)
	if err := d.caughtUp(ctx); err != nil {
		return err
	}
	d.report.check(true, "%d rows in %.1f s", customers+devices, took.Seconds())
	return d.countRows(ctx)
}

// countRows asks each shard's primary for its rows, and for those that it should not have: of orders by PostgreSQL's own hash
// function (an unsigned 64-bit position, split evenly), of readings by their range.
func (d *demo) countRows(ctx context.Context) error {
	const ordersSQL = `SELECT customer_id,
		1 + floor(((hashint8extended(customer_id, 0)::numeric + 18446744073709551616) % 18446744073709551616) * $1::int / 18446744073709551616)::int
		FROM orders`
	orders, readings, strays := 0, 0, 0
	for shard := 1; shard <= shards; shard++ {
		b := d.backend(shard, home(shard))
		conn, err := b.ConnTo(ctx, database, "")
		if err != nil {
			return err
		}
		mine := 0
		var id int64
		var owner int
		rows, err := conn.Query(ctx, ordersSQL, shards)
		if err == nil {
			_, err = pgx.ForEachRow(rows, []any{&id, &owner}, func() error {
				if d.shardOf[id] != 0 || owner != shard {
					strays++
				}
				d.shardOf[id] = owner
				mine++
				return nil
			})
		}
		var devicesHere int
		if err == nil {
			rows, err = conn.Query(ctx, "SELECT device_id FROM readings")
		}
		if err == nil {
			_, err = pgx.ForEachRow(rows, []any{&id}, func() error {
				if deviceShard(id) != shard {
					strays++
				}
				devicesHere++
				return nil
			})
		}
		_ = conn.Close(ctx)
		if err != nil {
			return err
		}
		d.report.check(mine > 0 && devicesHere > 0, "%s holds %d orders and %d readings", shardName(shard), mine, devicesHere)
		orders, readings = orders+mine, readings+devicesHere
	}
	d.report.check(orders == customers && readings == devices && strays == 0,
		"together %d of %d orders and %d of %d readings, %d rows on a shard that does not own them", orders, customers, readings, devices, strays)
	return nil
}

// customerOn returns a customer whose orders are on a shard, the lowest from start on.
func (d *demo) customerOn(shard int, start int64) int64 {
	for id := start; id <= customers; id++ {
		if d.shardOf[id] == shard {
			return id
		}
	}
	return 1
}
