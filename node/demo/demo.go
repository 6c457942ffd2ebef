package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
)

// Options say how the demo runs.
type Options struct {
	Once   bool      // end after the last step; false: stay until ctx ends
	Binary string    // the rangefinder program that nodes run; "": this process's own
	Out    io.Writer // the story; nil: standard output
	Dir    string    // where the demo makes its temporary folder; "": in memory if there is plenty, else the system's place
}

// demo is one running demonstration.
type demo struct {
	binary string
	dir    string // configurations, secrets, logs; inside the farm's folder
	report *report
	farm   *pgtest.Farm
	net    network

	appPassword  string
	nodePassword string
	backends     []*backend
	byAddr       map[string]*backend
	routers      []*router // in the order of regions
	conns        []*pgx.Conn

	notes   map[int64]string // orders: customer_id -> note, as last written
	shardOf map[int64]int    // orders: customer_id -> shard, as PostgreSQL's hash has it
}

// Run starts the cluster, shows every step and, unless it is to run once, leaves the cluster running until ctx ends. It then
// stops everything that it started and removes its files. The error is nil only if every step showed what it should; if
// ctx ends before the last step, it is ctx's.
func Run(ctx context.Context, o Options) (err error) {
	d := &demo{
		binary: o.Binary, byAddr: map[string]*backend{}, notes: map[int64]string{}, shardOf: map[int64]int{},
		report: &report{out: o.Out, begin: time.Now()},
	}
	if d.report.out == nil {
		d.report.out = os.Stdout
	}
	if d.binary == "" {
		if d.binary, err = os.Executable(); err != nil {
			return err
		}
	}
	if d.binary, err = filepath.Abs(d.binary); err != nil {
		return err
	}
	if d.net, err = claimNetwork(); err != nil {
		return err
	}
	if d.farm, err = pgtest.Open(ctx, o.Dir); err != nil {
		return errors.Join(err, d.net.close())
	}
	defer func() {
		if closeErr := d.close(); err == nil {
			err = closeErr
		}
	}()
	d.dir = filepath.Join(d.farm.Dir(), "demo")
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		return err
	}

	d.report.say("Rangefinder: a cluster in three regions on this machine, in %s", d.dir)
	for _, step := range []func(context.Context) error{
		d.startServers, d.startNodes, d.makeKeyspaces, d.loadRows, d.showReads, d.showWrites, d.killUnderLoad, d.bringBack,
	} {
		if err := step(ctx); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return errors.Join(err, d.report.err(), d.logs())
		}
	}
	err = d.report.err()
	if err == nil {
		d.report.step("Every step showed what it should")
	} else {
		d.report.step("NOT every step showed what it should")
		err = errors.Join(err, d.logs())
	}
	if o.Once {
		return err
	}
	d.invite()
	<-ctx.Done()
	d.report.say("stopping")
	return err
}

// invite says how to look around.
func (d *demo) invite() {
	passfile := d.file("pgpass")
	var lines strings.Builder
	for _, r := range d.routers {
		fmt.Fprintf(&lines, "%s:%d:*:%s:%s\n", r.host, r.ports.postgres, appUser, d.appPassword)
	}
	if err := os.WriteFile(passfile, []byte(lines.String()), 0o600); err != nil {
		d.report.say("cannot write %s: %v", passfile, err)
	}
	d.report.say("The cluster runs on. A client in each region would say:")
	for _, r := range d.routers {
		d.report.say("  %s   PGPASSFILE=%s psql -h %s -p %d -U %s %s", r.region.name, passfile, r.host, r.ports.postgres, appUser, database)
	}
	d.report.say("for example: SELECT * FROM orders WHERE customer_id = 42;")
	for _, r := range d.routers {
		d.report.say("  %s   %s", r.region.name, r.url("/debug"))
	}
	d.report.say("rangefinder status --admin %s", d.routers[0].url(""))
	d.report.say("Devices 1000 to 2000 have no readings: give them another shard for an hour, and see who owns what, and why:")
	d.report.say(`  curl -X POST %s -d '{"partition_key_range": "1000-2000", "target_backend": "shard_3", "ttl": 3600}'`, d.routers[0].url("/api/v1/routing-map"))
	d.report.say("  rangefinder range list --keyspace app.readings --admin %s", d.routers[0].url(""))
	d.report.say("Move those that have readings, while clients read and write them:")
	d.report.say("  rangefinder move start app.readings 2000-2500 --to shard_3 --watch --admin %s", d.routers[0].url(""))
	d.report.say("Ctrl-C stops everything and removes its files.")
}

// close stops clients, nodes and servers, in this order.
func (d *demo) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, c := range d.conns {
		_ = c.Close(ctx)
	}
	var wg sync.WaitGroup
	for _, r := range d.routers {
		if r.process != nil {
			wg.Go(func() { r.process.Stop(syscall.SIGTERM) })
		}
	}
	wg.Wait()
	return errors.Join(d.farm.Close(), d.net.close())
}

// logs is the end of each node's log, for a demo that went wrong.
func (d *demo) logs() error {
	var errs []error
	for _, r := range d.routers {
		errs = append(errs, fmt.Errorf("the log of node %s ends:\n%s", r.region.name, tail(r.log(), 10)))
	}
	return errors.Join(errs...)
}

// file is a path in the demo's folder.
func (d *demo) file(name string) string { return filepath.Join(d.dir, name) }
