package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"rangefinder/cluster"
	"rangefinder/rib"
)

// ensureShards makes sure that the ledger knows which servers the keyspace's shards are.
func (n *Node) ensureShards(ctx context.Context, ks *rib.Keyspace) error {
	var problems []string
	seen := map[string]bool{}
	for i := range ks.Ranges {
		shard := ks.Ranges[i].Shard
		if shard == "" || seen[shard] || n.table.Owners().Get().Shard(shard) != nil {
			continue
		}
		seen[shard] = true
		if err := n.recordShard(ctx, shard); err != nil {
			var notLeader *cluster.NotLeaderError
			if errors.As(err, &notLeader) {
				return err
			}
			problems = append(problems, err.Error())
		}
	}
	if len(problems) == 0 {
		return nil
	}
	var known []string
	for _, s := range n.fib.Load().Slots() {
		known = append(known, s.Shard())
	}
	return &apiError{Status: http.StatusUnprocessableEntity, ErrorView: ErrorView{
		Error:  "not every shard is known with its primary",
		Detail: strings.Join(problems, "\n"),
		Hint:   "Shards that nodes have announced: " + orNone(strings.Join(known, ", ")) + ". 'rangefinder status' shows their backends.",
	}}
}

// recordShards records every shard that has shown a primary and is not in the ledger yet. A shard that cannot be recorded is
// tried again a little later.
func (n *Node) recordShards(ctx context.Context) {
	snapshot := n.table.Snapshot()
	var missing []string
	for _, b := range snapshot.Backends {
		if snapshot.Ownership.Shard(b.Backend.Shard) == nil && b.Role == rib.Primary && !slices.Contains(missing, b.Backend.Shard) {
			missing = append(missing, b.Backend.Shard)
		}
	}
	var wg sync.WaitGroup
	for _, shard := range missing {
		n.mu.Lock()
		later := time.Now().Before(n.shards[shard])
		n.mu.Unlock()
		if !later {
			wg.Go(func() { n.tryRecord(ctx, shard) }) // one that does not answer must not hold up the others
		}
	}
	wg.Wait()
}

// shardAlarm begins the subject of an alarm about a shard.
const shardAlarm = "shard "

// tryRecord records a shard, or notes that it could not: as an alarm, and when to try again.
func (n *Node) tryRecord(ctx context.Context, shard string) {
	err := n.recordShard(ctx, shard)
	if ctx.Err() != nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err == nil {
		delete(n.shards, shard)
		delete(n.alarms, shardAlarm+shard)
		return
	}
	n.shards[shard] = time.Now().Add(shardRetry)
	n.alarms[shardAlarm+shard] = err.Error()
	n.log.Warn("a shard cannot be recorded yet", "shard", shard, "error", err)
}

// recordShard asks the one primary that observers have seen for its system identifier and records it. Gossip only says whom
// to ask: what is recorded is the server's own word.
func (n *Node) recordShard(ctx context.Context, shard string) error {
	var primaries []rib.Backend
	announced := false
	for _, b := range n.table.Snapshot().Backends {
		if b.Backend.Shard != shard {
			continue
		}
		announced = true
		if b.Role == rib.Primary && b.Verdict != rib.Down {
			primaries = append(primaries, b.Backend)
		}
	}
	switch {
	case !announced:
		return fmt.Errorf("shard %s: no node has announced a backend of it", shard)
	case len(primaries) == 0:
		return fmt.Errorf("shard %s: none of its backends is a primary that is up", shard)
	}
	ctx, cancel := context.WithTimeout(ctx, shardTimeout)
	defer cancel()
	var id uint64
	for i, b := range primaries {
		one, err := n.askSystemID(ctx, b.Addr)
		if err != nil {
			return fmt.Errorf("shard %s: ask backend %s: %w", shard, b.Name, err)
		}
		if i > 0 && one != id {
			return fmt.Errorf("shard %s: backends %s and %s are primaries of different PostgreSQL clusters (system identifiers %d and %d): one of them does not belong to the shard",
				shard, primaries[0].Name, b.Name, id, one)
		}
		id = one
	}
	if err := n.ledger().RecordShard(ctx, shard, id); err != nil {
		return err
	}
	n.log.Info("shard recorded", "shard", shard, "system_id", strconv.FormatUint(id, 10), "primary", primaries[0].Name)
	return nil
}

func (n *Node) askSystemID(ctx context.Context, addr string) (id uint64, err error) {
	conn, err := n.connect(ctx, addr, n.cfg().Probe.Database)
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var text string
	var recovering bool
	if err := conn.QueryRow(ctx, "SELECT system_identifier::text, pg_is_in_recovery() FROM pg_control_system()").Scan(&text, &recovering); err != nil {
		return 0, err
	}
	if recovering {
		return 0, errors.New("it is a replica now")
	}
	return strconv.ParseUint(text, 10, 64)
}
