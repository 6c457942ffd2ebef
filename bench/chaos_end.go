package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
)

const (
	convergeLimit = 2 * time.Minute // for the cluster to be whole again after the last fault
	quietLimit    = time.Minute     // for connections to be where they belong after the last client
)

// converged waits until the cluster is as if nothing had been, and returns how long it waited. The error says what is still amiss.
func (w *chaosWorld) converged(ctx context.Context) (time.Duration, error) {
	begun := time.Now()
	ctx, cancel := context.WithTimeout(ctx, convergeLimit)
	defer cancel()
	err := w.replicates(ctx)
	if err == nil {
		err = pgtest.Wait(ctx, 200*time.Millisecond, func() error {
			if err := w.whole(ctx, true); err != nil {
				return err
			}
			if err := w.agree(ctx); err != nil {
				return err
			}
			return w.calm(ctx)
		})
	}
	return time.Since(begun), err
}

// replicates waits until all replicas follow their primaries.
func (w *chaosWorld) replicates(ctx context.Context) error {
	for _, s := range w.shards {
		primary := s.primaryNow()
		for _, r := range s.servers {
			if r == primary {
				continue
			}
			if err := r.Streaming(ctx); err != nil {
				return fmt.Errorf("replication: %w", err)
			}
		}
	}
	return nil
}

// calm is nil when no node shows an operator anything to worry about.
func (w *chaosWorld) calm(ctx context.Context) error {
	for _, n := range w.nodes {
		out, err := n.run(ctx, "status")
		if err != nil {
			return err
		}
		if strings.Contains(out, "ALARM") || !strings.Contains(out, ": ready") {
			return fmt.Errorf("status of %s:\n%s", n.name, out)
		}
	}
	return nil
}

// agree is nil when all nodes believe the same of every backend: what gossip spreads, word for word.
func (w *chaosWorld) agree(ctx context.Context) error {
	var first []byte
	for _, n := range w.nodes {
		body, err := n.get(ctx, "/debug/rib")
		if err != nil {
			return err
		}
		var rib struct {
			Epoch    string
			Backends []struct {
				Name, Addr, Role, Reason string
				Timeline                 uint32
				SystemID                 string `json:"system_id"`
				ForAll                   string `json:"for_all"`
				Routes                   []struct {
					Observer, State, Role, Stamp string
					Timeline                     uint32
				}
			}
		}
		if err := json.Unmarshal(body, &rib); err != nil {
			return err
		}
		text, err := json.Marshal(rib)
		if err != nil {
			return err
		}
		if first == nil {
			first = text
		}
		if !bytes.Equal(first, text) {
			return fmt.Errorf("%s and %s believe different things:\n%s\n%s", w.nodes[0].name, n.name, first, text)
		}
	}
	return nil
}

// quiet waits until no client's connection and no transaction is left anywhere: each server has as many connections as the nodes' pools
// say, and all of them are idle.
func (w *chaosWorld) quiet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, quietLimit)
	defer cancel()
	return pgtest.Wait(ctx, 500*time.Millisecond, func() error {
		pooled := map[string]int{}
		for _, n := range w.nodes {
			v, err := n.view(ctx)
			if err != nil {
				return err
			}
			if v.Sessions.Open != 0 {
				return fmt.Errorf("node %s has %d sessions, and there is no client", n.name, v.Sessions.Open)
			}
			for _, p := range v.Pools {
				if p.InUse != 0 || p.Waiting != 0 {
					return fmt.Errorf("node %s has %d connections of %s in use and %d that wait, and there is no client", n.name, p.InUse, p.Backend, p.Waiting)
				}
				pooled[p.Backend] += p.Idle
			}
		}
		for _, s := range w.shards {
			for _, server := range s.servers {
				if err := restful(ctx, server, pooled[server.Name()]); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// restful is nil if a server has so many connections of clients, all idle, and no prepared transaction.
func restful(ctx context.Context, server *pgtest.Server, want int) error {
	conn, err := server.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	rows, _ := conn.Query(ctx, "SELECT coalesce(state, '') || ': ' || query FROM pg_stat_activity WHERE usename = $1", benchUser)
	states, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, state := range states {
		if !strings.HasPrefix(state, "idle: ") {
			return fmt.Errorf("%s still has %q", server.Name(), state)
		}
	}
	var prepared int
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM pg_prepared_xacts").Scan(&prepared); err != nil {
		return err
	}
	if prepared > 0 {
		return fmt.Errorf("%s still has %d prepared transactions", server.Name(), prepared)
	}
	if len(states) != want {
		return fmt.Errorf("%s has %d connections, the nodes' pools have %d", server.Name(), len(states), want)
	}
	return nil
}

// ends is what the primaries hold.
func (w *chaosWorld) ends(ctx context.Context) (ends []shardEnd, err error) {
	for _, s := range w.shards {
		e := shardEnd{shard: s.name, registers: map[int]int64{}, accounts: map[int][2]int64{}}
		conn, err := s.primaryNow().ConnTo(ctx, benchDatabase, "")
		if err != nil {
			return nil, err
		}
		defer conn.Close(ctx)
		for _, table := range chaosTables {
			rows, _ := conn.Query(ctx, fmt.Sprintf("SELECT '%s ' || t::text FROM %s AS t WHERE NOT (%s) LIMIT 100", table, table, s.owned))
			misplaced, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				return nil, err
			}
			e.misplaced = append(e.misplaced, misplaced...)
		}
		var r ledgerRow
		rows, _ := conn.Query(ctx, "SELECT key, client, seq, amount FROM ledger")
		if _, err := pgx.ForEachRow(rows, []any{&r.key, &r.client, &r.seq, &r.amount}, func() error {
			e.ledger = append(e.ledger, r)
			return nil
		}); err != nil {
			return nil, err
		}
		var key, side int
		var n int64
		rows, _ = conn.Query(ctx, "SELECT key, seq FROM registers")
		if _, err := pgx.ForEachRow(rows, []any{&key, &n}, func() error {
			e.registers[key] = n
			return nil
		}); err != nil {
			return nil, err
		}
		rows, _ = conn.Query(ctx, "SELECT key, side, balance FROM accounts")
		if _, err := pgx.ForEachRow(rows, []any{&key, &side, &n}, func() error {
			b := e.accounts[key]
			b[side] = n
			e.accounts[key] = b
			return nil
		}); err != nil {
			return nil, err
		}
		ends = append(ends, e)
	}
	return ends, nil
}

// crashes looks for nodes that ended by themselves, and for what a program writes that has met what it should not.
func (w *chaosWorld) crashes() (found []finding) {
	for _, n := range w.nodes {
		if err := n.ended(); err != nil {
			found = append(found, finding{foundOther, -1, err.Error()})
		}
		log, err := os.ReadFile(filepath.Join(n.dir, "log"))
		if err != nil {
			found = append(found, finding{foundOther, -1, err.Error()})
		}
		for _, sign := range []string{"panic:", "DATA RACE", "fatal error:", "goroutine 1 ["} {
			if at := bytes.Index(log, []byte(sign)); at >= 0 {
				found = append(found, finding{foundOther, -1, fmt.Sprintf("the log of %s has %q:\n%s", n.name, sign, log[at:min(len(log), at+3000)])})
				break
			}
		}
	}
	return found
}
