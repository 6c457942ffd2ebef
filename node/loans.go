package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"rangefinder/cluster"
	"rangefinder/rib"
)

// LoansAnswer is the answer of GET /api/v1/routing-map.
type LoansAnswer struct {
	Loans []LoanView `json:"loans"`
}

// LoanView is a range that is to go back.
type LoanView struct {
	ID       uint64    `json:"id"`
	Keyspace string    `json:"keyspace"`
	Range    string    `json:"partition_key_range"`
	From     string    `json:"from"` // the shard that it goes back to
	Target   string    `json:"target_backend"`
	Until    time.Time `json:"until"`
	Why      string    `json:"why"` // its time is over, and it stays: the reason
}

// Loans lists the ranges that are to go back, as this node knows them.
func (n *Node) Loans() LoansAnswer {
	o, v := n.table.Owners().Get(), LoansAnswer{Loans: []LoanView{}}
	for _, l := range o.Loans {
		one := LoanView{ID: l.ID, From: l.From, Target: l.To, Until: l.Until, Why: l.Why}
		if ks := o.Keyspace(l.Keyspace); ks != nil {
			one.Keyspace, one.Range = ks.Name, ks.FormatInterval(l.Low, l.High)
		}
		v.Loans = append(v.Loans, one)
	}
	return v
}

// loanTick is how often the leader looks for ranges whose time has come, loanRetry how soon it tries again to give one back, and loanPatience how long one may be past its time
// before that is an alarm.
const (
	loanTick     = time.Second
	loanRetry    = 30 * time.Second
	loanPatience = time.Minute
)

// lender gives ranges back whose time has come, where its node leads.
type lender struct {
	// constant
	log    *slog.Logger
	owners func() *rib.Ownership
	count  func(ctx context.Context, ks *rib.Keyspace, low, high rib.Key, shard string) (rowsFound, error)
	keep   func(ctx context.Context, id uint64, why string) error                                      // has the range stay, for a reason
	begin  func(ctx context.Context, ks *rib.Keyspace, low, high rib.Key, r cluster.MoveRequest) error // moves it back

	// owned by loanLoop
	tried map[uint64]time.Time // by loan: when it was last tried to give it back

	// guarded by mu
	mu  sync.Mutex
	why map[uint64]string // by loan that is due: why it has not gone back, when that was last looked at
}

func newLender(n *Node) *lender {
	return &lender{
		log: n.log, owners: func() *rib.Ownership { return n.table.Owners().Get() }, count: n.countRows,
		keep: func(ctx context.Context, id uint64, why string) error {
			_, err := n.ledger().KeepLoan(ctx, id, why)
			return err
		},
		begin: func(ctx context.Context, ks *rib.Keyspace, low, high rib.Key, r cluster.MoveRequest) error {
			_, err := n.begin(ctx, ks, low, high, r)
			return err
		},
		tried: map[uint64]time.Time{}, why: map[uint64]string{},
	}
}

// loanLoop gives ranges back whose time has come, where this node leads.
func (n *Node) loanLoop(ctx context.Context) {
	for pause(ctx, loanTick) {
		if !n.ledger().IsLeader() || n.carries() == nil || len(n.table.Owners().Get().Loans) == 0 {
			n.lender.only(nil) // another node says why they stay
			continue
		}
		due, err := n.ledger().DueLoans(ctx)
		if err != nil && ctx.Err() == nil {
			n.log.Warn("ranges that are to go back cannot be looked at", "error", err)
		}
		n.lender.look(ctx, due, time.Now())
	}
}

// look gives those of the loans back that are due, of which none was for loanRetry.
func (b *lender) look(ctx context.Context, due []rib.Loan, now time.Time) {
	b.only(due)
	for _, l := range due {
		if err := b.moving(&l); err != nil { // when that is over, it is looked at anew
			b.say(l.ID, err)
			continue
		}
		if last, ok := b.tried[l.ID]; ok && now.Sub(last) < loanRetry {
			continue
		}
		b.tried[l.ID] = now
		err := b.back(ctx, l)
		if ctx.Err() != nil {
			return
		}
		b.say(l.ID, err)
		if err != nil && !errors.Is(err, cluster.ErrMoving) {
			b.log.Warn("a range cannot go back yet", "loan", l.ID, "error", err)
		}
	}
}

// moving tells of a move that meets a loan: the range goes back already, or elsewhere, or the fence of the move that took it away still stands.
func (b *lender) moving(l *rib.Loan) error {
	o := b.owners()
	for i := range o.Moves {
		m := &o.Moves[i]
		if m.Keyspace != l.Keyspace || !m.Meets(l.Low, l.High) {
			continue
		}
		what := fmt.Sprintf("move %d of it from %s to %s", m.ID, m.From, m.To)
		if m.ID == l.ID {
			what = fmt.Sprintf("move %d, which took it away,", m.ID)
		}
		return &cluster.RejectedError{Reason: cluster.ErrMoving, Text: fmt.Sprintf("%s is not over (%s): 'rangefinder move status %d' says what it waits for", what, m.Phase, m.ID), Move: m}
	}
	return nil
}

// back moves a range back if it holds no rows, and says why it stays if it does. ErrMoving: a move of it is not over yet.
func (b *lender) back(ctx context.Context, l rib.Loan) error {
	ks := b.owners().Keyspace(l.Keyspace)
	if ks == nil {
		return nil
	}
	found, err := b.count(ctx, ks, l.Low, l.High, l.To)
	if err != nil {
		return err
	}
	if err := b.moving(&l); err != nil { // begun while it was counted
		return err
	}
	if found.rows > 0 {
		return b.keep(ctx, l.ID, fmt.Sprintf("%s (%s)", found, strings.Join(found.where, ", ")))
	}
	return b.begin(ctx, ks, l.Low, l.High, cluster.MoveRequest{
		Keyspace: ks.Name, Range: ks.FormatInterval(l.Low, l.High), From: l.To, To: l.From,
		Origin: cluster.Origin{Author: "ttl", Reason: "its time was over at " + l.Until.Format(time.RFC3339)},
	})
}

// only forgets what is not among the loans.
func (b *lender) only(due []rib.Loan) {
	gone := func(id uint64) bool {
		return !slices.ContainsFunc(due, func(l rib.Loan) bool { return l.ID == id })
	}
	maps.DeleteFunc(b.tried, func(id uint64, _ time.Time) bool { return gone(id) })
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.why, func(id uint64, _ string) bool { return gone(id) })
}

// say keeps why a range has not gone back; nil: nothing is known to be in the way.
func (b *lender) say(id uint64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if delete(b.why, id); err == nil {
		return
	}
	b.why[id] = oneLine(err.Error())
	if e := (*apiError)(nil); errors.As(err, &e) && e.Detail != "" {
		b.why[id] += ": " + oneLine(e.Detail)
	}
}

// alarms tells of ranges that are past their time: those that stay, and those that have neither gone back nor been found to have to stay.
func (b *lender) alarms(o *rib.Ownership, now time.Time) (list []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range o.Loans {
		l := &o.Loans[i]
		ks := o.Keyspace(l.Keyspace)
		if ks == nil || l.Why == "" && now.Sub(l.Until) < loanPatience {
			continue
		}
		span := ks.FormatInterval(l.Low, l.High)
		text := fmt.Sprintf("range %s of %s was lent to %s until %s and ", span, ks.Name, l.To, l.Until.Format(time.RFC3339))
		switch {
		case l.Why != "":
			text += fmt.Sprintf("stays there: it holds %s; give it back by: rangefinder move start %s %s --to %s", l.Why, ks.Name, span, l.From)
		case b.why[l.ID] != "":
			text += fmt.Sprintf("has not gone back to %s yet, which goes on to be tried: %s", l.From, b.why[l.ID])
		default:
			text += fmt.Sprintf("has not gone back to %s yet: the node that leads the ledger has an alarm that says why", l.From)
		}
		list = append(list, text)
	}
	return list
}
