package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	keysPerClient  = 8
	statementLimit = 20 * time.Second // after which a client gives its connection up: longer than failover_wait
	connectLimit   = 5 * time.Second
)

// chaosCrowd are all clients.
type chaosCrowd struct {
	clients []*chaosClient
	wg      sync.WaitGroup
}

// chaosClient runs one statement after the other on keys that are its own alone, through one node after the other of its region, and
// keeps what it was told.
type chaosClient struct {
	// constant
	number int
	nodes  []*chaosNode
	region *region
	mode   pgx.QueryExecMode
	begun  time.Time

	// atomic
	statements atomic.Int64
	acked      atomic.Int64 // writes
	across     atomic.Int64 // of them, those of writeAcross

	// guarded by mu
	mu     sync.Mutex
	writes []chaosWrite
	errors map[string]int
	found  []finding

	// owned by run
	rng     *rand.Rand
	conn    *pgx.Conn
	node    int // of nodes
	seq     int64
	own     map[int]int64 // register writes that this connection was acknowledged, by key
	refused map[int64]bool
	last    time.Time     // of the last answer
	gap     time.Duration // the longest without one
}

// newChaosCrowd starts clients that begin no statement once ctx ends. What they have begun is given up when abandon ends.
func newChaosCrowd(ctx, abandon context.Context, w *chaosWorld, perRegion int, seed uint64, begun time.Time) *chaosCrowd {
	c := new(chaosCrowd)
	modes := []pgx.QueryExecMode{pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement}
	for range perRegion {
		for _, r := range w.net.regions {
			n := len(c.clients)
			c.clients = append(c.clients, &chaosClient{
				number: n, nodes: w.inRegion(r), region: r, mode: modes[n/len(w.net.regions)%len(modes)], begun: begun, node: n / len(w.net.regions),
				rng: rand.New(rand.NewPCG(seed, 100+uint64(n))), errors: map[string]int{}, refused: map[int64]bool{}, last: begun,
			})
		}
	}
	for _, x := range c.clients {
		c.wg.Go(func() { x.run(ctx, abandon) })
	}
	return c
}

func (c *chaosClient) run(ctx, abandon context.Context) {
	defer func() {
		if c.conn != nil {
			closing, cancel := context.WithTimeout(context.Background(), time.Second)
			_ = c.conn.Close(closing)
			cancel()
		}
		c.answered()
	}()
	for ctx.Err() == nil {
		err := c.step(ctx, abandon)
		if err == nil {
			c.answered()
			_ = pause(ctx, time.Duration(c.rng.IntN(30))*time.Millisecond)
			continue
		}
		if ctx.Err() == nil {
			_, code := outcomeOf(err)
			c.mu.Lock()
			c.errors[code]++
			c.mu.Unlock()
			_ = pause(ctx, 50*time.Millisecond)
		}
	}
}

// answered ends a time without an answer.
func (c *chaosClient) answered() {
	now := time.Now()
	c.gap, c.last = max(c.gap, now.Sub(c.last)), now
}

func (c *chaosClient) step(ctx, abandon context.Context) error {
	if err := c.connect(ctx); err != nil {
		return err
	}
	// Nothing is to be unknown merely because the time is over.
	bounded, cancel := context.WithTimeout(abandon, statementLimit)
	defer cancel()
	key := c.number*keysPerClient + c.rng.IntN(keysPerClient)
	c.statements.Add(1)
	switch c.rng.IntN(7) {
	case 0:
		return c.write(bounded, writeInsert, key)
	case 1:
		return c.write(bounded, writeRegister, key)
	case 2:
		return c.write(bounded, writeTransfer, key)
	case 3:
		return c.write(bounded, writeAcross, key)
	case 4:
		return c.readAccounts(bounded, key)
	}
	return c.readRegister(bounded, key)
}

func (c *chaosClient) connect(ctx context.Context) error {
	if c.conn != nil && !c.conn.IsClosed() {
		return nil
	}
	c.conn = nil
	c.node = (c.node + 1) % len(c.nodes)
	cfg, err := pgx.ParseConfig(fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable", benchUser, benchPassword, c.nodes[c.node].addr, benchDatabase))
	if err != nil {
		return err
	}
	cfg.DefaultQueryExecMode = c.mode
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return c.region.Dial(ctx, network, addr)
	}
	ctx, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoConnection, err)
	}
	c.conn, c.own = conn, map[int]int64{}
	return nil
}

var errNoConnection = errors.New("no connection")

// write does one write and keeps what became of it.
func (c *chaosClient) write(ctx context.Context, kind string, key int) (err error) {
	c.seq++
	w := chaosWrite{client: c.number, seq: c.seq, kind: kind, key: key, node: c.nodes[c.node].name, at: time.Since(c.begun)}
	switch kind {
	case writeInsert:
		_, err = c.conn.Exec(ctx, "INSERT INTO ledger (key, client, seq, amount) VALUES ($1, $2, $3, 0)", key, c.number, c.seq)
		w.fate, w.code = outcomeOf(err)
	case writeRegister:
		// An older one that was on its way for long does not overwrite a newer one. What it overwrites it brings back: else whatever is lost
		// and overwritten would never be missed.
		err = c.conn.QueryRow(ctx, "UPDATE registers SET over = seq, seq = $2 WHERE key = $1 AND seq < $2 RETURNING over", key, c.seq).Scan(&w.over)
		if errors.Is(err, pgx.ErrNoRows) {
			c.note(foundWrong, key, "no register was written by %v", w)
			err = nil
		}
		if w.fate, w.code = outcomeOf(err); w.fate == fateAcked {
			c.own[key] = c.seq
		} else if w.fate == fateRefused {
			c.refused[c.seq] = true
		}
	case writeTransfer:
		w.fate, w.code, err = c.transfer(ctx, w.rows())
	case writeAcross:
		first := c.number * keysPerClient
		w.other = first + (key-first+1+c.rng.IntN(keysPerClient-1))%keysPerClient
		w.fate, w.code, err = c.transfer(ctx, w.rows())
	}
	w.took = time.Since(c.begun) - w.at
	if w.fate == fateAcked {
		c.acked.Add(1)
		if kind == writeAcross {
			c.across.Add(1)
		}
	}
	c.mu.Lock()
	c.writes = append(c.writes, w)
	c.mu.Unlock()
	return err
}

// transfer moves, for each row that the ledger is to get, an amount between the two accounts of its key, all in one transaction. Whatever goes wrong before
// the COMMIT is sent, nothing is done.
func (c *chaosClient) transfer(ctx context.Context, rows []ledgerRow) (outcome, string, error) {
	type statement struct {
		sql  string
		args []any
		key  int
	}
	var all []statement
	for _, r := range rows {
		all = append(all,
			statement{"UPDATE accounts SET balance = balance - $3 WHERE key = $1 AND side = $2", []any{r.key, 0, r.amount}, r.key},
			statement{"INSERT INTO ledger (key, client, seq, amount) VALUES ($1, $2, $3, $4)", []any{r.key, r.client, r.seq, r.amount}, r.key},
			statement{"UPDATE accounts SET balance = balance + $3 WHERE key = $1 AND side = $2", []any{r.key, 1, r.amount}, r.key})
	}
	_, err := c.conn.Exec(ctx, "BEGIN")
	for _, s := range all {
		if err != nil {
			break
		}
		var tag pgconn.CommandTag
		if tag, err = c.conn.Exec(ctx, s.sql, s.args...); err == nil && tag.RowsAffected() != 1 {
			c.note(foundWrong, s.key, "%d rows by %q for key %d", tag.RowsAffected(), s.sql, s.key)
		}
	}
	if err != nil {
		_, code := outcomeOf(err)
		if !c.conn.IsClosed() {
			if _, e := c.conn.Exec(ctx, "ROLLBACK"); e != nil {
				_ = c.conn.Close(ctx)
			}
		}
		return fateRefused, code, err
	}
	tag, err := c.conn.Exec(ctx, "COMMIT")
	if err == nil && tag.String() != "COMMIT" {
		err = pgx.ErrTxCommitRollback
	}
	f, code := outcomeOf(err)
	return f, code, err
}

func (c *chaosClient) readRegister(ctx context.Context, key int) error {
	var seq int64
	err := c.conn.QueryRow(ctx, "SELECT seq FROM registers WHERE key = $1", key).Scan(&seq)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		c.note(foundWrong, key, "no register of key %d through %s", key, c.nodes[c.node].name)
		return nil
	case err != nil:
		return err
	case seq < c.own[key]:
		c.note(foundStale, key, "register %d reads %d through %s, and this session was acknowledged %d", key, seq, c.nodes[c.node].name, c.own[key])
	case seq > c.seq || c.refused[seq]:
		c.note(foundPhantom, key, "register %d reads %d, which nobody has written or which was refused", key, seq)
	}
	return nil
}

// readAccounts looks at both in one statement: whoever answers, they belong together.
func (c *chaosClient) readAccounts(ctx context.Context, key int) error {
	var n, sum int64
	if err := c.conn.QueryRow(ctx, "SELECT count(*), coalesce(sum(balance), 0)::bigint FROM accounts WHERE key = $1", key).Scan(&n, &sum); err != nil {
		return err
	}
	if n != 2 {
		c.note(foundWrong, key, "%d accounts of key %d through %s", n, key, c.nodes[c.node].name)
	} else if sum != 0 {
		c.note(foundTorn, key, "the accounts of key %d add up to %d through %s", key, sum, c.nodes[c.node].name)
	}
	return nil
}

// note keeps what must not be, as it was seen.
func (c *chaosClient) note(kind string, key int, format string, args ...any) {
	text := fmt.Sprintf("%8.3fs client %d: ", time.Since(c.begun).Seconds(), c.number) + fmt.Sprintf(format, args...)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.found = append(c.found, finding{kind, key, text})
}
