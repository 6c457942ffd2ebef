package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"

	"rangefinder/cluster"
	"rangefinder/cluster/move"
	"rangefinder/rib"
)

// openMover makes what carries ranges from shard to shard. It does nothing before clients are served, and only while this node leads.
func (n *Node) openMover(context.Context) error {
	log := n.log.With("part", "moves")
	n.carriers = move.NewPostgres(move.PostgresConfig{
		Primary: n.connectPrimary, Replicas: n.connectReplicas, Settle: n.twophase.Settle, Logger: log,
		Cluster: func() string { return n.ledger().ClusterID() },
		Everywhere: func(database, schema, table string) bool {
			o := n.table.Owners().Get()
			return slices.ContainsFunc(o.Keyspaces, func(ks rib.Keyspace) bool {
				return ks.Reference() && ks.Database == database && slices.ContainsFunc(ks.Tables, func(k rib.KeyedTable) bool { return k.Schema == schema && k.Name == table })
			})
		},
		Rate: n.cfg().Moves.Rate.Bytes,
		TLS:  func() (mode, rootCert string) { return n.cfg().BackendTLS.Mode, n.cfg().Moves.CAFile },
	})
	n.mover = move.New(move.Config{
		Ledger: moverLedger{n}, Leases: moverLeases{n}, Servers: n.carriers, Owners: n.table.Owners().Get, Logger: log, Late: n.cfg().Moves.Late.Duration,
		Leads: func() (term uint64, ok bool) {
			l := n.ledger()
			// A recovery begins the terms anew, in a generation of its own.
			term, ok = l.LeadsIn()
			return uint64(n.table.Owners().Get().Epoch.Generation)<<40 | term, ok
		},
	})
	return nil
}

// startMover has the mover begin.
func (n *Node) startMover() {
	n.mover.Open()
	n.opened("moves", func() error {
		n.mover.Close()
		n.carriers.Close()
		return nil
	})
}

// Mover carries out moves while this node leads; nil before the node has made it.
func (n *Node) Mover() *move.Mover { return n.mover }

// CheckMove looks for all that stands against a move of a range, and changes nothing.
func (n *Node) CheckMove(ctx context.Context, ks *rib.Keyspace, m rib.Move) ([]move.Obstacle, error) {
	return n.carriers.Check(ctx, &move.Job{Move: m, Keyspace: ks})
}

// moverLedger is the ledger as the mover knows it.
type moverLedger struct{ n *Node }

func (l moverLedger) AdvanceMove(ctx context.Context, id uint64, from, to rib.MovePhase, note []byte) error {
	_, err := l.n.ledger().AdvanceMove(ctx, id, from, to, note)
	return err
}

func (l moverLedger) ThawMove(ctx context.Context, id uint64, reason string, note []byte) error {
	_, err := l.n.ledger().ThawMove(ctx, id, note, cluster.Origin{Author: "mover", Reason: reason})
	return err
}

func (l moverLedger) NoteMove(ctx context.Context, id uint64, note []byte) error {
	return l.n.ledger().NoteMove(ctx, id, note, move.Cleared(note), cluster.Origin{})
}

func (l moverLedger) AbortMove(ctx context.Context, id uint64, reason string) error {
	_, err := l.n.ledger().AbortMove(ctx, id, cluster.Origin{Author: "mover", Reason: reason})
	return err
}

func (l moverLedger) FinishMove(ctx context.Context, id uint64) error {
	return l.n.ledger().FinishMove(ctx, id)
}

// connectReplicas connects to those of a shard's replicas that are not down: any of them may be promoted.
func (n *Node) connectReplicas(ctx context.Context, shard, database string) ([]*pgx.Conn, error) {
	var addrs, names []string
	for _, b := range n.table.Snapshot().Backends {
		if b.Backend.Shard == shard && b.Role == rib.Replica && !b.Down() && b.Refused == "" {
			addrs, names = append(addrs, b.Backend.Addr), append(names, b.Backend.Name)
		}
	}
	found, errs := make([]*pgx.Conn, len(addrs)), make([]error, len(addrs))
	var wg sync.WaitGroup
	for i, addr := range addrs {
		wg.Go(func() {
			conn, err := n.connect(ctx, addr, database)
			if err != nil {
				errs[i] = fmt.Errorf("replica %s, which may be promoted, cannot be asked: %w", names[i], err)
				return
			}
			found[i] = conn
		})
	}
	wg.Wait()
	conns := found[:0]
	for _, c := range found {
		if c != nil {
			conns = append(conns, c)
		}
	}
	return conns, errors.Join(errs...)
}

// moverLeases are the ledger's leases, as the mover knows them: of the ledger of this moment, for a handover may make another one.
type moverLeases struct{ n *Node }

func (l moverLeases) Undrained(id uint64) []string { return l.n.ledger().Leases().Undrained(id) }

func (l moverLeases) Unaware(id uint64) []string { return l.n.ledger().Leases().Unaware(id) }

func (l moverLeases) Acknowledged(e rib.Epoch) []string { return l.n.ledger().Leases().Acknowledged(e) }
