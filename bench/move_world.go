package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
	"rangefinder/internal/program"
	"rangefinder/rib"
)

const (
	moveNodes     = 3
	moveKeyspace  = benchDatabase + ".parcels"
	moveRange     = "..0x4000000000000000" // the first half of shard_1's keys: a quarter of all
	moveCustomers = 20_000
	moveFiller    = 1000 // bytes of a row
)

// moveWorld is three nodes, and two shards that are real servers.
type moveWorld struct {
	began  time.Time
	farm   *pgtest.Farm
	shards map[string]*pgtest.Server
	nodes  []*moveNode
	binary string
	where  string // the rows that move
	moving []bool // by customer: its rows do
	rate   string // moves.rate; "": the default
	filled moveFilled
}

// say prints a line of progress.
func (w *moveWorld) say(format string, args ...any) {
	fmt.Printf("%5.0f s  %s\n", time.Since(w.began).Seconds(), fmt.Sprintf(format, args...))
}

// moves tells whether a customer's rows are in the range that moves.
func (w *moveWorld) moves(customer int64) bool { return w.moving[customer] }

// moveNode is one node.
type moveNode struct {
	name, addr, admin, dir string

	ports []int

	// guarded by mu
	mu      sync.Mutex
	process *program.Process // nil: it was killed
}

func newMoveWorld(ctx context.Context, o moveOptions) (w *moveWorld, err error) {
	farm, err := pgtest.Open(ctx, o.dir)
	if err != nil {
		return nil, err
	}
	w = &moveWorld{began: time.Now(), farm: farm, shards: map[string]*pgtest.Server{}, moving: make([]bool, moveCustomers)}
	w.say("making %d MB on two servers, and three nodes", o.mb)
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	hash, err := rib.MethodByName("hash")
	if err != nil {
		return nil, err
	}
	types := []rib.Type{rib.TypeBigint}
	low, high, err := rib.ParseInterval(hash, types, moveRange)
	if err != nil {
		return nil, err
	}
	w.where = hash.Predicate([]string{"customer"}, types, low, high)
	for customer := range w.moving {
		key, err := hash.AppendKey(nil, rib.Value{Type: rib.TypeBigint, Int: int64(customer)})
		if err != nil {
			return nil, err
		}
		w.moving[customer] = rib.Meet(low, high, key, append(key[:len(key):len(key)], 0))
	}
	even := rib.EvenRanges([]string{"shard_1", "shard_2"})
	servers, errs := make([]*pgtest.Server, len(even)), make([]error, len(even)+1)
	var wg sync.WaitGroup
	for i, r := range even {
		mine := hash.Predicate([]string{"customer"}, types, r.From, r.To)
		wg.Go(func() { servers[i], errs[i] = w.server(ctx, r.Shard, o.mb, mine) })
	}
	wg.Go(func() { w.binary, errs[len(even)] = program.Build(ctx, farm.Dir()) })
	wg.Wait()
	if err = errors.Join(errs...); err != nil {
		return nil, err
	}
	for i, r := range even {
		w.shards[r.Shard] = servers[i]
	}
	if w.filled, err = w.fill(ctx); err != nil {
		return nil, err
	}
	return w, w.startNodes(ctx)
}

// server starts a server with those rows of some megabytes for which the condition holds.
func (w *moveWorld) server(ctx context.Context, name string, mb int, mine string) (*pgtest.Server, error) {
	pg, err := w.farm.Primary(ctx, pgtest.Options{Name: name, Params: map[string]string{"shared_buffers": "256MB", "max_wal_size": "1GB", "checkpoint_timeout": "1min", "max_connections": "200"}})
	if err != nil {
		return nil, err
	}
	if err := pg.CreateUser(ctx, benchUser, benchPassword, "SUPERUSER"); err != nil {
		return nil, err
	}
	if err := pg.Exec(ctx, "CREATE DATABASE "+benchDatabase+" OWNER "+benchUser); err != nil {
		return nil, err
	}
	rows := mb * 1000 * 1000 / (moveFiller + 60) // with what a row and its entry in the index take beside
	return pg, pg.ExecIn(ctx, benchDatabase, "SET ROLE "+benchUser+`; CREATE TABLE parcels (customer bigint, id bigint, note text, PRIMARY KEY (customer, id));
		INSERT INTO parcels SELECT customer, -id, repeat(md5(id::text), `+fmt.Sprint(moveFiller/32)+`) FROM (SELECT id, id % `+fmt.Sprint(moveCustomers)+` AS customer FROM generate_series(1, `+fmt.Sprint(rows)+`) AS id) AS r WHERE `+mine, "VACUUM ANALYZE", "CHECKPOINT")
}

func (w *moveWorld) startNodes(ctx context.Context) error {
	ports, err := program.FreePorts(3 * moveNodes)
	if err != nil {
		return err
	}
	for i := range moveNodes {
		p := ports[3*i : 3*i+3]
		w.nodes = append(w.nodes, &moveNode{name: fmt.Sprintf("node-%d", i), addr: program.Loopback(p[0]), admin: "http://" + program.Loopback(p[2]), dir: filepath.Join(w.farm.Dir(), fmt.Sprintf("node-%d", i)), ports: p})
	}
	for _, n := range w.nodes {
		if err := os.Mkdir(n.dir, 0o700); err != nil {
			return err
		}
	}
	if err := w.configure(); err != nil {
		return err
	}
	for _, n := range w.nodes {
		if err := w.start(ctx, n); err != nil {
			return err
		}
	}
	return w.retry(ctx, func() error {
		body := map[string]any{"name": moveKeyspace, "database": benchDatabase, "method": "hash", "types": []string{"bigint"}, "shards": []string{"shard_1", "shard_2"},
			"tables": []map[string]any{{"schema": "public", "name": "parcels", "columns": []string{"customer"}}}}
		return w.nodes[0].call(ctx, http.MethodPost, "/api/v1/keyspaces", body, nil)
	})
}

// retry calls something until it works: there may be no leader for a moment.
func (w *moveWorld) retry(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return pgtest.Wait(ctx, 200*time.Millisecond, f)
}

// configure writes the nodes' files.
func (w *moveWorld) configure() error {
	for i, n := range w.nodes {
		var b strings.Builder
		fmt.Fprintf(&b, "region = \"r%d\"\nname = %q\ndata_dir = %q\n", i, n.name, filepath.Join(n.dir, "data"))
		if i > 0 {
			fmt.Fprintf(&b, "join = [%q]\n", program.Loopback(w.nodes[0].ports[1]))
		}
		fmt.Fprintf(&b, "[ports]\npostgres = %d\ncluster = %d\nhttp = %d\n[probe]\nuser = %q\npassword_env = \"NODE_PASSWORD\"\n[[databases]]\nname = %q\nshard = \"shard_1\"\n[[users]]\nname = %q\npassword_env = \"NODE_PASSWORD\"\n",
			n.ports[0], n.ports[1], n.ports[2], benchUser, benchDatabase, benchUser)
		if w.rate != "" {
			fmt.Fprintf(&b, "[moves]\nrate = %q\nlate = \"2s\"\n", w.rate) // nothing is on its way for longer on one machine
		}
		for _, name := range []string{"shard_1", "shard_2"} {
			fmt.Fprintf(&b, "[[backends]]\nname = %q\nshard = %q\naddress = %q\n", name, name, w.shards[name].Addr())
		}
		if err := os.WriteFile(filepath.Join(n.dir, "node.toml"), []byte(b.String()), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (w *moveWorld) start(ctx context.Context, n *moveNode) error {
	p, err := program.Launch(w.farm, n.dir, program.User{}, []string{"NODE_PASSWORD=" + benchPassword}, w.binary, "start", "--config", filepath.Join(n.dir, "node.toml"))
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.process = p
	n.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return p.Until(ctx, func() error { return n.call(ctx, http.MethodGet, "/readyz", nil, nil) })
}

// end has a node end by a signal.
func (n *moveNode) end(sig syscall.Signal) {
	n.mu.Lock()
	p := n.process
	n.process = nil
	n.mu.Unlock()
	if p != nil {
		p.Stop(sig)
	}
}

// connect connects to the node as a client.
func (n *moveNode) connect(ctx context.Context) (*pgx.Conn, error) {
	return pgx.Connect(ctx, fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable&connect_timeout=5", benchUser, benchPassword, n.addr, benchDatabase))
}

func (w *moveWorld) close() {
	for _, n := range w.nodes {
		n.end(syscall.SIGKILL)
	}
	if err := w.farm.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
}

// call calls a node's API. into may be nil.
func (n *moveNode) call(ctx context.Context, method, path string, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, n.admin+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, answer)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}

// moveStatus is a move as the API shows it.
type moveStatus struct {
	ID      uint64  `json:"id"`
	Phase   string  `json:"phase"`
	Step    string  `json:"step"`
	Part    float64 `json:"part"`
	Problem string  `json:"problem"`

	Missing []string `json:"missing"`
}

// at finds the move; nil: it is over. Any node that answers is asked.
func (w *moveWorld) at(ctx context.Context, id uint64) (*moveStatus, error) {
	var errs []error
	for _, n := range w.nodes {
		var answer struct {
			Moves []moveStatus `json:"moves"`
		}
		if err := n.call(ctx, http.MethodGet, "/api/v1/moves", nil, &answer); err != nil {
			errs = append(errs, err)
			continue
		}
		for i := range answer.Moves {
			if answer.Moves[i].ID == id {
				return &answer.Moves[i], nil
			}
		}
		return nil, nil
	}
	return nil, errors.Join(errs...)
}

// leader is the node that leads the ledger, once one does.
func (w *moveWorld) leader(ctx context.Context) (n *moveNode, err error) {
	err = w.retry(ctx, func() (err error) {
		n, err = w.leads(ctx)
		return err
	})
	return n, err
}

func (w *moveWorld) leads(ctx context.Context) (*moveNode, error) {
	for _, n := range w.nodes {
		var answer struct {
			Raft struct {
				Leader string `json:"leader"`
			} `json:"raft"`
		}
		if n.call(ctx, http.MethodGet, "/debug/cluster", nil, &answer) != nil {
			continue
		}
		for _, other := range w.nodes {
			if answer.Raft.Leader == other.name {
				return other, nil
			}
		}
	}
	return nil, errors.New("no node leads")
}

// begin starts a move, when the cluster takes it.
func (w *moveWorld) begin(ctx context.Context, to string) (id uint64, err error) {
	err = w.retry(ctx, func() error {
		var m moveStatus
		err := errors.New("no node answers")
		for _, n := range w.nodes {
			if err = n.call(ctx, http.MethodPost, "/api/v1/moves", map[string]string{"keyspace": moveKeyspace, "range": moveRange, "to": to}, &m); err == nil {
				id = m.ID
				return nil
			}
		}
		return err
	})
	return id, err
}

// moveTell is how often it is told how a move that is waited for goes.
const moveTell = 10 * time.Second

// moveWatch is how often a node is asked where a move is whose steps must not be missed.
const moveWatch = 5 * time.Millisecond

// until waits for a move to be where a condition holds, and asks every so often; nil is a move that is over.
func (w *moveWorld) until(ctx context.Context, id uint64, every time.Duration, condition func(*moveStatus) bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Minute, errors.New("the move has made no progress for long"))
	defer cancel()
	told := time.Now()
	return pgtest.Wait(ctx, every, func() error {
		m, err := w.at(ctx, id)
		switch {
		case err != nil:
			return err
		case condition(m):
			return nil
		case m == nil:
			return errors.New("the move is over")
		}
		if time.Since(told) >= moveTell {
			told = time.Now()
			waits := ""
			if len(m.Missing) > 0 {
				waits = "; waits for " + strings.Join(m.Missing, ", ")
			}
			w.say("  %s/%s, %.0f %%%s%s", m.Phase, m.Step, 100*m.Part, waits, strings.TrimRight("; "+m.Problem, "; "))
		}
		return fmt.Errorf("the move is in %s/%s: %s", m.Phase, m.Step, m.Problem)
	})
}

// over waits until a move is out of the table, and looks whether anything of it is left.
func (w *moveWorld) over(ctx context.Context, id uint64) error {
	if err := w.until(ctx, id, moveWatch, func(m *moveStatus) bool { return m == nil }); err != nil {
		return err
	}
	for name, s := range w.shards {
		c, err := s.ConnTo(ctx, benchDatabase, "")
		if err != nil {
			return err
		}
		var left string
		err = c.QueryRow(ctx, `SELECT concat_ws(', ', (SELECT string_agg('slot ' || slot_name, ', ') FROM pg_replication_slots), (SELECT string_agg('publication ' || pubname, ', ') FROM pg_publication),
(SELECT string_agg('subscription ' || subname, ', ') FROM pg_subscription), (SELECT string_agg('trigger ' || tgname, ', ') FROM pg_trigger WHERE NOT tgisinternal),
(SELECT string_agg('event trigger ' || evtname, ', ') FROM pg_event_trigger), (SELECT string_agg('fence of move ' || move, ', ') FROM rangefinder.fence))`, pgx.QueryExecModeExec).Scan(&left)
		c.Close(ctx)
		if err != nil || left != "" {
			return errors.Join(fmt.Errorf("the move is over, and %s still has: %s", name, left), err)
		}
	}
	return nil
}

// moveLines are what nodes log of a move's freezes, and why it was aborted.
var moveLines = []string{"the target has all of a range", "a range has moved", "a range is frozen", "a range is not frozen any more", "a move is aborted"}

// told prints what the nodes have logged of a move's freeze.
func (w *moveWorld) told(id uint64) error {
	for _, n := range w.nodes {
		log, err := os.ReadFile(filepath.Join(n.dir, "log"))
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(log)) {
			_, text, found := strings.Cut(strings.TrimSpace(line), "msg=")
			if found && strings.Contains(line, fmt.Sprintf(" move=%d", id)) && slices.ContainsFunc(moveLines, func(s string) bool { return strings.Contains(text, s) }) {
				w.say("  %s: %s", n.name, text)
			}
		}
	}
	return nil
}

// size is how large the tables of the shards are with their indexes, in gigabytes.
func (w *moveWorld) size(ctx context.Context) (gb float64, err error) {
	for _, s := range w.shards {
		c, err := s.ConnTo(ctx, benchDatabase, "")
		if err != nil {
			return 0, err
		}
		var total int64
		err = c.QueryRow(ctx, "SELECT pg_total_relation_size('parcels')", pgx.QueryExecModeExec).Scan(&total)
		c.Close(ctx)
		if err != nil {
			return 0, err
		}
		gb += float64(total) / 1e9
	}
	return gb, nil
}

// owner is the shard that has the moving rows now. Rows of them on two shards are an error: nobody reads those on one of them.
func (w *moveWorld) owner(ctx context.Context) (owner string, err error) {
	for name, s := range w.shards {
		c, err := s.ConnTo(ctx, benchDatabase, "")
		if err != nil {
			return "", err
		}
		var some bool
		err = c.QueryRow(ctx, "SELECT EXISTS (SELECT FROM parcels WHERE "+w.where+")", pgx.QueryExecModeExec).Scan(&some)
		c.Close(ctx)
		switch {
		case err != nil:
			return "", err
		case some && owner != "":
			return "", errors.New("no range is on its way, and two shards have rows of the one that moves")
		case some:
			owner = name
		}
	}
	if owner == "" {
		return "", errors.New("no shard has the rows that move")
	}
	return owner, nil
}
