package node

import (
	"errors"
	"fmt"
	"log/slog"

	"rangefinder/cluster"
)

type clusterCmd struct {
	Recover clusterRecoverCmd `cmd:"" help:"Go on from one node alone, after a majority of the voters is lost for good."`
}

type clusterRecoverCmd struct {
	configFlags
	WithoutShard []string `placeholder:"SHARD" help:"Do not ask this shard what it knows of moves; may be repeated."`
	Yes          bool     `help:"Do it. Without, the command only says what it would do."`
}

// Help is shown by `rangefinder cluster recover --help`.
func (clusterRecoverCmd) Help() string {
	return `For when a majority of the voters is lost for good: their disks are gone. Never while they may come back within reach of clients but
not of each other. Stop the node to recover from (of those that are left the one whose epoch is the highest: 'rangefinder status'), run
this with its configuration, and start it again. It then leads alone, as a new generation whose epochs are later than all before; the
other nodes follow, and become voters as ever.

What the node has not heard of any more may be a move that was finished without it. So the primary of every shard is asked first for
its rows in rangefinder.fence, and the ranges of such moves are given to the shards that have them.`
}

// Run says what a recovery would do, and does it with --yes.
func (c *clusterRecoverCmd) Run(e *env) (err error) {
	cfg, err := Load(c.Config, c.apply)
	if err != nil {
		return err
	}
	level := new(slog.LevelVar)
	level.Set(max(slog.LevelWarn, levelOf(cfg.Log)))
	n, err := New(cfg, Options{Logger: newLogger(cfg.Log, level, e), Level: level, Getenv: e.getenv})
	if err != nil {
		return err
	}
	r, err := openRecovery(n, c.WithoutShard)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.dir.Close()) }()
	how, found, err := r.plan(e.ctx)
	if err != nil {
		return err
	}
	if c.Yes {
		if found, err = cluster.Recover(how); err != nil {
			return err
		}
	}
	for _, handed := range found.Handed {
		fmt.Fprintln(e.stdout, handed)
	}
	if !c.Yes {
		_, err = fmt.Fprintf(e.stdout, "node %s would go on alone from epoch %s as %s; nothing was changed: run it with --yes to do it\n", r.state.Node, found.Before, found.After)
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "node %s goes on alone from epoch %s as %s: start it now\n", r.state.Node, found.Before, found.After)
	return err
}
