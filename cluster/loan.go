package cluster

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"rangefinder/rib"
)

// A range that is lent goes back when its time has come. Time is what the leader says it is, in a command, and never runs backwards: so
// every voter comes to the same state. Whether the range can go back depends on its rows, of which the ledger knows nothing: who
// proposes looks at them, and moves the range back, or says why it stays.

// lend notes that a range has changed hands. That ends the loans that it meets, and makes one if l has a time to go back. One of which only a part changes hands is cut
// first, by commands of its own: what this does stands in the logs of older versions, and must not change.
func lend(next *draft, l rib.Loan) error {
	ends := func(old rib.Loan) bool {
		return old.Keyspace == l.Keyspace && rib.Meet(old.Low, old.High, l.Low, l.High)
	}
	if slices.ContainsFunc(next.Loans, ends) {
		next.Loans = slices.DeleteFunc(slices.Clone(next.Loans), ends)
	}
	if l.Until = wholeMillis(l.Until); !l.Until.IsZero() {
		if len(next.Loans) >= rib.MaxLoans {
			return reject(ErrTooMany, "%d ranges are lent to other shards, and no more may be", len(next.Loans))
		}
		next.Loans = slices.Clone(next.Loans)
		insertLoan(next, l)
	}
	if len(next.Loans) == 0 {
		next.Loans = nil
	}
	return nil
}

// insertLoan puts a loan among those of next, which may be changed, by its number.
func insertLoan(next *draft, l rib.Loan) {
	at, _ := slices.BinarySearchFunc(next.Loans, l.ID, func(old rib.Loan, id uint64) int { return cmp.Compare(old.ID, id) })
	next.Loans = slices.Insert(next.Loans, at, l)
}

// editLoan returns a loan of next that may be changed.
func editLoan(next *draft, id uint64) (*rib.Loan, error) {
	if next.Loan(id) == nil {
		return nil, reject(ErrNoLoan, "there is no loan %d: the range has gone back, or has changed hands since", id)
	}
	next.Loans = slices.Clone(next.Loans)
	return next.Loan(id), nil
}

func (s *state) loanDue(next *draft, c *loanCommand) (l rib.Loan, changed bool, err error) {
	loan, err := editLoan(next, c.ID)
	if err != nil || loan.Due {
		if loan != nil {
			l = *loan
		}
		return l, false, err
	}
	stamp := wholeMillis(c.Stamp)
	if stamp.Before(s.stamp) {
		stamp = s.stamp
	}
	if stamp.Before(loan.Until) {
		return l, false, reject(ErrNotDue, "loan %d is due at %s, and it is %s now", loan.ID, loan.Until.Format(time.RFC3339), stamp.Format(time.RFC3339))
	}
	s.stamp = stamp
	loan.Due = true
	return *loan, true, nil
}

func keepLoan(next *draft, c *loanCommand) (l rib.Loan, changed bool, err error) {
	loan, err := editLoan(next, c.ID)
	switch {
	case err != nil:
		return l, false, err
	case !loan.Due:
		return l, false, reject(ErrNotDue, "loan %d is not due yet, but at %s", loan.ID, loan.Until.Format(time.RFC3339))
	case c.Why == "" || len(c.Why) > MaxReason:
		return l, false, reject(ErrInvalid, "why a range stays is told in 1 to %d bytes", MaxReason)
	case c.Why == loan.Why:
		return *loan, false, nil
	}
	loan.Why = c.Why
	return *loan, true, nil
}

func endLoan(next *draft, c *loanCommand) (rib.Loan, error) {
	loan := next.Loan(c.ID)
	if loan == nil {
		return rib.Loan{}, reject(ErrNoLoan, "there is no loan %d: the range has gone back, or has changed hands since", c.ID)
	}
	ended := *loan
	if next.Loans = slices.DeleteFunc(slices.Clone(next.Loans), func(l rib.Loan) bool { return l.ID == c.ID }); len(next.Loans) == 0 {
		next.Loans = nil
	}
	return ended, nil
}

// untilLoan gives a loan another time. If it was over it is not any more, and what was in the way then is looked for again.
func untilLoan(next *draft, c *loanCommand) (l rib.Loan, changed bool, err error) {
	loan, err := editLoan(next, c.ID)
	if err != nil {
		return l, false, err
	}
	until := wholeMillis(c.Until)
	if until.IsZero() {
		return l, false, reject(ErrInvalid, "a range is lent until some time; to have it stay, end the loan")
	}
	for i := range next.Moves {
		// The move that has lent it may not be over yet. Any other one takes it back, or elsewhere.
		if m := &next.Moves[i]; m.ID != loan.ID && m.Keyspace == loan.Keyspace && m.Meets(loan.Low, loan.High) {
			return l, false, still(&next.Ownership, next.Keyspace(m.Keyspace), m.Low, m.High)
		}
	}
	if loan.Until.Equal(until) && !loan.Due {
		return *loan, false, nil
	}
	loan.Until, loan.Due, loan.Why = until, false, ""
	return *loan, true, nil
}

// cutLoan makes two loans of one. The first keeps its number, and is returned. Both end as the one would have; why it stays, if it does, is to be looked at again.
func cutLoan(next *draft, c *loanCommand) (rib.Loan, error) {
	loan, err := editLoan(next, c.ID)
	switch {
	case err != nil:
		return rib.Loan{}, err
	case !divides(c.At, loan):
		return rib.Loan{}, reject(ErrInvalid, "loan %d cannot be cut where it begins or ends, or beyond", loan.ID)
	case len(next.Loans) >= rib.MaxLoans:
		return rib.Loan{}, reject(ErrTooMany, "%d ranges are lent to other shards, and no more may be", len(next.Loans))
	}
	loan.Why = ""
	above := *loan
	above.ID, above.Low, loan.High = changeID(next.Epoch), c.At, c.At
	below := *loan
	insertLoan(next, above)
	return below, nil
}

// divides tells whether there are keys of the loan on both sides of a bound.
func divides(at rib.Key, l *rib.Loan) bool {
	return len(at) > 0 && l.Low.Compare(at) < 0 && (len(l.High) == 0 || at.Compare(l.High) < 0)
}

// DueLoans says of each loan whose time has come that it is due, if nobody has yet, and returns all that are due and not settled: those
// to move back, or to keep (KeepLoan). The leader's node calls it now and then. Errors are as for CreateKeyspace; the loans returned
// with one are due all the same.
func (l *Ledger) DueLoans(ctx context.Context) (due []rib.Loan, err error) {
	if err := l.leads(); err != nil {
		return nil, err
	}
	now := wholeMillis(time.Now())
	if stamp := l.fsm.stamp.Load(); stamp != nil && now.Before(*stamp) {
		now = *stamp // this node's clock is behind that of an earlier leader
	}
	for _, loan := range l.cfg.Owners.Get().Loans {
		if !loan.Due && !now.Before(loan.Until) {
			loan, err = l.proposeLoan(ctx, kindLoanDue, &loanCommand{ID: loan.ID, Stamp: now}, Origin{})
			if err != nil {
				return due, err
			}
		}
		if loan.Due && loan.Why == "" {
			due = append(due, loan)
		}
	}
	return due, nil
}

// KeepLoan says why a range that is due stays where it is: mostly since there are rows in it. The loan stays in the table, for people to
// see, until the range changes hands or EndLoan is called. Of a text of more than MaxReason bytes the beginning is kept.
func (l *Ledger) KeepLoan(ctx context.Context, id uint64, why string) (rib.Loan, error) {
	return l.proposeLoan(ctx, kindLoanKeep, &loanCommand{ID: id, Why: cutReason(why)}, Origin{})
}

// EndLoan lets a range stay where it is for good.
func (l *Ledger) EndLoan(ctx context.Context, id uint64, o Origin) (rib.Loan, error) {
	return l.proposeLoan(ctx, kindLoanEnd, &loanCommand{ID: id}, o)
}

// LendFor has a range that is lent go back so long from now; what is said of MoveRequest.TTL holds here too. Of a repetition the loan has its number and its time alone. Nodes of
// a version without it apply nothing more until they are upgraded.
func (l *Ledger) LendFor(ctx context.Context, id uint64, ttl time.Duration, o Origin) (rib.Loan, error) {
	var until time.Time
	r, err := l.proposeTimed(ctx, o, func(at time.Time) *command {
		until = wholeMillis(at.Add(ttl))
		return &command{Kind: kindLoanUntil, Loan: &loanCommand{ID: id, Until: until}}
	})
	if err == nil && r.loan.ID == 0 {
		r.loan = rib.Loan{ID: id, Until: until}
	}
	return r.loan, err
}

// cutLoans has the loans of which a move takes a part end at its bounds, so that what it does not take goes back all the same.
func (l *Ledger) cutLoans(ctx context.Context, id uint64) error {
	for {
		o := l.fsm.current.Load()
		m := o.Move(id)
		if m == nil {
			return nil
		}
		var next *loanCommand
		for i := range o.Loans {
			for _, at := range []rib.Key{m.Low, m.High} {
				if loan := &o.Loans[i]; loan.Keyspace == m.Keyspace && divides(at, loan) {
					next = &loanCommand{ID: loan.ID, At: at}
				}
			}
		}
		if next == nil {
			return nil
		}
		if _, err := l.proposeLoan(ctx, kindLoanCut, next, Origin{Reason: fmt.Sprintf("move %d takes a part of it", id)}); err != nil {
			return err
		}
	}
}

func (l *Ledger) proposeLoan(ctx context.Context, kind string, c *loanCommand, o Origin) (rib.Loan, error) {
	r, err := l.proposeSigned(ctx, &command{Kind: kind, Loan: c}, o)
	return r.loan, err
}
