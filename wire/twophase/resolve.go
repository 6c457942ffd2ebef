package twophase

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"rangefinder/wire/pg"
)

const (
	lookTime  = 20 * time.Second // for one look at one shard, and what is to be done there
	mendTime  = 20 * time.Second // for one try to end what this process has left
	maxForget = 1000             // decisions removed at a stroke
)

// counts are since the start.
type counts struct {
	committed, rolledBack, doubtful atomic.Uint64 // by Commit, of those with two writers or more
	ended                           atomic.Uint64 // found by Look, and ended
	deadlocks                       atomic.Uint64
}

// Counts are since the start: of transactions with two writers or more.
type Counts struct {
	Committed  uint64
	RolledBack uint64
	Doubtful   uint64 // the client was told that their fate is not known
	Ended      uint64 // parts of anybody's that were found prepared, and ended
	Deadlocks  uint64 // transactions that were ended because others and they waited for each other
}

// Counts returns what has been counted.
func (m *Manager) Counts() Counts {
	return Counts{m.counts.committed.Load(), m.counts.rolledBack.Load(), m.counts.doubtful.Load(), m.counts.ended.Load(), m.counts.deadlocks.Load()}
}

var (
	errNoDecision = errors.New("its decision is gone again")
	errWhose      = errors.New("somebody has decided to commit it, and nothing is prepared any more that would tell whether it was its own role")
)

// fate finds out how a transaction was decided. If it was not, it is decided here, to be rolled back. owner is the role that has prepared it:
// what another one has decided is none of its decisions. "": nobody knows it any more; then a decision to commit is errWhose.
func (m *Manager) fate(ctx context.Context, at place, gid, owner string) (commit bool, err error) {
	err = m.at(ctx, at, func(s Site) error {
		d, err := s.Decision(ctx, gid)
		if err == nil && d == nil {
			if err = s.Ready(ctx); err == nil {
				err = s.Refuse(ctx, gid)
			}
			if err == nil {
				d, err = s.Decision(ctx, gid)
			}
		}
		switch {
		case err != nil:
			return err
		case d == nil:
			return fmt.Errorf("shard %s: %w", at.shard, errNoDecision)
		}
		if d.Commit && owner == "" {
			return errWhose
		}
		commit = d.Commit && d.By == owner
		return nil
	})
	return commit, err
}

// fateOf is that of one of this process's. Its role is asked for where it is prepared, which says so of whatever SET ROLE has made of it.
func (m *Manager) fateOf(ctx context.Context, tx *transaction) (commit bool, err error) {
	m.mu.Lock()
	open := slices.Clone(tx.open)
	m.mu.Unlock()
	owners := make([]string, len(open))
	numbers := make([]int, len(open))
	for i := range numbers {
		numbers[i] = i
	}
	errs := each(numbers, func(i int) error {
		found, err := m.prepared(ctx, open[i])
		for _, p := range found.Prepared {
			if p.GID == tx.name {
				owners[i] = p.Owner
			}
		}
		return err
	})
	owner := ""
	for _, o := range owners {
		owner = cmp.Or(owner, o)
	}
	if err := errors.Join(errs...); owner == "" && err != nil {
		return false, err
	}
	return m.fate(ctx, place{tx.shards[0], tx.database}, tx.name, owner)
}

// Mend tries to end what this process could not, and removes decisions that have done their work.
func (m *Manager) Mend(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, mendTime)
	defer cancel()
	m.mu.Lock()
	var left []*transaction
	for _, tx := range m.active {
		if tx.left {
			left = append(left, tx)
		}
	}
	due := make(map[place][]string)
	for at, list := range m.spent {
		n := 0
		for ; n < len(list) && time.Since(list[n].at) >= m.cfg.Settle; n++ {
			due[at] = append(due[at], list[n].gid)
		}
		if m.spent[at] = list[n:]; n == len(list) {
			delete(m.spent, at)
		}
	}
	m.mu.Unlock()
	each(left, func(tx *transaction) error {
		m.mend(ctx, tx)
		return nil
	})
	each(slices.Collect(maps.Keys(due)), func(at place) error {
		gids := due[at]
		for len(gids) > 0 {
			some := gids[:min(len(gids), maxForget)]
			if err := m.at(ctx, at, func(s Site) error { return s.Forget(ctx, some) }); err != nil {
				m.mu.Lock() // else another node does it, later
				for _, gid := range gids[:min(len(gids), maxActive)] {
					m.spent[at] = append(m.spent[at], spent{gid: gid})
				}
				m.mu.Unlock()
				return err
			}
			gids = gids[len(some):]
		}
		return nil
	})
}

// mend tries to end one transaction.
func (m *Manager) mend(ctx context.Context, tx *transaction) {
	m.mu.Lock()
	state, open := tx.state, slices.Clone(tx.open)
	m.mu.Unlock()
	if state == InDoubt {
		commit, err := m.fateOf(ctx, tx)
		switch {
		case errors.Is(err, errWhose): // somebody else has ended it on all shards
			m.to(tx, Refused)
			m.leave(tx, open, nil)
			return
		case err != nil:
			m.leave(tx, nil, err)
			return
		}
		if state = Refused; commit {
			state = Decided
		}
		m.to(tx, state)
	}
	var shut []string
	errs := each(open, func(shard string) error {
		_, err := m.endAt(ctx, place{shard, tx.database}, tx.name, state == Decided)
		return err
	})
	for i, shard := range open {
		if errs[i] == nil {
			shut = append(shut, shard)
		}
	}
	m.leave(tx, shut, errors.Join(errs...))
}

// look is what was found on one shard.
type look struct {
	max  int // its max_prepared_transactions; < 0: not known
	left []leftover
	err  string               // why it could not be looked at; ""
	seen map[string]time.Time // since when what is left was seen there, by GID; never changed once it is made
}

// leftover is what somebody has prepared there and not ended.
type leftover struct {
	Prepared
	gid     GID
	state   State
	problem string // why it cannot be ended; ""
}

// Look looks for what was left on the shards that this node looks after, and ends it. It tells whether anything is left, or might be.
func (m *Manager) Look(ctx context.Context) (left bool) {
	shards := m.cfg.Shards()
	m.mu.Lock()
	tidy := m.tidied.IsZero() || time.Since(m.tidied) >= m.cfg.Settle
	if tidy {
		m.tidied = time.Now()
	}
	m.mu.Unlock()
	looks := make([]look, len(shards))
	var wg sync.WaitGroup
	for i, shard := range shards {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, lookTime)
			defer cancel()
			looks[i] = m.lookAt(ctx, shard, tidy)
		})
	}
	wg.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.looks = make(map[string]look, len(shards))
	left = len(shards) == 0 // they may not be known yet
	for i, shard := range shards {
		m.looks[shard] = looks[i]
		left = left || len(looks[i].left) > 0 || looks[i].err != ""
	}
	return left
}

func (m *Manager) lookAt(ctx context.Context, shard string, tidy bool) look {
	l := look{max: -1}
	m.mu.Lock()
	before := m.looks[shard].seen
	m.mu.Unlock()
	l.seen = before
	ours := m.ours() // before the list is made: what is in it and ends meanwhile was never left
	found, err := m.prepared(ctx, shard)
	if err != nil {
		l.err = err.Error()
		return l
	}
	l.max = found.Max
	l.seen = make(map[string]time.Time, len(found.Prepared))
	for _, p := range found.Prepared {
		gid, ok := ParseGID(p.GID)
		if !ok || ours[p.GID] || m.isOurs(p.GID) {
			continue
		}
		since, known := before[p.GID]
		if !known {
			since = time.Now()
		}
		p.Age = max(p.Age, time.Since(since)) // the server's clock may have been set back
		x := leftover{Prepared: p, gid: gid, state: Preparing}
		if m.mayEnd(gid, p.Age) {
			commit, err := m.fate(ctx, place{gid.Decision, p.Database}, p.GID, p.Owner)
			if x.state = InDoubt; err == nil {
				if x.state = Refused; commit {
					x.state = Decided
				}
				var ended bool
				if ended, err = m.endAt(ctx, place{shard, p.Database}, p.GID, commit); err == nil {
					if ended { // else somebody has come first
						m.counts.ended.Add(1)
						m.cfg.Logger.Warn("a part of a transaction over several shards was left prepared, and is ended now", "shard", shard, "gid", p.GID, "committed", commit, "age", p.Age)
					}
					continue
				}
			}
			x.problem = err.Error()
		}
		l.left = append(l.left, x)
		l.seen[p.GID] = since
	}
	if tidy {
		for _, database := range m.cfg.Uses() {
			if err := m.tidy(ctx, place{shard, database}); err != nil && l.err == "" && sqlState(err) != pg.CodeInvalidCatalogName {
				l.err = err.Error() // but a database need not be on all shards
			}
		}
	}
	return l
}

func (m *Manager) prepared(ctx context.Context, shard string) (found Found, err error) {
	err = m.at(ctx, place{shard: shard}, func(s Site) error {
		found, err = s.Prepared(ctx, prefix+clusterPart(m.cfg.Cluster)+":")
		return err
	})
	return found, err
}

// endAt ends what is prepared at a place. It reports whether anything was.
func (m *Manager) endAt(ctx context.Context, at place, gid string, commit bool) (ended bool, err error) {
	err = m.at(ctx, at, func(s Site) error {
		ended, err = s.Finish(ctx, gid, commit)
		return err
	})
	return ended, err
}

// ours are the names of this process's transactions.
func (m *Manager) ours() map[string]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := make(map[string]bool, len(m.active))
	for name := range m.active {
		names[name] = true
	}
	return names
}

// isOurs tells whether a transaction is this process's, which ends it itself.
func (m *Manager) isOurs(gid string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.active[gid] != nil
}

// mayEnd tells whether somebody else's has been left alone for long enough. To end one that is not left yet does no harm but to whoever
// is at it: he is told to begin again.
func (m *Manager) mayEnd(gid GID, age time.Duration) bool {
	switch {
	case gid.Node == m.cfg.Node && gid.Boot == m.boot:
		return true // and not known any more: PREPARE came to its server when it had been given up
	case gid.Node == m.cfg.Node && m.cfg.Alone():
		return true
	case gid.Node != m.cfg.Node && m.cfg.Alive(gid.Node):
		return age >= m.cfg.Busy
	}
	return age >= m.cfg.Grace
}

// tidy removes decisions of those who could not do it themselves.
func (m *Manager) tidy(ctx context.Context, at place) error {
	return m.at(ctx, at, func(s Site) error {
		old, err := s.Decisions(ctx, m.cfg.Settle, maxForget)
		if err != nil {
			return err
		}
		if gids := m.workDone(ctx, m.listedAgain(at, old), at.shard); len(gids) > 0 {
			if err := s.Forget(ctx, gids); err != nil {
				return err
			}
		}
		return s.ForgetRefusals(ctx, m.cfg.Keep)
	})
}

// listedAgain are those of a place's old decisions that were listed by the tidy before too. They are old whatever the server's clock says, which may have been set.
func (m *Manager) listedAgain(at place, list []Decision) (again []Decision) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.listed[at]
	delete(m.listed, at)
	for _, d := range list {
		if before[d.GID] {
			again = append(again, d)
		}
		if m.listed[at] == nil {
			m.listed[at] = make(map[string]bool, len(list))
		}
		m.listed[at][d.GID] = true
	}
	return again
}

// workDone are those of a shard's decisions that have nothing prepared left on the other shards.
func (m *Manager) workDone(ctx context.Context, list []Decision, decider string) (gids []string) {
	open := map[string]map[string]bool{} // by shard: what is prepared there; nil: not known
	for _, d := range list {
		spent := !m.isOurs(d.GID)
		for _, shard := range d.Participants {
			if shard == decider || !spent {
				continue
			}
			there, asked := open[shard]
			if !asked {
				if found, err := m.prepared(ctx, shard); err == nil {
					there = map[string]bool{}
					for _, p := range found.Prepared {
						there[p.GID] = true
					}
				}
				open[shard] = there
			}
			spent = there != nil && !there[d.GID]
		}
		if spent {
			gids = append(gids, d.GID)
		}
	}
	return gids
}

// others lists what the last look has found. mu is held.
func (m *Manager) others() (list []Transaction) {
	byGID := map[string]int{}
	for _, shard := range slices.Sorted(maps.Keys(m.looks)) {
		for _, x := range m.looks[shard].left {
			if m.active[x.GID] != nil {
				continue
			}
			i, seen := byGID[x.GID]
			if !seen {
				i = len(list)
				byGID[x.GID] = i
				list = append(list, Transaction{GID: x.GID, Node: x.gid.Node, Database: x.Database, Shards: []string{x.gid.Decision}, Decision: x.gid.Decision, Elsewhere: true})
			}
			t := &list[i]
			t.Shards, t.Open, t.State = append(t.Shards, shard), append(t.Open, shard), x.state
			t.Age = max(t.Age, x.Age)
			if t.Problem == "" {
				t.Problem = x.problem
			}
		}
	}
	return list
}

// cannotPrepare notes that a shard has refused to prepare.
func (m *Manager) cannotPrepare(shard string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.looks[shard]
	l.max = 0
	m.looks[shard] = l
}

// Unable lists the shards that cannot prepare transactions, as last seen.
func (m *Manager) Unable() (shards []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for shard, l := range m.looks {
		if l.max == 0 {
			shards = append(shards, shard)
		}
	}
	slices.Sort(shards)
	return shards
}

// Check asks shards whether they can prepare transactions and keep the decisions of a database, and says what is wrong; nil: nothing.
func (m *Manager) Check(ctx context.Context, database string, shards []string) (problems []*pg.Error) {
	found := make([]*pg.Error, len(shards))
	errs := each(shards, func(shard string) error {
		f, err := m.prepared(ctx, shard)
		if err != nil {
			return err
		}
		if f.Max == 0 {
			m.cannotPrepare(shard)
			return disabled(shard)
		}
		return m.ensure(ctx, place{shard, database})
	})
	for i, err := range errs {
		var pe *pg.Error
		switch {
		case errors.As(err, &pe):
			found[i] = pe
		case err != nil:
			found[i] = pg.NewError(pg.CodeCannotEstablishConnection, err.Error())
		}
	}
	return slices.DeleteFunc(found, func(e *pg.Error) bool { return e == nil })
}

// alarmAfter is how long something may be left before a person should look at it.
const alarmAfter = 30 * time.Second

// Alarms say what a person should look at now.
func (m *Manager) Alarms() (list []string) {
	if m.cfg.Wanted() {
		for _, shard := range m.Unable() {
			list = append(list, disabled(shard).Message+". "+disabled(shard).Hint)
		}
		m.mu.Lock()
		for _, shard := range slices.Sorted(maps.Keys(m.looks)) {
			if err := m.looks[shard].err; err != "" {
				list = append(list, "what transactions over several shards have left on shard "+shard+" cannot be seen: "+err)
			}
		}
		m.mu.Unlock()
	}
	for _, t := range m.Transactions() {
		if t.Age < alarmAfter || t.Problem == "" {
			continue
		}
		list = append(list, fmt.Sprintf("transaction %s is left prepared on %s since %s, with its locks (%s): %s",
			t.GID, strings.Join(t.Open, ", "), t.Age.Round(time.Second), t.State, t.Problem))
	}
	return list
}
