package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"rangefinder/cluster"
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

// applyFlags say how a plan is carried out.
type applyFlags struct {
	MaxLag   time.Duration `default:"10s" help:"Stop when a replica is further behind than this."`
	StopLoad string        `default:"at limit" enum:"between,at limit,never" help:"Stop when the connections of a backend are so: between its two bounds (reads.load_soft and load_hard), at limit, or never."`
	Rest     time.Duration `default:"1s" help:"Between two moves."`
	Hook     string        `placeholder:"URL" help:"POSTed to before and after each move, as JSON; an answer other than 2xx stops before the next one."`
}

type balancePlanCmd struct {
	adminFlags
	planFlags
}

// Help is shown by `rangefinder rebalance plan --help`.
func (balancePlanCmd) Help() string {
	return "Sizes are sampled on the shards, load is the statements with one key that all nodes have counted in the last seconds; each counts half. A range that is\ntoo heavy to be moved is named, with the bounds that would divide its load and its hottest keys: split it first (rangefinder range split).\n\nExamples:\n\n  rangefinder rebalance plan\n  rangefinder rebalance plan --keyspace app.orders --tolerance 0.2\n  rangefinder rebalance apply --max-lag 5s --hook http://127.0.0.1:9000/moves"
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
	return (balancePlanCmd{}).Help() + "\n\nOne range moves at a time. Ctrl-C stops after the move under way, which goes on; what was moved stays where it is."
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
	return "Example, once shard_4's servers are listed under [[backends]] of the nodes near them, and 'rangefinder reload' has told these:\n\n  rangefinder shard fill shard_4"
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
	return "Ranges of the methods hash and range move to the shards that have least. Values of a list, schemas, reference tables and tables without a keyspace\nstay: they are named by 'rangefinder keyspace list'.\n\nExample:\n\n  rangefinder shard empty shard_3"
}

// Run empties the shard.
func (c *shardEmptyCmd) Run(e *env) error {
	return c.carryOut(e, c.adminFlags, RebalanceQuery{Keyspace: c.Keyspace, Tolerance: c.Tolerance, Empty: c.Name}, "empty "+c.Name)
}

// hookCall is the body that the hook is sent.
type hookCall struct {
	When string       `json:"when"` // before, after
	Move balance.Move `json:"move"`
	ID   uint64       `json:"id,omitempty"`    // after: the move's number
	Err  string       `json:"error,omitempty"` // after: why it has failed
}

// carryOut makes a plan and moves what it says, one range at a time, until a bound is passed.
func (f *applyFlags) carryOut(e *env, flags adminFlags, q RebalanceQuery, reason string) error {
	flags.JSON = false
	var p balance.Plan
	if err := flags.call(e, q.path(), nil, &p); err != nil {
		return err
	}
	if err := printPlan(e.stdout, &p); err != nil {
		return err
	}
	for i, m := range p.Moves {
		stopped := func(err error) error {
			return fmt.Errorf("stopped before move %d of %d: %w", i+1, len(p.Moves), err)
		}
		if i > 0 && !pause(e.ctx, f.Rest) {
			return stopped(e.ctx.Err())
		}
		if err := f.mayGoOn(e, flags); err != nil {
			return stopped(err)
		}
		if err := f.tell(e.ctx, hookCall{When: "before", Move: m}); err != nil {
			return stopped(err)
		}
		var begun MoveView
		req := cluster.MoveRequest{Keyspace: m.Keyspace, Range: m.Bounds, From: m.Shard, To: m.To, Origin: cluster.Origin{Reason: reason, RequestID: randomHex(16)}}
		err := flags.call(e, "/api/v1/moves", req, &begun)
		if err == nil {
			fmt.Fprintf(e.stdout, "\nmove %d, %d of %d: range %s of %s, from %s to %s\n", begun.ID, i+1, len(p.Moves), m.Bounds, m.Keyspace, m.Shard, m.To)
			err = watchMove(e, flags, begun.ID)
		}
		after := hookCall{When: "after", Move: m, ID: begun.ID}
		if err != nil {
			after.Err = err.Error()
		}
		if err := errors.Join(err, f.tell(e.ctx, after)); err != nil {
			return err
		}
	}
	return nil
}

// mayGoOn says why nothing more should be moved now; nil: it may.
func (f *applyFlags) mayGoOn(e *env, flags adminFlags) error {
	var v ClusterView
	if err := flags.call(e, "/debug/cluster", nil, &v); err != nil {
		return err
	}
	loads := []string{"below", "between", "at limit"}
	bound := slices.Index(loads, f.StopLoad)
	for _, b := range v.Backends {
		if lag := time.Duration(b.LagMS * float64(time.Millisecond)); (b.ForUs == "up" || b.ForUs == leftOut) && lag > f.MaxLag {
			return &Failure{Message: fmt.Sprintf("backend %s is %s behind, more than %s", b.Name, lag.Round(time.Millisecond), f.MaxLag), Hint: "Begin again when it has caught up; --max-lag sets another bound."}
		}
		if bound > 0 && slices.Index(loads, b.Load) >= bound {
			return &Failure{Message: fmt.Sprintf("the load of backend %s is %s", b.Name, b.Load), Hint: "Begin again when it is lower; --stop-load sets another bound."}
		}
	}
	return nil
}

// hookTimeout bounds one call of the hook.
const hookTimeout = 30 * time.Second

// tell calls the hook, if there is one.
func (f *applyFlags) tell(ctx context.Context, c hookCall) error {
	if f.Hook == "" {
		return nil
	}
	body, err := json.Marshal(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), hookTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.Hook, bytes.NewReader(body))
	if err != nil {
		return &usageError{message: "--hook: " + err.Error(), hint: "For example http://127.0.0.1:9000/moves"}
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("the hook: %w", err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
	if resp.StatusCode/100 != 2 {
		return &Failure{Message: fmt.Sprintf("the hook answered %s", resp.Status), Detail: strings.TrimSpace(string(text)), Hint: "Nothing more is moved."}
	}
	return nil
}
