package auth

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rangefinder/wire/pg"
)

// Bounds of what strangers can make a node do by naming users.
const (
	maxUsers     = 10_000 // names that are remembered, of those known and of those unknown
	maxQuestions = 4      // that backends are asked at a time
	maxName      = 63     // bytes of a name: PostgreSQL has no longer ones

	// questionRate bounds what is asked about names that were never found, and after logins that failed, for each second, after a first
	// newQuestions. A node that starts hears a thousand names it does not know yet; more than that is a flood.
	questionRate = 100
	newQuestions = 1000

	// doubtAfter is the age of an answer from which on a login that fails makes it be asked for again.
	doubtAfter = time.Second

	// mimicFor is how long it is taken for granted what most users are like.
	mimicFor = 10 * time.Second
)

// Ask asks a backend what is kept of a user's password. found is false if there is no such user, or no password.
type Ask func(ctx context.Context, q *Query, database, user string) (stored string, found bool, err error)

// scope is whom an answer is about, and where he was looked up.
type scope struct{ user, database string }

// found is an answer. Guard.mu guards it.
type found struct {
	shadow  pg.Shadow // zero: no such user
	at      time.Time
	doubted bool
	shown   pg.Credential // what his logins have shown; zero: he has not logged in here, or with another password since
}

// question is one that is being asked. Its answer is there once done is closed.
type question struct {
	done   chan struct{}
	shadow pg.Shadow
	err    error
}

var (
	errFlood = errors.New("unknown user: too many names are asked for to look this one up")
	errName  = fmt.Errorf("%w: the name is longer than any can be", pg.ErrUnknownUser)
)

// find is what a backend keeps of a user's password. Whether the name is known or not makes no difference to how it is done: so it
// makes none to what a stranger can see or measure, from the second try on at the latest.
func (g *Guard) find(ctx context.Context, q *Query, p *pg.Peer) (pg.Shadow, error) {
	if len(p.User) > maxName {
		return pg.Shadow{}, errName
	}
	at := scope{p.User, q.database(p.Database)}
	g.mu.Lock()
	f, known := g.known.get(at)
	if !known {
		f, _ = g.unknown.get(at)
	}
	granted := false
	if f != nil {
		if age := g.now().Sub(f.at); age < q.Lifetime {
			// Under a flood it stays as it is: also who knows names that are right must not make us ask about them all.
			granted = f.doubted && age >= doubtAfter && g.bucket.take(g.now(), 0) == 0
			if !granted {
				g.mu.Unlock()
				return f.answer()
			}
		}
	}
	if other, ok := g.asked[at]; ok { // by somebody who wants to log in as the same user
		g.mu.Unlock()
		select {
		case <-other.done:
			return other.shadow, other.err
		case <-ctx.Done():
			return pg.Shadow{}, cannotAsk(ctx.Err())
		}
	}
	mine := &question{done: make(chan struct{}), err: errors.New("the question was broken off")}
	g.asked[at] = mine
	wait := time.Duration(0)
	if !known && !granted {
		wait = g.bucket.take(g.now(), q.Timeout)
	}
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		delete(g.asked, at)
		g.mu.Unlock()
		close(mine.done)
	}()
	if wait < 0 {
		mine.err = errFlood
		return mine.shadow, mine.err
	}
	// Whoever waits for the answer too may have more time than we.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), q.Timeout)
	defer cancel()
	mine.shadow, mine.err = g.question(ctx, q, at, wait)
	return mine.shadow, mine.err
}

// question asks, after a wait, and keeps the answer.
func (g *Guard) question(ctx context.Context, q *Query, at scope, wait time.Duration) (pg.Shadow, error) {
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return pg.Shadow{}, cannotAsk(ctx.Err())
		}
	}
	select {
	case g.turns <- struct{}{}:
		defer func() { <-g.turns }()
	case <-ctx.Done():
		return pg.Shadow{}, cannotAsk(errors.New("every question before it takes its time"))
	}
	text, ok, err := g.ask(ctx, q, at.database, at.user)
	if err != nil {
		return pg.Shadow{}, cannotAsk(err)
	}
	f := &found{at: g.now()}
	cause := pg.ErrUnknownUser
	if ok {
		if f.shadow, err = pg.ParseShadow(text); err != nil { // told to nobody: it is about this user alone
			ok, cause = false, fmt.Errorf("%w: what is kept of the password is %w", pg.ErrUnknownUser, err)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if now := g.policy.Load().Query; now == nil {
		return f.answer()
	} else if now != q { // reloaded meanwhile: the login goes on with the answer, and needs where to keep what it shows; the next one asks anew
		f.at = time.Time{}
	}
	if !ok {
		g.known.remove(at)
		g.unknown.put(at, f)
		return pg.Shadow{}, cause
	}
	if old, known := g.known.get(at); known && f.shadow.Admits(old.shown) {
		f.shown = old.shown
	}
	g.unknown.remove(at)
	g.known.put(at, f)
	return f.answer()
}

func (f *found) answer() (pg.Shadow, error) {
	if !f.shadow.Set() {
		return pg.Shadow{}, pg.ErrUnknownUser
	}
	return f.shadow, nil
}

// cannotAsk is what everybody is told who would have to be looked up, known or not.
func cannotAsk(cause error) error {
	e := pg.NewError(pg.CodeCannotConnectNow, "users cannot be looked up now").
		WithHint("The node's log says why. Users listed under [[users]] in its configuration can log in.")
	return fmt.Errorf("%w: %w", e, cause)
}

// doubt has a user looked up again.
func (g *Guard) doubt(at scope) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, cache := range []*lru[*found]{&g.known, &g.unknown} {
		if f, ok := cache.get(at); ok {
			f.doubted = true
		}
	}
}

// like is what an exchange with somebody unknown is to look like: as with most of those that were looked up. It is counted anew now and
// then.
func (g *Guard) like(p *inForce) pg.Shadow {
	if p.Query == nil {
		return p.mimic
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if now := g.now(); now.Sub(g.mimicAt) > mimicFor {
		g.mimicAt = now
		var all []pg.Shadow
		g.known.all(func(_ scope, f *found) { all = append(all, f.shadow) })
		g.mimic = most(all)
	}
	if g.mimic.Set() {
		return g.mimic
	}
	return p.mimic
}

// bucket rations questions that strangers can cause.
type bucket struct {
	left float64 // may be below zero: what is waited for
	at   time.Time
}

// take returns how long to wait for leave to ask; below zero: longer than most.
func (b *bucket) take(now time.Time, most time.Duration) time.Duration {
	if b.at.IsZero() {
		b.left = newQuestions
	} else {
		b.left = min(newQuestions, b.left+now.Sub(b.at).Seconds()*questionRate)
	}
	b.at = now
	wait := max(0, time.Duration((1-b.left)/questionRate*float64(time.Second)))
	if wait > most/2 { // the other half is for the question
		return -1
	}
	b.left--
	return wait
}
