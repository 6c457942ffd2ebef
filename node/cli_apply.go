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

// applyFlags say how a plan is carried out.
type applyFlags struct {
	MaxLag   time.Duration `default:"10s" help:"Stop when a replica is further behind than this; a move that still copies is aborted."`
	StopLoad string        `default:"at limit" enum:"between,at limit,never" help:"Stop, and abort likewise, when the connections of a backend are so: between its two bounds (reads.load_soft and load_hard), at limit, or never."`
	Rest     time.Duration `default:"1s" help:"Between two moves."`
	Hook     string        `placeholder:"URL" help:"POSTed to before and after each move, as JSON; an answer other than 2xx stops before the next one."`
}

// applyHelp is part of the help of what moves ranges.
const applyHelp = `One range moves at a time. When a bound (--max-lag, --stop-load) is passed, nothing more is moved, and the exit code is 1; the move under way is aborted if
it copies or follows yet, for then nothing is lost but what was copied, and else comes to its end. Ctrl-C stops too, and the move under way goes on. What was moved
stays where it is. With --json there is a line for each plan ({"plan": ...}) and for each change of a move ({"move": ..., "number": 1, "of": 5}).`

// hookCall is the body that the hook is sent.
type hookCall struct {
	When string       `json:"when"` // before, after
	Move balance.Move `json:"move"`
	ID   uint64       `json:"id,omitempty"`    // after: the move's number
	Err  string       `json:"error,omitempty"` // after: why it has failed
}

// applyLine is a line of what --json prints: a plan, or how one of its moves goes.
type applyLine struct {
	Plan   *balance.Plan `json:"plan,omitempty"`
	Move   *MoveView     `json:"move,omitempty"`
	Number int           `json:"number,omitempty"` // the move's place in the plan, from 1
	Of     int           `json:"of,omitempty"`
}

// applying is plans that are carried out.
type applying struct {
	*applyFlags
	e      *env
	admin  adminFlags // without --json
	json   bool
	query  RebalanceQuery
	reason string
	moved  map[string]bool // by keyspace and bounds: what was moved since this began
}

// carryOut makes a plan and moves what it says, one range at a time, until a bound is passed. Where a plan is not all that is to be done, as it is as long as plans may be or as a shard is
// to be emptied that was given ranges meanwhile, another one follows. No range moves twice: so it comes to an end, whatever is measured.
func (f *applyFlags) carryOut(e *env, flags adminFlags, q RebalanceQuery, reason string) error {
	a := &applying{applyFlags: f, e: e, admin: flags.quiet(), json: flags.JSON, query: q, reason: reason, moved: map[string]bool{}}
	var done time.Time // when the last move was
	for first, more := true, true; ; first = false {
		var p balance.Plan
		if err := a.admin.call(e, q.path(), nil, &p); err != nil {
			return err
		}
		todo := slices.DeleteFunc(slices.Clone(p.Moves), func(m balance.Move) bool {
			return a.moved[rangeOf(&m.Range)] || !more && m.Shard != q.Empty // all was planned before: this is a look at what is left on the shard
		})
		if first || len(todo) > 0 {
			if err := a.showPlan(&p, todo); err != nil {
				return err
			}
		}
		if len(todo) == 0 {
			err := emptied(&p, q.Empty)
			if err == nil || time.Since(done) >= heardOf || !pause(e.ctx, heardOf/10) {
				return err
			}
			continue
		}
		for i := range todo {
			if !first || i > 0 {
				if !pause(e.ctx, f.Rest) {
					return stoppedBefore(i, todo, e.ctx.Err())
				}
			}
			if err := a.move(i, todo); err != nil {
				return err
			}
		}
		done = time.Now()
		if more = p.More; !more && q.Empty == "" {
			return nil
		}
	}
}

// heardOf is in what time the node that is asked has heard of a move that is over, if it does not lead.
const heardOf = 5 * time.Second

// rangeOf names a range.
func rangeOf(r *balance.Range) string { return r.Bounds + " of " + r.Keyspace }

func (a *applying) showPlan(p *balance.Plan, todo []balance.Move) error {
	shown := *p
	shown.Moves = todo
	if a.json {
		return a.admin.printLine(a.e, applyLine{Plan: &shown})
	}
	return printPlan(a.e.stdout, &shown)
}

// namedLeft is how many of the ranges that are left on a shard are named.
const namedLeft = 10

// emptied is the end of what was to empty a shard: a failure if there are ranges on it. shard "": none was to be emptied.
func emptied(p *balance.Plan, shard string) error {
	left := 0
	for _, w := range p.Before {
		if w.Shard == shard {
			left = w.Ranges
		}
	}
	if left == 0 {
		return nil
	}
	var names []string
	for i := range p.Moves {
		if m := &p.Moves[i]; m.Shard == shard && len(names) < namedLeft {
			names = append(names, rangeOf(&m.Range))
		}
	}
	if left > len(names) {
		names = append(names, "...")
	}
	return &Failure{
		Message: fmt.Sprintf("%d ranges of shard %s are left: %s", left, shard, strings.Join(names, ", ")),
		Hint:    "They were moved away, and are there again: 'rangefinder range history' tells who moves them, or for how long they were lent. Then run the same command once more.",
	}
}

func stoppedBefore(i int, todo []balance.Move, why error) error {
	return fmt.Errorf("stopped before move %d of %d: %w", i+1, len(todo), why)
}

// move carries out one of a plan's moves.
func (a *applying) move(i int, todo []balance.Move) error {
	m := &todo[i]
	stop, err := a.passed()
	if err = errors.Join(stop, err); err == nil {
		err = a.tell(a.e.ctx, hookCall{When: "before", Move: *m})
	}
	if err != nil {
		return stoppedBefore(i, todo, err)
	}
	a.moved[rangeOf(&m.Range)] = true
	var begun MoveView
	req := cluster.MoveRequest{Keyspace: m.Keyspace, Range: m.Bounds, From: m.Shard, To: m.To, Origin: cluster.Origin{Reason: a.reason, RequestID: randomHex(16)}}
	if err = a.admin.call(a.e, "/api/v1/moves", req, &begun); err == nil {
		err = a.watch(i, todo, &begun)
	}
	after := hookCall{When: "after", Move: *m, ID: begun.ID}
	if err != nil {
		after.Err = err.Error()
	}
	return errors.Join(err, a.tell(a.e.ctx, after))
}

// watch looks at a move until it is over, and has it aborted, where that costs nobody anything, when a bound is passed.
func (a *applying) watch(i int, todo []balance.Move, begun *MoveView) error {
	m := &todo[i]
	w := &moveWatch{admin: a.admin, id: begun.ID, passed: a.passed}
	if a.json {
		w.show = func(v *MoveView) error {
			return a.admin.printLine(a.e, applyLine{Move: v, Number: i + 1, Of: len(todo)})
		}
	} else {
		fmt.Fprintf(a.e.stdout, "\nmove %d, %d of %d: range %s of %s, from %s to %s\n", begun.ID, i+1, len(todo), m.Bounds, m.Keyspace, m.Shard, m.To)
	}
	err := w.run(a.e)
	switch {
	case w.stop == nil:
		return err
	case errors.Is(err, errAborted):
		return fmt.Errorf("stopped in move %d of %d, which was aborted: %w", i+1, len(todo), w.stop)
	case err == nil:
		return fmt.Errorf("stopped after move %d of %d: %w", i+1, len(todo), w.stop)
	}
	return fmt.Errorf("stopped in move %d of %d: %w", i+1, len(todo), errors.Join(w.stop, err))
}

// passed says why nothing more should be moved now; stop nil: it may.
func (a *applying) passed() (stop, err error) {
	var v ClusterView
	if err := a.admin.call(a.e, "/debug/cluster", nil, &v); err != nil {
		return nil, err
	}
	loads := []string{"below", "between", "at limit"}
	bound := slices.Index(loads, a.StopLoad)
	for _, b := range v.Backends {
		if lag := time.Duration(b.LagMS * float64(time.Millisecond)); (b.ForUs == "up" || b.ForUs == leftOut) && lag > a.MaxLag {
			return &Failure{Message: fmt.Sprintf("backend %s is %s behind, more than %s", b.Name, lag.Round(time.Millisecond), a.MaxLag), Hint: "Begin again when it has caught up; --max-lag sets another bound."}, nil
		}
		if bound > 0 && slices.Index(loads, b.Load) >= bound {
			return &Failure{Message: fmt.Sprintf("the load of backend %s is %s", b.Name, b.Load), Hint: "Begin again when it is lower; --stop-load sets another bound."}, nil
		}
	}
	return nil, nil
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
	switch {
	case err != nil && ctx.Err() != nil:
		return &Failure{Message: fmt.Sprintf("the hook has not answered in %s", hookTimeout), Hint: "Nothing more is moved."}
	case err != nil:
		return fmt.Errorf("the hook: %w", err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
	if resp.StatusCode/100 != 2 {
		return &Failure{Message: fmt.Sprintf("the hook answered %s", resp.Status), Detail: strings.TrimSpace(string(text)), Hint: "Nothing more is moved."}
	}
	return nil
}
