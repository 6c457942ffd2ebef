package node

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"rangefinder/cluster"
)

type clusterCmd struct {
	Recover clusterRecoverCmd `cmd:"" help:"Go on from one node alone, after a majority of the voters is lost for good."`
	Forget  clusterForgetCmd  `cmd:"" help:"Have no move wait for a node that is gone for good, and withdraw what it announced."`
}

type clusterForgetCmd struct {
	adminFlags
	Node   string `arg:"" help:"The node's name."`
	Yes    bool   `help:"Do not ask for the name again."`
	Reason string `help:"Why, for the history."`
}

// Help is shown by `rangefinder cluster forget --help`.
func (clusterForgetCmd) Help() string {
	return `The old shard of a range that has moved refuses writes to it until every node has said that it knows the new one; 'rangefinder move status' names
those that have not. For a node whose machine is gone this would last for ever. Make sure first that it does not run any more, above all not somewhere
that clients reach and the other nodes do not: what it wrote to ranges that have moved would be lost. It is refused while the node is alive.

What a node has announced outlives it: its backends serve on. That ends too: those that no other node lists are withdrawn. So it is refused while
one of them is up; list it under [[backends]] of another node first.`
}

// Run asks for the name again, and has the node forgotten by whichever node leads.
func (c *clusterForgetCmd) Run(e *env) error {
	if !c.Yes {
		fmt.Fprintf(e.stderr, "If node %s runs somewhere, what it writes to ranges that have moved is lost. Its name again: ", c.Node)
		if readLine(e) != c.Node {
			return &Failure{Message: "nothing was changed: the name was not given again", Hint: "Give it, or use --yes."}
		}
	}
	var v ForgottenView
	spec := cluster.ForgetSpec{Node: c.Node, Origin: cluster.Origin{RequestID: randomHex(16), Reason: c.Reason}}
	if err := c.call(e, forgetPath, spec, &v); err != nil || c.JSON {
		return err
	}
	if _, err := fmt.Fprintf(e.stdout, "node %s is forgotten: no move waits for it\n", v.Node); err != nil || len(v.Withdrawn) == 0 {
		return err
	}
	_, err := fmt.Fprintf(e.stdout, "withdrawn, for it alone had announced them: %s\n", strings.Join(v.Withdrawn, ", "))
	return err
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
