package wire_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"rangefinder/fib"
	"rangefinder/internal/pgtest"
	"rangefinder/rib"
	"rangefinder/wire"
	"rangefinder/wire/auth"
	"rangefinder/wire/moving"
	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
	"rangefinder/wire/scatter"
	"rangefinder/wire/sqlkey"
	"rangefinder/wire/twophase"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.WithFarm(m)) }

// rig is one router in front of real servers: two shards, each a primary with a replica, and a table app.orders that is
// sharded over them by the hash of customer_id. Table notes is on shard_1 alone.
type rig struct {
	t       *testing.T
	table   *rib.Table
	handle  *fib.Handle
	server  *wire.Server
	live    wire.Live // what the server began with
	pools   *pool.Pools
	planner *sqlkey.Planner
	addr    string
	counts  *counts
	tls     bool
	servers []shardServers
	moves   *moving.Moves
	fenced  atomic.Int64 // how often a shard has refused a row
	lonely  atomic.Bool  // the node has no lease
	lately  atomic.Bool  // and has lost it a moment ago
	asked   atomic.Int64 // how often a session has asked for it while that was so

	mu    sync.Mutex
	stamp uint64
}

// shards are started once: every rig stands in front of the same servers, and makes its database there anew. Tests that run beside others
// have servers of their own: see bothAtOnce.
type shardServers struct{ primary, replica *pgtest.Server }

type sharedShards struct {
	once sync.Once
	all  []shardServers
}

var shared, sharedBeside sharedShards

func servers(t *testing.T) []shardServers {
	s := &shared
	if strings.Contains(t.Name(), beside) {
		s = &sharedBeside
	}
	s.once.Do(func() {
		for range 2 {
			prepares := pgtest.Options{Params: map[string]string{"max_prepared_transactions": "20"}}
			p, err := pgtest.Shared(t).Primary(t.Context(), prepares)
			if err != nil {
				t.Fatal(err)
			}
			r, err := pgtest.Shared(t).Replica(t.Context(), p, prepares)
			if err != nil {
				t.Fatal(err)
			}
			s.all = append(s.all, shardServers{p, r})
		}
	})
	if len(s.all) != 2 {
		t.Fatal("the servers did not start in an earlier test")
	}
	return s.all
}

type counts struct {
	mu       sync.Mutex
	failover map[string]int
	errors   map[string]int
	refused  map[string]int
	limited  map[string]int
	recheck  map[string]int
	looked   map[string]int
	scatter  map[string]int
}

func (c *counts) Routed(int, int, time.Duration) {}
func (c *counts) Refused(code string)            { c.add(&c.refused, code) }
func (c *counts) BackendError(b, code string)    { c.add(&c.errors, b+" "+code) }
func (c *counts) Failover(backend string)        { c.add(&c.failover, backend) }
func (c *counts) Scattered(shards int)           { c.add(&c.scatter, strconv.Itoa(shards)) }
func (c *counts) Limited(kind wire.Refusal)      { c.add(&c.limited, string(kind)) }

// limits is how often a limit was met.
func (c *counts) limits(kind wire.Refusal) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.limited[string(kind)]
}

// looks is how often that backend was asked how far it is because a session waited for that.
func (c *counts) looks(backend string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.looked[backend]
}

// failedOver is how often a statement went elsewhere because that backend failed.
func (c *counts) failedOver(backend string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failover[backend]
}

func (c *counts) add(m *map[string]int, k string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if *m == nil {
		*m = make(map[string]int)
	}
	(*m)[k]++
}

// patience is how long tests wait for what must come: on a quiet machine it comes at once, and on a busy one it comes.
const patience = 30 * time.Second

type rigOptions struct {
	sleepAfter time.Duration
	own        bool // pool_mode = "session"
	buffered   bool // clients are no plain sockets, as with TLS
	tls        bool // clients speak TLS: dsn says so
	poolSize   int
	prepared   int           // see pool.Limits
	wait       time.Duration // 0: patience
	limits     wire.Limits   // nothing: 200 clients
	failover   time.Duration // wire.Live.FailoverWait
	maxFrame   int
	startup    time.Duration    // 0: patience
	dial       pool.Dialer      // nil: a plain one
	demands    *tls.Config      // the node demands TLS of servers; nil: it does not
	shards     []shardServers   // instead of the shared ones
	backends   []rib.Backend    // more of them, announced as primaries that are up
	keyed      []rib.KeyedTable // of one more keyspace, by the hash of an int
	across     bool             // transactions may write on several shards, by two-phase commit
	learn      func(ctx context.Context, database string) bool
	log        io.Writer // what is logged, beside the test's own log; nil: nobody
}

const (
	fakeSystemID = 1000 // of servers that are none

	testUser     = "app"
	testPassword = "s3cret 'pass' \\ word"
)

func newRig(t *testing.T, o rigOptions) *rig {
	t.Helper()
	if o.shards == nil && o.backends == nil {
		o.shards = servers(t)
	}
	if o.poolSize == 0 {
		o.poolSize = 20
	}
	if o.wait == 0 {
		o.wait = patience
	}
	if o.startup == 0 {
		o.startup = patience
	}
	if o.limits.Clients == 0 {
		o.limits.Clients = 200
	}
	if o.dial == nil {
		o.dial = new(net.Dialer).DialContext
	}
	if o.maxFrame == 0 {
		o.maxFrame = 16 << 20
	}
	r := &rig{t: t, servers: o.shards, table: rib.NewTable(rib.Member{Name: "n1", Region: "fra"}), handle: new(fib.Handle), counts: new(counts)}
	var logged io.Writer = testWriter{t}
	if o.log != nil {
		logged = io.MultiWriter(logged, o.log)
	}
	log := slog.New(slog.NewTextHandler(logged, nil))

	own := &rib.Ownership{ClusterID: "test", Epoch: rib.Epoch{Index: 1}, Catalog: 1}
	h := r.table.Health()
	h.Distance("fra", time.Millisecond, time.Now())
	var names []string
	for i, s := range o.shards {
		name := fmt.Sprintf("shard_%d", i+1)
		names = append(names, name)
		own.Shards = append(own.Shards, rib.Shard{Name: name, SystemID: s.primary.SystemID()})
		r.announce(rib.Backend{Name: name + "-primary", Shard: name, Region: "far", Addr: s.primary.Addr(), SystemID: s.primary.SystemID()}, rib.Primary)
		if s.replica != nil {
			r.announce(rib.Backend{Name: name + "-replica", Shard: name, Region: "fra", Addr: s.replica.Addr(), SystemID: s.primary.SystemID()}, rib.Replica)
		}
	}
	for _, b := range o.backends {
		b.SystemID = fakeSystemID
		names = append(names, b.Shard)
		own.Shards = append(own.Shards, rib.Shard{Name: b.Shard, SystemID: b.SystemID})
		r.announce(b, rib.Primary)
	}
	own.Keyspaces = []rib.Keyspace{{
		ID: 1, Name: "app.orders", Database: "app", Method: "hash", Types: []rib.Type{rib.TypeBigint},
		Tables: []rib.KeyedTable{{Schema: "public", Name: "orders", Columns: []string{"customer_id"}}},
		Ranges: rib.EvenRanges(names),
	}, {
		ID: 2, Name: "app.countries", Database: "app", Method: rib.MethodReference, Tables: []rib.KeyedTable{{Schema: "public", Name: "countries"}},
		Ranges: rib.ReferenceRanges(names),
	}}
	if o.keyed != nil {
		own.Keyspaces = append(own.Keyspaces, rib.Keyspace{
			ID: 3, Name: "app.keyed", Database: "app", Method: "hash", Types: []rib.Type{rib.TypeInt}, Tables: o.keyed, Ranges: rib.EvenRanges(names),
		})
	}
	h.Distance("far", 50*time.Millisecond, time.Now())
	r.table.Owners().Set(own)

	m := fib.NewMaintainer(r.table, r.handle, log)
	m.Open()
	t.Cleanup(func() { m.Close() })
	r.moves = moving.New(moving.Config{FIB: r.handle})
	following, stop := context.WithCancel(context.Background())
	var followers sync.WaitGroup
	followers.Go(func() { r.moves.Run(following) })
	t.Cleanup(followers.Wait)
	t.Cleanup(stop)

	var looks sync.WaitGroup
	t.Cleanup(looks.Wait)
	guard := auth.NewGuard(&auth.Policy{Users: map[string]auth.User{
		testUser: {Shadow: pg.NewShadow(testUser, testPassword, nil), Credential: pg.Password(testPassword)},
	}}, nil)
	r.pools = pool.New(pool.Config{
		Limits:     pool.Limits{Size: o.poolSize, Wait: o.wait, Idle: time.Minute, Prepared: o.prepared, Connect: patience},
		Dial:       o.dial,
		TLS:        func(string) *tls.Config { return o.demands },
		Credential: func(id pool.Identity) pg.Credential { return guard.Credential(id.User, id.Database) },
		Report: func(backend string, err error) {
			log.Info("evidence", "backend", backend, "err", err)
			h.Evidence(backend, true, err.Error())
		},
		Logger: log,
	})
	r.pools.Open()
	r.live = wire.Live{
		Databases: map[string]sqlkey.DatabaseRule{"app": {Shard: "shard_1", OwnConnections: o.own}, "other": {Shard: "shard_1"}, "plain": {Shard: "shard_1"}},
		Limits:    o.limits, MaxFrame: o.maxFrame, StartupTimeout: o.startup, FailoverWait: o.failover,
		Console: wire.ConsoleConfig{Users: []string{testUser}, Version: "test", Known: []string{testUser}},
	}
	if o.tls {
		pair := pgtest.NewAuthority(t).IssueTo(t, "localhost").TLS(t)
		cfg := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
		r.tls, r.live.TLS, r.live.RequireTLS = true, func() *tls.Config { return cfg }, true
	}
	var committer scatter.Committer
	if o.across {
		r.live.Across = map[string]bool{"app": true}
		m := twophase.New(twophase.Config{
			Cluster: "test", Node: "n1", Logger: log, Shards: func() []string { return names }, Uses: func() []string { return []string{"app"} },
			Sites: twophase.Connect(func(ctx context.Context, shard, database string) (*pgx.Conn, error) {
				return r.primaryOf(shard).ConnTo(ctx, database, "")
			}),
		})
		m.Open()
		t.Cleanup(m.Close)
		committer = m
	}
	r.planner = sqlkey.NewPlanner(sqlkey.PlannerConfig{})
	r.server = wire.NewServer(wire.Config{
		Explain:   func(r *wire.Route) []string { return []string{r.Plan.Reason} },
		Committer: committer, Moves: r.moves, Leased: r.leased, Alone: func(time.Time) bool { return r.lonely.Load() && !r.lately.Load() }, Fenced: func() { r.fenced.Add(1) },
		FIB: r.handle, Planner: r.planner, Pools: r.pools, Guard: guard, Positions: r.table.Positions(), Metrics: r.counts, Logger: log, Live: r.live,
		Look: func(b *rib.Backend) {
			r.counts.add(&r.counts.looked, b.Name)
			looks.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				if _, err := r.look(ctx, b); err != nil {
					log.Info("cannot look", "backend", b.Name, "err", err)
				}
			})
		},
		Recheck: func(backend string) { r.counts.add(&r.counts.recheck, backend) }, Learn: o.learn,
	})
	if o.sleepAfter > 0 {
		r.server.SleepAfter(o.sleepAfter)
	}
	ln, err := wire.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = ln.Addr().String()
	if o.buffered {
		ln = noSockets{ln}
	}
	served := make(chan error, 1)
	go func() { served <- r.server.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		r.server.Shutdown(ctx)
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		r.pools.Close()
	})
	pgtest.Eventually(t, patience, func() error {
		for _, name := range names {
			s := r.handle.Load().Slot(name)
			if s == nil || len(s.Candidates().Writes) == 0 {
				return fmt.Errorf("%s has no primary yet", name)
			}
		}
		return nil
	})
	if o.backends == nil {
		anew(t, o.shards)
	}
	return r
}

func (r *rig) announce(b rib.Backend, role rib.Role) {
	r.mu.Lock()
	r.stamp++
	r.table.Health().Announce(rib.Announcement{Backend: b, Observer: "n1", Stamp: rib.Stamp{Seq: r.stamp}})
	r.mu.Unlock()
	r.observe(rib.Route{Backend: b.Name, State: rib.Up, Role: role, Timeline: 1, Latency: time.Millisecond})
}

// observe says how a backend is.
func (r *rig) observe(route rib.Route) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stamp++
	route.Observer, route.Stamp = "n1", rib.Stamp{Seq: r.stamp}
	r.table.Health().Observe(route)
}

func (r *rig) dsn() string { return r.dsnOf("app") }

func (r *rig) dsnOf(database string) string {
	host, port, _ := net.SplitHostPort(r.addr)
	mode := "disable"
	if r.tls {
		mode = "require"
	}
	return fmt.Sprintf("host=%s port=%s user=%s password='%s' dbname=%s sslmode=%s", host, port, testUser, `s3cret \'pass\' \\ word`, database, mode)
}

func (r *rig) connect(mode pgx.QueryExecMode) *pgx.Conn {
	r.t.Helper()
	cfg, err := pgx.ParseConfig(r.dsn())
	if err != nil {
		r.t.Fatal(err)
	}
	cfg.DefaultQueryExecMode = mode
	conn, err := pgx.ConnectConfig(ctxOf(r.t), cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// keyOn returns a customer_id that belongs to the shard.
func (r *rig) keyOn(shard string, from int64) int64 {
	r.t.Helper()
	m, err := rib.MethodByName("hash")
	if err != nil {
		r.t.Fatal(err)
	}
	for k := from; ; k++ {
		key, err := m.AppendKey(nil, rib.Value{Type: rib.TypeBigint, Int: k})
		if err != nil {
			r.t.Fatal(err)
		}
		if o, ok := r.handle.Load().Lookup(1, key); ok && o.Slot.Shard() == shard {
			return k
		}
	}
}

func ctxOf(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
	t.Cleanup(cancel)
	return ctx
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	if testing.Verbose() {
		os.Stderr.Write(p)
	}
	return len(p), nil
}

// busy waits until n server connections are lent out.
func (r *rig) busy(t *testing.T, n int) {
	t.Helper()
	pgtest.Eventually(t, patience, func() error {
		used := 0
		for _, s := range r.pools.Stats() {
			used += s.InUse
		}
		if used != n {
			return fmt.Errorf("%d server connections in use, want %d", used, n)
		}
		return nil
	})
}

// setLimits reloads with other limits.
func (r *rig) setLimits(l wire.Limits) {
	r.live.Limits = l
	r.server.Reload(r.live)
}

// noSockets hides that what it accepts are sockets.
type noSockets struct{ net.Listener }

func (l noSockets) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return noSocket{conn}, nil
}

// noSocket can be closed in one direction, as TLS can.
type noSocket struct{ net.Conn }

func (c noSocket) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }

// primaryOf is the server that this node takes for a shard's primary.
func (r *rig) primaryOf(shard string) *pgtest.Server {
	if w := r.handle.Load().Slot(shard).Candidates().Writes; len(w) > 0 {
		if server := r.serverAt(w[0].Backend.Addr); server != nil {
			return server
		}
	}
	i, _ := strconv.Atoi(strings.TrimPrefix(shard, "shard_"))
	return r.servers[i-1].primary
}

// serverAt is the server of the rig's that listens there; nil: there is none.
func (r *rig) serverAt(addr string) *pgtest.Server {
	for _, s := range r.servers {
		for _, server := range []*pgtest.Server{s.primary, s.replica} {
			if server != nil && server.Addr() == addr {
				return server
			}
		}
	}
	return nil
}

// looks asks a shard's servers how far they have come, as a node's probes do.
func (r *rig) looks(shard int) {
	r.t.Helper()
	name := fmt.Sprintf("shard_%d", shard+1)
	for _, x := range []rib.Backend{
		{Name: name + "-primary", Shard: name, Addr: r.servers[shard].primary.Addr()}, {Name: name + "-replica", Shard: name, Addr: r.servers[shard].replica.Addr()},
	} {
		pgtest.Eventually(r.t, patience, func() error {
			role, err := r.look(ctxOf(r.t), &x)
			if err != nil {
				return err
			}
			for _, b := range r.table.Snapshot().Backends {
				if s := b.Gauge.Seen.Load(); b.Backend.Name == x.Name && role == rib.Replica && s.Covers.IsZero() {
					return errors.New("the replica has not caught up")
				}
			}
			return nil
		})
	}
}

// look asks one backend how far it has come.
func (r *rig) look(ctx context.Context, b *rib.Backend) (role rib.Role, err error) {
	server := r.serverAt(b.Addr)
	if server == nil {
		return role, errors.New("no server of the rig")
	}
	conn, err := server.Conn(ctx)
	if err != nil {
		return role, err
	}
	defer conn.Close(context.Background())
	p := rib.Position{Backend: b.Name, Shard: b.Shard, Addr: b.Addr, Role: rib.Primary, Asked: time.Now()}
	var replica bool
	var lsn, file string
	if err := conn.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&replica); err != nil {
		return role, err
	}
	sql := "SELECT pg_current_wal_insert_lsn()::text, pg_walfile_name(pg_current_wal_lsn())"
	if replica {
		p.Role, sql = rib.Replica, "SELECT pg_last_wal_replay_lsn()::text, lpad(to_hex(received_tli), 8, '0') FROM pg_stat_wal_receiver"
	}
	if err := conn.QueryRow(ctx, sql).Scan(&lsn, &file); err != nil {
		return role, err
	}
	timeline, err := strconv.ParseUint(file[:8], 16, 32)
	if err != nil {
		return role, err
	}
	p.Timeline = uint32(timeline)
	if p.LSN, err = rib.ParseLSN(lsn); err != nil {
		return role, err
	}
	r.table.Positions().Saw(p)
	return p.Role, nil
}
