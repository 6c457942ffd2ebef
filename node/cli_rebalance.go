package node

import (
	"fmt"
	"io"
	"strings"

	"rangefinder/cluster/balance"
)

type balanceCmd struct {
	Plan  balancePlanCmd  `cmd:"" help:"Show which ranges should move, and what that would gain. Nothing is moved."`
	Apply balanceApplyCmd `cmd:"" help:"Make a plan and carry it out, a move at a time."`
}

// planFlags say what a plan is for.
type planFlags struct {
	Keyspace  string  `placeholder:"NAME" help:"Only this keyspace's ranges."`
	Tolerance float64 `default:"0.1" help:"By how much of the mean the heaviest shard may be above the lightest."`
}

type balancePlanCmd struct {
	adminFlags
	planFlags
}

// Help is shown by `rangefinder rebalance plan --help`.
func (balancePlanCmd) Help() string {
	return "Sizes are sampled on the shards, load is the statements with one key that all nodes have counted in the last seconds; each counts half. A range that is\ntoo heavy to be moved is named, with the bounds that would divide its load, or if it has none its rows, and its hottest keys: split it first (rangefinder range split).\n\nExamples:\n\n  rangefinder rebalance plan\n  rangefinder rebalance plan --keyspace app.orders --tolerance 0.2\n  rangefinder rebalance apply --max-lag 5s --hook http://127.0.0.1:9000/moves"
}

// Run prints a plan.
func (c *balancePlanCmd) Run(e *env) error {
	var p balance.Plan
	if err := c.call(e, RebalanceQuery{Keyspace: c.Keyspace, Tolerance: c.Tolerance}.path(), nil, &p); err != nil || c.JSON {
		return err
	}
	return printPlan(e.stdout, &p)
}

func printPlan(w io.Writer, p *balance.Plan) error {
	err := table(w, func(row func(...any)) {
		row("SHARD", "RANGES", "ROWS", "SIZE", "LOAD/S", "PART", "PART AFTER")
		for i, b := range p.Before {
			row(b.Shard, b.Ranges, b.Rows, showBytes(b.Bytes), fmt.Sprintf("%.0f", b.Load), fmt.Sprintf("%.0f %%", 100*b.Part), fmt.Sprintf("%.0f %%", 100*p.After[i].Part))
		}
	})
	if err != nil {
		return err
	}
	for _, s := range p.Splits {
		fmt.Fprintf(w, "\nrange %s of %s should be split into %d or more: %s\n", s.Bounds, s.Keyspace, s.Parts, s.Why)
		for _, k := range s.Hot {
			key := k.Key
			if k.Value != "" {
				key = k.Value + " at " + k.Key
			}
			fmt.Fprintf(w, "  key %s alone gets %.4g statements a second: it can be set apart, but not spread\n", key, k.Load)
		}
		if len(s.At) > 0 {
			fmt.Fprintf(w, "  rangefinder range split %s %s\n", s.Keyspace, strings.Join(shellWords(s.At), " "))
		}
	}
	if len(p.Missing) > 0 {
		fmt.Fprintf(w, "\nwithout the load of nodes that have not answered: %s\n", strings.Join(p.Missing, ", "))
	}
	if len(p.Moves) == 0 {
		_, err := fmt.Fprintln(w, "\nNothing is to be moved.")
		return err
	}
	fmt.Fprintln(w)
	return table(w, func(row func(...any)) {
		row("MOVE", "KEYSPACE", "RANGE", "FROM", "TO", "ROWS", "SIZE", "LOAD/S", "GAIN")
		for i, m := range p.Moves {
			row(i+1, m.Keyspace, m.Bounds, m.Shard, m.To, m.Rows, showBytes(m.Bytes), fmt.Sprintf("%.0f", m.Load), fmt.Sprintf("%.0f %%", 100*m.Gain))
		}
		if p.More {
			row("...")
		}
	})
}

// shellWords quotes what a shell would not leave as it is.
func shellWords(list []string) []string {
	words := make([]string, len(list))
	for i, s := range list {
		if words[i] = s; s == "" || strings.ContainsFunc(s, func(r rune) bool {
			return !strings.ContainsRune("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-+.,:/@", r)
		}) {
			words[i] = "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
		}
	}
	return words
}

type balanceApplyCmd struct {
	adminFlags
	planFlags
	applyFlags
}

// Help is shown by `rangefinder rebalance apply --help`.
func (balanceApplyCmd) Help() string {
	return (balancePlanCmd{}).Help() + "\n\n" + applyHelp
}

// Run makes a plan and carries it out.
func (c *balanceApplyCmd) Run(e *env) error {
	return c.carryOut(e, c.adminFlags, RebalanceQuery{Keyspace: c.Keyspace, Tolerance: c.Tolerance}, "rebalance")
}

type shardCmd struct {
	Fill  shardFillCmd  `cmd:"" help:"Give a shard, mostly a new one, its part of the ranges."`
	Empty shardEmptyCmd `cmd:"" help:"Move all ranges of a shard to the others."`
}

type shardFillCmd struct {
	adminFlags
	planFlags
	applyFlags
	Name string `arg:"" help:"The shard. A node must have announced a backend of it ([[backends]])."`
}

// Help is shown by `rangefinder shard fill --help`.
func (shardFillCmd) Help() string {
	return "Example, once shard_4's servers are listed under [[backends]] of the nodes near them, and 'rangefinder reload' has told these:\n\n  rangefinder shard fill shard_4\n\n" + applyHelp
}

// Run fills the shard.
func (c *shardFillCmd) Run(e *env) error {
	return c.carryOut(e, c.adminFlags, RebalanceQuery{Keyspace: c.Keyspace, Tolerance: c.Tolerance, Only: c.Name}, "fill "+c.Name)
}

type shardEmptyCmd struct {
	adminFlags
	planFlags
	applyFlags
	Name string `arg:"" help:"The shard."`
}

// Help is shown by `rangefinder shard empty --help`.
func (shardEmptyCmd) Help() string {
	return "Ranges of the methods hash and range move to the shards that have least, until none is left; if others give it ranges meanwhile, it ends with those that are.\nValues of a list, schemas, reference tables and tables without a keyspace stay: they are named by 'rangefinder keyspace list'.\n\nExample:\n\n  rangefinder shard empty shard_3\n\n" + applyHelp
}

// Run empties the shard.
func (c *shardEmptyCmd) Run(e *env) error {
	return c.carryOut(e, c.adminFlags, RebalanceQuery{Keyspace: c.Keyspace, Tolerance: c.Tolerance, Empty: c.Name}, "empty "+c.Name)
}
