package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"rangefinder/cluster"
	"rangefinder/rib"
)

// recovery is the work of `rangefinder cluster recover`: on a node that does not run, with nothing but its data directory, its
// configuration, and the shards' servers.
type recovery struct {
	// constant
	node    *Node // made, and never opened: for its settings, and for what it logs in to servers with
	dir     *dataDir
	state   State
	without []string // shards that are not asked
}

// openRecovery locks a node's data directory.
func openRecovery(n *Node, without []string) (*recovery, error) {
	dir, err := openDataDir(n.cfg().DataDir)
	if err != nil {
		return nil, err
	}
	state, found, err := dir.Load()
	if err == nil && (!found || state.ClusterID == "") {
		err = &Failure{Message: "this node belongs to no cluster: " + dir.path, Hint: "Recover one that does: --config and --data-dir say which."}
	}
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return &recovery{node: n, dir: dir, state: state, without: without}, nil
}

// plan asks all shards for what they know of moves, and says what a recovery would do. It changes nothing.
func (r *recovery) plan(ctx context.Context) (cluster.RecoverConfig, cluster.Recovery, error) {
	cfg := r.config()
	o, err := cluster.KnownOwnership(cfg.Dir)
	if err != nil {
		return cfg, cluster.Recovery{}, err
	}
	if cfg.Fences, cfg.Asked, err = r.fences(ctx, o); err != nil {
		return cfg, cluster.Recovery{}, err
	}
	dry := cfg
	dry.Dry = true
	found, err := cluster.Recover(dry)
	return cfg, found, err
}

func (r *recovery) config() cluster.RecoverConfig {
	cfg := r.node.cfg()
	host, port, err := net.SplitHostPort(cfg.Advertise)
	if err != nil {
		host, port = cfg.Advertise, strconv.Itoa(cfg.Ports.Cluster)
	}
	if host == "" {
		host = cfg.Bind
	}
	return cluster.RecoverConfig{Node: r.state.Node, Addr: net.JoinHostPort(host, port), Dir: filepath.Join(r.dir.path, ledgerDir), Logger: r.node.log}
}

// fences reads rangefinder.fence on the primary of every shard, in each database that has a keyspace, and tells where it has.
func (r *recovery) fences(ctx context.Context, o *rib.Ownership) (list []cluster.Fence, asked []cluster.Place, err error) {
	var databases []string
	for i := range o.Keyspaces {
		databases = append(databases, o.Keyspaces[i].Database)
	}
	slices.Sort(databases)
	databases = slices.Compact(databases)
	addrs, err := r.addresses()
	if err != nil {
		return nil, nil, err
	}
	var silent []string
	for _, shard := range o.Shards {
		if slices.Contains(r.without, shard.Name) {
			continue
		}
		found, err := r.askShard(ctx, shard, addrs[shard.Name], databases)
		if err != nil {
			silent = append(silent, err.Error())
		}
		list = append(list, found...)
		for _, database := range databases {
			asked = append(asked, cluster.Place{Shard: shard.Name, Database: database})
		}
	}
	if len(silent) > 0 {
		return nil, nil, &Failure{
			Message: "not every shard can say what it knows of moves:\n  " + strings.Join(silent, "\n  "),
			Hint:    "Bring a primary of each back first. With --without-shard NAME it goes on without asking: do so only if nothing was moving to or from that shard.",
		}
	}
	return list, asked, nil
}

// addresses are those of the backends that this node knows, by shard.
func (r *recovery) addresses() (map[string][]string, error) {
	addrs := make(map[string][]string)
	for _, b := range r.node.cfg().Backends {
		addrs[b.Shard] = append(addrs[b.Shard], b.Address)
	}
	known, err := r.dir.LoadBeliefs(r.state.ClusterID)
	for _, k := range known {
		if b := k.Announcement.Backend; !slices.Contains(addrs[b.Shard], b.Addr) {
			addrs[b.Shard] = append(addrs[b.Shard], b.Addr)
		}
	}
	return addrs, err
}

// askShard asks the one of a shard's servers that is its primary.
func (r *recovery) askShard(ctx context.Context, shard rib.Shard, addrs, databases []string) ([]cluster.Fence, error) {
	why := []string{"no backend of it is known here"}
	for i, addr := range addrs {
		if i == 0 {
			why = nil
		}
		list, err := r.askServer(ctx, shard, addr, databases)
		if err == nil {
			return list, nil
		}
		why = append(why, addr+": "+err.Error())
	}
	return nil, fmt.Errorf("shard %s: %s", shard.Name, strings.Join(why, "; "))
}

func (r *recovery) askServer(ctx context.Context, shard rib.Shard, addr string, databases []string) (list []cluster.Fence, err error) {
	ctx, cancel := context.WithTimeout(ctx, shardTimeout)
	defer cancel()
	for _, database := range databases {
		conn, err := r.node.connect(ctx, addr, database)
		if err != nil {
			return nil, err
		}
		found, err := askFences(ctx, conn, shard)
		if err := errors.Join(err, conn.Close(context.WithoutCancel(ctx))); err != nil {
			return nil, err
		}
		list = append(list, found...)
	}
	return list, nil
}

func askFences(ctx context.Context, conn *pgx.Conn, shard rib.Shard) (list []cluster.Fence, err error) {
	var replica, there bool
	var system string
	if err := conn.QueryRow(ctx, "SELECT pg_catalog.pg_is_in_recovery(), system_identifier::text, pg_catalog.to_regclass('rangefinder.fence') IS NOT NULL FROM pg_catalog.pg_control_system()").Scan(&replica, &system, &there); err != nil {
		return nil, err
	}
	switch {
	case system != strconv.FormatUint(shard.SystemID, 10):
		return nil, fmt.Errorf("its system identifier is %s, and the shard's is %d", system, shard.SystemID)
	case replica:
		return nil, errors.New("it is a replica")
	case !there:
		return nil, nil
	}
	rows, err := conn.Query(ctx, "SELECT move, side, keyspace, low, high, from_shard, to_shard, state FROM rangefinder.fence ORDER BY move, side")
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (f cluster.Fence, err error) {
		var move int64
		var low, high []byte
		err = row.Scan(&move, &f.Side, &f.Keyspace, &low, &high, &f.From, &f.To, &f.State)
		f.Shard, f.Move, f.Low, f.High = shard.Name, uint64(move), low, high
		return f, err
	})
}
