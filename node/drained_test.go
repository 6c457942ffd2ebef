package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rangefinder/internal/pgtest"
	"rangefinder/rib"
)

// drainCluster is one shard, its primary in iad and a replica or two in fra, with a node in each region.
type drainCluster struct {
	iad, fra *testNode
	servers  map[string]*pgtest.Server // by backend
	ports    map[int]string            // backends, by their server's port
}

func startDrainCluster(t *testing.T, replicas int, change func(*Config)) *drainCluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	primary := pgtest.NewPrimary(t, pgtest.Options{Auth: "scram-sha-256"})
	if err := errors.Join(
		primary.CreateUser(ctx, "app", appPassword, ""), primary.CreateUser(ctx, "probe", probePassword, ""),
		primary.Exec(ctx, "CREATE DATABASE app OWNER app"), primary.ExecIn(ctx, "app", "CREATE TABLE t (id int)", "GRANT ALL ON t TO app"),
	); err != nil {
		t.Fatal(err)
	}
	c := &drainCluster{servers: map[string]*pgtest.Server{"db-iad": primary}, ports: map[int]string{}}
	var near []Backend
	for i := range replicas {
		r := pgtest.NewReplica(t, primary, pgtest.Options{Auth: "scram-sha-256"})
		if err := r.CaughtUp(ctx); err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("db-fra-%d", i+1)
		c.servers[name] = r
		near = append(near, Backend{Name: name, Shard: "shard_1", Address: r.Addr()})
	}
	for name, s := range c.servers {
		c.ports[s.Port()] = name
	}
	start := func(region string, backends []Backend, join ...string) *testNode {
		cfg := testConfig(t, region, join...)
		cfg.ClusterKeyEnv = "CLUSTER_KEY"
		cfg.DrainDelay = Duration{500 * time.Millisecond}
		cfg.Databases = []Listing{{Name: "app", Shard: "shard_1"}}
		cfg.Users = []User{{Name: "app", SecretRef: SecretRef{PasswordEnv: "APP_PASSWORD"}}}
		cfg.Probe.User, cfg.Probe.PasswordEnv = "probe", "PROBE_PASSWORD"
		cfg.Backends = backends
		if change != nil {
			change(&cfg)
		}
		return newNode(t, cfg, clusterEnv()).open(t)
	}
	c.iad = start("iad", []Backend{{Name: "db-iad", Shard: "shard_1", Address: primary.Addr()}})
	c.fra = start("fra", near, c.iad.port().Addr())
	for _, n := range []*testNode{c.iad, c.fra} {
		n.settled(t, 2, 1)
		pgtest.Eventually(t, 30*time.Second, func() error {
			reads := n.fib.Load().Slot("shard_1").Candidates().Reads
			for i := range reads {
				if !reads[i].Healthy || reads[i].Backend.Region == n.cfg.Region != (reads[i].Cost == 0) { // the distance is measured
					return fmt.Errorf("%s is not healthy yet, or not measured", reads[i].Backend.Name)
				}
			}
			if len(reads) != replicas+1 {
				return fmt.Errorf("%d backends are known", len(reads))
			}
			return nil
		})
	}
	return c
}

// readers read all the while, and note which backend answered.
type readers struct {
	mu     sync.Mutex
	counts map[string]int
	failed []error
	stop   chan struct{}
	done   sync.WaitGroup
	total  atomic.Int64
}

func (c *drainCluster) read(t *testing.T, n *testNode, clients int) *readers {
	t.Helper()
	r := &readers{counts: map[string]int{}, stop: make(chan struct{})}
	for range clients {
		conn := n.connect(t)
		r.done.Go(func() {
			for {
				select {
				case <-r.stop:
					return
				default:
				}
				var port int
				err := conn.QueryRow(context.Background(), "SELECT inet_server_port() FROM t UNION ALL SELECT inet_server_port() LIMIT 1").Scan(&port)
				r.mu.Lock()
				if err != nil {
					r.failed = append(r.failed, err)
				} else {
					r.counts[c.ports[port]]++
				}
				r.mu.Unlock()
				r.total.Add(1)
				if err != nil && conn.IsClosed() {
					return
				}
			}
		})
	}
	t.Cleanup(r.end)
	return r
}

func (r *readers) end() {
	select {
	case <-r.stop:
	default:
		close(r.stop)
	}
	r.done.Wait()
}

// sample is who answers the next reads: at least n of them that begin from now on.
func (r *readers) sample(t *testing.T, n int) map[string]int {
	t.Helper()
	r.more(t, 16) // those that were under way
	r.mu.Lock()
	r.counts = map[string]int{}
	r.mu.Unlock()
	r.more(t, n)
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.counts
	r.counts = map[string]int{}
	return now
}

func (r *readers) more(t *testing.T, n int) {
	t.Helper()
	from := r.total.Load()
	pgtest.Eventually(t, 30*time.Second, func() error {
		if done := r.total.Load() - from; done < int64(n) {
			return fmt.Errorf("%d of %d reads", done, n)
		}
		return nil
	})
}

// cli runs a command line against this node.
func (n *testNode) cli(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(append(args, "--admin", n.url()), &env{ctx: t.Context(), stdout: &out, stderr: &err, getenv: func(string) (string, bool) { return "", false }})
	return code, out.String(), err.String()
}

// left is what this node says is left.
func (n *testNode) left(t *testing.T, kind, name string) (v DrainLeftView) {
	t.Helper()
	status, body := n.get(t, "/api/v1/drains/left?kind="+kind+"&name="+name)
	if err := json.Unmarshal([]byte(body), &v); status != 200 || err != nil {
		t.Fatalf("left of %s %s: %d %s", kind, name, status, body)
	}
	return v
}

// The closest backend is drained under load, by a word to the node of another region: no statement fails, reads go elsewhere within two
// seconds, what is under way there finishes there, and nothing is connected to it any more. Taken back, it warms up.
func TestDrainBackendUnderLoad(t *testing.T) {
	c := startDrainCluster(t, 2, func(cfg *Config) { cfg.Reads.WarmUp = Duration{20 * time.Second} })
	r := c.read(t, c.fra, 4)
	pgtest.Eventually(t, 30*time.Second, func() error { // a replica may be late for a moment
		if got := r.sample(t, 200); got["db-fra-1"] == 0 || got["db-fra-2"] == 0 || got["db-iad"] != 0 {
			return fmt.Errorf("reads to begin with: %v", got)
		}
		return nil
	})
	// A transaction on the one that will be drained.
	var tx pgx.Tx
	conn, port := c.fra.connect(t), 0
	for c.ports[port] != "db-fra-1" {
		if tx != nil {
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		var err error
		if tx, err = conn.BeginTx(t.Context(), pgx.TxOptions{AccessMode: pgx.ReadOnly}); err != nil {
			t.Fatal(err)
		}
		if err := tx.QueryRow(t.Context(), "SELECT inet_server_port() FROM t UNION ALL SELECT inet_server_port() LIMIT 1").Scan(&port); err != nil {
			t.Fatal(err)
		}
	}

	begun := time.Now()
	code, out, errs := c.iad.cli(t, "backend", "drain", "db-fra-1", "--by", "alice", "--why", "new disks", "--timeout", "1s")
	if code != exitFailed || !strings.Contains(out, "1 connection from node fra-1 to db-fra-1") || !strings.Contains(errs, "backend undrain db-fra-1") {
		t.Errorf("with an open transaction: exit %d\n%s%s", code, out, errs)
	}
	if got := r.sample(t, 200); got["db-fra-1"] != 0 || got["db-fra-2"] == 0 {
		t.Errorf("reads %v after the drain: %v", time.Since(begun), got)
	}
	if took := time.Since(begun); took > 4*time.Second { // a second of it waited for the transaction
		t.Errorf("that took %v", took)
	}
	// A session that reads what it has written waits for another replica to have it, or reads from the primary.
	writer := c.fra.connect(t)
	for i := range 20 {
		var at int
		if _, err := writer.Exec(t.Context(), "INSERT INTO t VALUES ($1)", i); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			if err := writer.QueryRow(t.Context(), "SELECT inet_server_port() FROM t LIMIT 1").Scan(&at); err != nil || c.ports[at] == "db-fra-1" {
				t.Fatalf("a read after a write went to %s: %v", c.ports[at], err)
			}
		}
	}
	var again int
	if err := errors.Join(tx.QueryRow(t.Context(), "SELECT inet_server_port()").Scan(&again), tx.Commit(t.Context())); err != nil || again != port {
		t.Errorf("the open transaction went on at %s: %v", c.ports[again], err)
	}
	if code, out, errs = c.fra.cli(t, "backend", "drain", "db-fra-1", "--by", "alice", "--why", "new disks"); code != exitOK || !strings.Contains(out, "nothing is left") || !strings.Contains(out, "known to 2 of 2 nodes") {
		t.Errorf("without a transaction: exit %d\n%s%s", code, out, errs)
	}
	for _, p := range c.fra.pools.Stats() {
		if p.Backend == "db-fra-1" && p.InUse+p.Idle > 0 {
			t.Errorf("there are still connections: %+v", p)
		}
	}
	if _, body := c.fra.get(t, "/debug/route?sql=select+count(*)+from+t"); !strings.Contains(body, "last resort: drained by alice since") {
		t.Errorf("the route does not say why: %s", body)
	}
	for _, path := range []string{"/debug", "/debug/rib", "/debug/fib", "/debug/cluster"} {
		if _, body := c.iad.get(t, path); !strings.Contains(body, "drained by alice since") || !strings.Contains(body, "(new disks)") {
			t.Errorf("%s does not say that it is drained", path)
		}
	}
	if code, out, _ := c.iad.cli(t, "status"); code != exitOK || !strings.Contains(out, "DRAINED: backend db-fra-1 drained by alice since") {
		t.Errorf("status: %s", out)
	}
	if status, body := c.fra.get(t, "/readyz"); status != 200 {
		t.Errorf("readyz of a node that is not drained: %d %s", status, body)
	}

	if code, out, errs = c.fra.cli(t, "backend", "undrain", "db-fra-1"); code != exitOK || out != "backend db-fra-1 is not drained any more\n" {
		t.Errorf("undrain: exit %d %s%s", code, out, errs)
	}
	pgtest.Eventually(t, 2*time.Second, func() error {
		if h := c.fra.fib.Load().Slot("shard_1").Candidates().Reads; h[0].Drained || h[1].Drained || h[2].Drained {
			return errors.New("it is drained yet")
		}
		return nil
	})
	if got := r.sample(t, 400); got["db-fra-1"] == 0 || got["db-fra-1"] > got["db-fra-2"]/2 {
		t.Errorf("reads right after the drain: %v, want a small share for db-fra-1", got)
	}
	r.end()
	if len(r.failed) > 0 {
		t.Errorf("%d of %d reads failed, the first: %v", len(r.failed), r.total.Load(), r.failed[0])
	}
	for _, want := range []string{"an operator's order", "drained=true", `target="backend db-fra-1"`, "by=alice", `why="new disks"`, "drained=false"} {
		if !strings.Contains(c.iad.log.String()+c.fra.log.String(), want) {
			t.Errorf("the log lacks %s", want)
		}
	}
}

// The region of the primary and of the ledger's leader is drained: sessions of its node end when they have no transaction open, reads leave,
// another node leads and observes, and what cannot move is named. New clients are served. A restart forgets nothing.
func TestDrainRegion(t *testing.T) {
	c := startDrainCluster(t, 1, nil)
	pgtest.Eventually(t, 30*time.Second, func() error { // the second voter
		if len(c.iad.ledger().Voters()) != 2 {
			return errors.New("one voter")
		}
		return nil
	})
	if !c.iad.ledger().IsLeader() {
		t.Fatal("the first node does not lead")
	}
	idle, busy := c.iad.connect(t), c.iad.connect(t)
	if _, err := idle.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	tx, err := busy.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "INSERT INTO t VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	code, out, errs := c.fra.cli(t, "region", "drain", "iad", "--by", "bob", "--timeout", "1s")
	if code != exitFailed || !strings.Contains(out, "db-iad is the primary of shard_1: its writes cannot move") || !strings.Contains(out, "db-fra-1 in fra") {
		t.Errorf("drain: exit %d\n%s%s", code, out, errs)
	}
	if status, body := c.iad.get(t, "/readyz"); status != 503 || !strings.Contains(body, "region iad drained by bob") {
		t.Errorf("readyz = %d %s", status, body)
	}
	pgtest.Eventually(t, 20*time.Second, func() error { // it is in no transaction
		var e *pgconn.PgError
		if _, err := idle.Exec(t.Context(), "SELECT 1"); err == nil || !errors.As(err, &e) && !idle.IsClosed() || e != nil && e.Code != "57P01" {
			return fmt.Errorf("an idle session: %v", err)
		}
		return nil
	})
	if _, err := tx.Exec(t.Context(), "INSERT INTO t VALUES (2)"); err != nil {
		t.Errorf("in a transaction: %v", err)
	}
	late := c.iad.connect(t)
	var port int
	if err := late.QueryRow(t.Context(), "SELECT inet_server_port() FROM t UNION ALL SELECT inet_server_port() LIMIT 1").Scan(&port); err != nil || c.ports[port] != "db-fra-1" {
		t.Errorf("a client that came after the drain reads from %s: %v", c.ports[port], err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Errorf("commit: %v", err)
	}
	if _, err := busy.Exec(t.Context(), "SELECT 1"); err == nil {
		t.Error("the session has outlived its transaction")
	}
	pgtest.Eventually(t, 30*time.Second, func() error {
		if !c.fra.ledger().IsLeader() {
			return errors.New("the ledger is led by a drained node")
		}
		for _, v := range c.fra.table.Snapshot().Backends {
			if len(v.Routes) != 1 || v.Routes[0].Observer != "fra-1" || v.Verdict != rib.Up {
				return fmt.Errorf("%s is observed by %+v", v.Backend.Name, v.Routes)
			}
		}
		return nil
	})
	// Writes stay until a replica is promoted; the last client is one that came after.
	if _, err := late.Exec(t.Context(), "INSERT INTO t VALUES (3)"); err != nil {
		t.Errorf("a write: %v", err)
	}
	v := c.iad.left(t, "region", "iad")
	var what []string
	for _, l := range v.Left {
		what = append(what, fmt.Sprint(l.What, " ", l.Of, " ", l.Moves))
	}
	if want := "[writes db-iad false sessions iad-1 false]"; fmt.Sprint(what) != want || v.Heard != 2 {
		t.Errorf("left: %v, heard by %d; want %s", what, v.Heard, want)
	}

	// It is remembered by a node that starts and finds nobody.
	late.Close(t.Context())
	cfg := c.iad.cfg
	if err := errors.Join(c.fra.Close(), c.iad.Close()); err != nil {
		t.Fatal(err)
	}
	cfg.Join = nil
	alone := newNode(t, cfg, clusterEnv()).open(t)
	if status, body := alone.get(t, "/readyz"); status != 503 || !strings.Contains(body, "region iad drained by bob") {
		t.Errorf("after a restart, readyz = %d %s", status, body)
	}
	if code, out, _ := alone.cli(t, "region", "undrain", "iad"); code != exitOK {
		t.Errorf("undrain: %s", out)
	}
	if status, body := alone.get(t, "/readyz"); strings.Contains(body, "drained") {
		t.Errorf("taken back, readyz = %d %s", status, body)
	}
}

// A node's drain ends what it has now and serves who comes later; another word sends those away too. Its end brings everything back.
func TestDrainNodeForAWhile(t *testing.T) {
	n := startOne(t, func(c *Config) { c.DrainDelay = Duration{} })
	first := n.connect(t)
	if code, out, errs := n.cli(t, "node", "drain", "iad-1", "--for", "1h"); code != exitFailed || !strings.Contains(out, "node iad-1 leads the ledger") {
		t.Errorf("drain: exit %d\n%s%s", code, out, errs)
	}
	gone := func(conn *pgx.Conn) {
		t.Helper()
		pgtest.Eventually(t, 10*time.Second, func() error {
			if _, err := conn.Exec(t.Context(), "SELECT 1"); err == nil {
				return errors.New("the session lives")
			}
			return nil
		})
	}
	gone(first)
	second := n.connect(t)
	if _, err := second.Exec(t.Context(), "INSERT INTO t VALUES (1)"); err != nil {
		t.Errorf("who comes later: %v", err)
	}
	if code, _, errs := n.cli(t, "node", "drain", "iad-1", "--for", "2s"); code != exitFailed {
		t.Errorf("drain again: exit %d %s", code, errs)
	}
	gone(second)
	third := n.connect(t)
	pgtest.Eventually(t, 10*time.Second, func() error {
		if status, body := n.get(t, "/readyz"); status != 200 {
			return fmt.Errorf("readyz = %d %s", status, body)
		}
		return nil
	})
	if _, err := third.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("after its end: %v", err)
	}
}

// What cannot be meant is refused, and says what could be.
func TestDrainRefuses(t *testing.T) {
	n := startOne(t, nil)
	for _, x := range []struct{ body, want string }{
		{`{"kind": "zone", "name": "fra"}`, "It is region, backend or node"},
		{`{"kind": "region"}`, "name is missing"},
		{`{"kind": "region", "name": "far"}`, "There are: iad."},
		{`{"kind": "backend", "name": "iad"}`, "There are: iad-db."},
		{`{"kind": "node", "name": "iad"}`, "There are: iad-1."},
		{`{"kind": "region", "name": "iad", "for": "soon"}`, "no time"},
		{`{"kind": "region", "name": "iad", "for": "-1h"}`, "no time"},
		{`{"kind": "region", "name": "iad", "for": "900000h"}`, "no time"},
		{`{"kind": "region", "name": "iad", "for": "1h", "back": true}`, "Leave it out"},
		{`{"kind": "region", "name": "iad", "why": "a\nb"}`, "printable"},
		{`{"kind": "region", "name": "iad", "by": "` + strings.Repeat("x", 65) + `"}`, "64 bytes"},
		{`{"kind": "region", "name": "iad", "who": "x"}`, "unknown field"},
	} {
		if status, body := n.post(t, "/api/v1/drains", x.body); status/100 != 4 || !strings.Contains(body, x.want) {
			t.Errorf("%s: %d %s, want %q", x.body, status, body, x.want)
		}
	}
	if status, body := n.get(t, "/api/v1/drains"); status != 200 || !strings.Contains(body, `"drains": []`) {
		t.Errorf("drains: %d %s", status, body)
	}
	if status, body := n.post(t, "/api/v1/drains", `{"kind": "region", "name": "nowhere", "back": true}`); status != 200 || !strings.Contains(body, "is not drained") {
		t.Errorf("to take back what is not drained: %d %s", status, body)
	}
	// A drain that is over by this node's clock may be in force by others': to take it back is a word.
	now, region := time.Now(), rib.DrainTarget{Kind: rib.DrainRegion, Name: "iad"}
	over := rib.Drain{Target: region, Number: 7, Author: "iad-2", By: "somebody", Since: now.Add(-time.Hour).Unix(), Until: now.Add(-time.Minute).Unix()}
	if _, err := n.table.Health().Drain(over, now); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing left to say
		if status, body := n.post(t, "/api/v1/drains", `{"kind": "region", "name": "iad", "back": true}`); status != 200 {
			t.Errorf("to take back what is over here: %d %s", status, body)
		}
		if last, _ := n.table.Health().DrainOf(region); !last.Back || last.Number != 8 {
			t.Errorf("the last word is %+v, want it taken back with the number 8", last)
		}
	}
	if status, body := n.get(t, "/api/v1/drains/left?kind=region"); status != 400 {
		t.Errorf("left of nothing: %d %s", status, body)
	}
	if status, _ := n.get(t, "/api/v1/drains/here?kind=region&name=iad&number=1"); status != 404 {
		t.Errorf("the nodes' own question is answered to anybody: %d", status)
	}
}

// With everything drained each node reads what is closest to it: whichever is asked, it tells what stays in a region because of the others.
func TestWhatStaysWhereEverythingIsDrained(t *testing.T) {
	c := startDrainCluster(t, 1, nil)
	for _, region := range []string{"iad", "fra"} {
		if code, _, errs := c.iad.cli(t, "region", "drain", region, "--timeout", "0"); code == exitUsage {
			t.Fatal(errs)
		}
	}
	has := func(n *testNode, region, what, text string) {
		t.Helper()
		pgtest.Eventually(t, 10*time.Second, func() error {
			v, times := n.left(t, "region", region), 0
			for _, l := range v.Left {
				if l.What == what && strings.Contains(l.Text+" "+l.Hint, text) {
					times++
				}
			}
			if times != 1 {
				return fmt.Errorf("%s of %s, asked at %s, %d times %q: %+v", what, region, n.cfg.Name, times, text, v.Left)
			}
			return nil
		})
	}
	for _, n := range []*testNode{c.iad, c.fra} {
		has(n, "fra", "reads", "reads of shard_1 stay on db-fra-1")
		has(n, "iad", "reads", "reads of shard_1 stay on db-iad")
		has(n, "iad", "writes", "drained too: db-fra-1 in fra")
	}
}
