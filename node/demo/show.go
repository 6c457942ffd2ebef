package demo

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/lab"
)

// Every statement that is shown asks the server that runs it who it is: these functions say it and are no writes.
const whoServed = "host(inet_server_addr()), inet_server_port()"

const (
	readOrder   = "SELECT note, " + whoServed + " FROM orders WHERE customer_id = $1"
	readReading = "SELECT value::text, " + whoServed + " FROM readings WHERE device_id = $1"
	writeOrder  = "UPDATE orders SET note = $2 WHERE customer_id = $1 RETURNING note, " + whoServed
)

// served is one answer and the server that gave it.
type served struct {
	value string
	by    *backend
	took  time.Duration
}

// ask runs one of the statements above.
func (d *demo) ask(ctx context.Context, conn *pgx.Conn, sql string, args ...any) (s served, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var host string
	var port int
	begin := time.Now()
	if err := conn.QueryRow(ctx, sql, args...).Scan(&s.value, &host, &port); err != nil {
		return s, err
	}
	s.took = time.Since(begin)
	addr := net.JoinHostPort(host, strconv.Itoa(port))
	if s.by = d.byAddr[addr]; s.by == nil {
		return s, fmt.Errorf("served by %s, which is no server of this demo", addr)
	}
	return s, nil
}

// showReads reads one row of every shard and keyspace from every region.
func (d *demo) showReads(ctx context.Context) error {
	d.report.step("Read from each region: who served it, and in how many milliseconds")
	if err := d.nearby(ctx); err != nil {
		return err
	}
	type question struct {
		text, sql, explain string
		key                int64
		shard              int
		want               string
	}
	var questions []question
	for shard := 1; shard <= shards; shard++ {
		key := d.customerOn(shard, 40)
		questions = append(questions, question{
			text: fmt.Sprintf("orders of customer %d", key), sql: readOrder, key: key, shard: shard, want: d.notes[key],
			explain: fmt.Sprintf("SELECT note FROM orders WHERE customer_id = %d", key),
		})
	}
	for shard := 1; shard <= shards; shard++ {
		key := firstDevice(shard) + 500
		questions = append(questions, question{
			text: fmt.Sprintf("reading of device %d", key), sql: readReading, key: key, shard: shard, want: strconv.FormatInt(key/2, 10),
			explain: fmt.Sprintf("SELECT value FROM readings WHERE device_id = %d", key),
		})
	}
	direct, err := d.directAll(ctx)
	if err != nil {
		return err
	}
	rows := [][]string{{"from", "question", "shard", "served by", "", "in", "from its primary it takes"}}
	wrong := 0
	var slowest time.Duration
	for _, r := range d.routers {
		conn, err := d.session(ctx, r)
		if err != nil {
			return err
		}
		for _, q := range questions {
			best, err := d.best(ctx, conn, q.sql, q.key)
			if err != nil {
				return fmt.Errorf("from %s, %s: %w", r.region.name, q.text, err)
			}
			a, err := d.route(ctx, r, q.explain)
			if err != nil {
				return err
			}
			slowest = max(slowest, best.took)
			rows = append(rows, []string{r.region.name, q.text, a.Shard, best.by.name, best.by.role(), millis(best.took), millis(direct[r.region.number][q.shard])})
			for _, bad := range []struct {
				is   bool
				what string
			}{
				{best.value != q.want, fmt.Sprintf("the answer is %q, not %q", best.value, q.want)},
				{best.by.shard != q.shard || a.Shard != shardName(q.shard), fmt.Sprintf("it belongs to %s; the node said %s", shardName(q.shard), a.Shard)},
				{best.by.region != r.region, "it was served in " + best.by.region.name},
				{a.Candidates[0].Addr != best.by.Addr(), fmt.Sprintf("the node named %s, %s served it", a.Candidates[0].Backend, best.by.name)},
			} {
				if bad.is {
					wrong++
					d.report.check(false, "from %s, %s: %s", r.region.name, q.text, bad.what)
				}
			}
		}
	}
	d.report.table(rows)
	d.report.check(wrong == 0, "every read has the right answer, from the copy in its own region; node and server agree on who served it")
	d.report.check(slowest < rtt(regions[0], regions[1]), "the slowest took %s; the nearest other region is %v away", millis(slowest), rtt(regions[0], regions[1]))
	return nil
}

// nearby waits until every node puts the copy in its own region first: it must have measured the others' distance once.
func (d *demo) nearby(ctx context.Context) error {
	return d.until(ctx, 60*time.Second, func() error {
		for _, r := range d.routers {
			for shard := 1; shard <= shards; shard++ {
				a, err := d.route(ctx, r, fmt.Sprintf("SELECT note FROM orders WHERE customer_id = %d", d.customerOn(shard, 1)))
				if err != nil {
					return err
				}
				if first := a.Candidates[0]; first.Region != r.region.name {
					return fmt.Errorf("node %s would read %s from %s: %s", r.region.name, a.Shard, first.Backend, first.Reason)
				}
			}
		}
		return nil
	})
}

// best asks a few times, as the first also prepares the statement and opens connections, and returns the fastest answer.
// All answers must be the same, from the same server.
func (d *demo) best(ctx context.Context, conn *pgx.Conn, sql string, key int64) (served, error) {
	var all []served
	for range 4 {
		s, err := d.ask(ctx, conn, sql, key)
		if err != nil {
			return s, err
		}
		if len(all) > 0 && (s.by != all[0].by || s.value != all[0].value) {
			return s, fmt.Errorf("%q from %s, then %q from %s", all[0].value, all[0].by.name, s.value, s.by.name)
		}
		all = append(all, s)
	}
	return slices.MinFunc(all, func(a, b served) int { return int(a.took - b.took) }), nil
}

// directAll measures, for every region and shard, a read of the shard's primary from there without a node between.
func (d *demo) directAll(ctx context.Context) (took [len(regions) + 1][shards + 1]time.Duration, err error) {
	var wg sync.WaitGroup
	errs := make(chan error, len(regions)*shards)
	for _, from := range regions {
		for shard := 1; shard <= shards; shard++ {
			wg.Go(func() {
				var err error
				if took[from.number][shard], err = d.direct(ctx, from, d.backend(shard, home(shard)), d.customerOn(shard, 1)); err != nil {
					errs <- err
				}
			})
		}
	}
	wg.Wait()
	close(errs)
	return took, <-errs
}

// direct is the time of a prepared read of a server, from a region.
func (d *demo) direct(ctx context.Context, from region, b *backend, customer int64) (time.Duration, error) {
	config, err := pgx.ParseConfig(b.DSN(database, appUser))
	if err != nil {
		return 0, err
	}
	config.DialFunc = (&lab.Dialer{Rules: d.net.delays(from)}).DialContext
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close(ctx) }()
	best, err := d.best(ctx, conn, readOrder, customer)
	return best.took, err
}

// showWrites writes a row from every region, to a shard whose primary is elsewhere, and reads it back in the same session.
func (d *demo) showWrites(ctx context.Context) error {
	d.report.step("Write from each region: it goes to the primary, wherever that is")
	rows := [][]string{{"from", "write", "shard", "done by", "", "in", "the same session then reads it from"}}
	wrong := 0
	bad := func(format string, args ...any) {
		wrong++
		d.report.check(false, format, args...)
	}
	for i, r := range d.routers {
		conn, err := d.session(ctx, r)
		if err != nil {
			return err
		}
		shard := (i+1)%shards + 1
		primary := d.backend(shard, home(shard))
		key := d.customerOn(shard, 100)
		var s served
		for try := range 3 { // the first also prepares
			d.notes[key] = fmt.Sprintf("changed from %s, take %d", r.region.name, try+1)
			if s, err = d.ask(ctx, conn, writeOrder, key, d.notes[key]); err != nil {
				return fmt.Errorf("write from %s: %w", r.region.name, err)
			}
		}
		back, err := d.ask(ctx, conn, readOrder, key)
		if err != nil {
			return err
		}
		a, err := d.route(ctx, r, fmt.Sprintf("UPDATE orders SET note = 'x' WHERE customer_id = %d", key))
		if err != nil {
			return err
		}
		rows = append(rows, []string{r.region.name, fmt.Sprintf("order of customer %d", key), a.Shard, s.by.name, s.by.role(), millis(s.took), back.by.name})
		far := rtt(r.region, primary.region)
		switch {
		case s.by != primary:
			bad("from %s: written by %s, the primary is %s", r.region.name, s.by.name, primary.name)
		case a.Candidates[0].Addr != primary.Addr():
			bad("from %s: the node said %s, the primary is %s", r.region.name, a.Candidates[0].Backend, primary.name)
		case back.value != d.notes[key]:
			bad("from %s: the session reads %q after it wrote %q", r.region.name, back.value, d.notes[key])
		case s.took < far*9/10:
			bad("from %s: %s is less than the %v to %s: is the delay real?", r.region.name, millis(s.took), far, primary.region.name)
		}
	}
	d.report.table(rows)
	d.report.check(wrong == 0, "every write was done by its shard's primary, took at least the way there and back, and its session reads it")
	return d.caughtUp(ctx)
}
