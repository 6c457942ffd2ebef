package sqlkey

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// Usage is what was counted of the statements of one normal form.
type Usage struct {
	Database string
	Form     string // the text, constants replaced by ? or by $n, white space made one; long ones are cut
	Calls    uint64 // those that a server has carried out
	Errors   uint64 // those that a server has refused
	Shards   uint64 // that Calls have touched, one by one
	Rows     uint64 // as the command tags say
	Total    time.Duration
	Max      time.Duration
}

// The bounds on what is counted.
const (
	maxUsages  = 4096 // normal forms
	maxShown   = 1000 // bytes of one that are kept
	usageParts = 8    // a power of two
)

// usage counts one normal form. Plans point at it, so counting looks nothing up; it is in parts, so that sessions on several
// processors seldom write to one place.
type usage struct {
	// constant
	key      usageKey
	database string
	form     string
	all      *usages

	// atomic
	last  atomic.Int64 // when it was counted last, in seconds of the caller's clock
	gone  atomic.Bool  // others have pushed it out of the list
	parts [usageParts]usagePart
}

// usagePart is what some of the sessions have counted. It is atomic.
type usagePart struct {
	calls, errors, shards, rows, nanos, longest atomic.Uint64
	_                                           [16]byte
}

// usageKey is a database and a normal form, as a hash: that two share it is not to be expected.
type usageKey [2]uint64

// usages are the normal forms that were used lately, and the sums of all.
type usages struct {
	// constant
	seeds [2]maphash.Seed

	// guarded by mu
	mu   sync.Mutex
	list map[usageKey]*usage
	past Usage // of what is no longer in list
}

func newUsages() *usages {
	return &usages{seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, list: make(map[usageKey]*usage)}
}

// of is the usage of a normal form, given in whatever words are the same for all of its texts; shown makes the words for people.
func (a *usages) of(database, form string, shown func() string) *usage {
	var k usageKey
	for i := range k {
		var h maphash.Hash
		h.SetSeed(a.seeds[i])
		h.WriteString(database)
		h.WriteByte(0)
		h.WriteString(form)
		k[i] = h.Sum64()
	}
	a.mu.Lock()
	u := a.list[k]
	a.mu.Unlock()
	if u != nil {
		return u
	}
	u = &usage{key: k, database: strings.Clone(database), form: brief(shown()), all: a}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.admit(u)
}

// admit puts u into the list. What is there under its key wins. mu must be held.
func (a *usages) admit(u *usage) *usage {
	if there := a.list[u.key]; there != nil {
		return there
	}
	if len(a.list) >= maxUsages {
		a.evict()
	}
	u.gone.Store(false)
	a.list[u.key] = u
	return u
}

// evict drops one of those that were not used for long: the oldest of some. mu must be held.
func (a *usages) evict() {
	var oldest *usage
	looked := 0
	for _, u := range a.list {
		if oldest == nil || u.last.Load() < oldest.last.Load() {
			oldest = u
		}
		if looked++; looked == 16 {
			break
		}
	}
	oldest.gone.Store(true)
	delete(a.list, oldest.key)
	a.past.add(oldest.take())
}

// Used counts a statement of the plan that a server has carried out, or refused. session is any number of the session's; now is a clock
// of the caller's own. It takes no lock and allocates nothing.
func (p *Plan) Used(session uint64, now, took time.Duration, shards int, rows uint64, failed bool) {
	u := p.usage
	if u == nil {
		return
	}
	part := &u.parts[session&(usageParts-1)]
	if failed {
		part.errors.Add(1)
	} else {
		part.calls.Add(1)
		part.shards.Add(uint64(shards))
		if rows > 0 {
			part.rows.Add(rows)
		}
		part.nanos.Add(uint64(took))
		for longest := part.longest.Load(); uint64(took) > longest; longest = part.longest.Load() {
			if part.longest.CompareAndSwap(longest, uint64(took)) {
				break
			}
		}
	}
	if second := int64(now / time.Second); u.last.Load() != second {
		u.last.Store(second)
	}
	if u.gone.Load() && u.all.mu.TryLock() { // it is used again
		if there := u.all.admit(u); there != u { // under another plan
			there.merge(u.take())
		}
		u.all.mu.Unlock()
	}
}

// now is what is counted.
func (u *usage) now() Usage {
	sum := Usage{Database: u.database, Form: u.form}
	for i := range u.parts {
		p := &u.parts[i]
		sum.add(Usage{
			Calls: p.calls.Load(), Errors: p.errors.Load(), Shards: p.shards.Load(), Rows: p.rows.Load(),
			Total: time.Duration(p.nanos.Load()), Max: time.Duration(p.longest.Load()),
		})
	}
	return sum
}

// take is now, and counts from zero on.
func (u *usage) take() Usage {
	sum := Usage{Database: u.database, Form: u.form}
	for i := range u.parts {
		p := &u.parts[i]
		sum.add(Usage{
			Calls: p.calls.Swap(0), Errors: p.errors.Swap(0), Shards: p.shards.Swap(0), Rows: p.rows.Swap(0),
			Total: time.Duration(p.nanos.Swap(0)), Max: time.Duration(p.longest.Swap(0)),
		})
	}
	return sum
}

// merge adds what was counted elsewhere.
func (u *usage) merge(n Usage) {
	p := &u.parts[0]
	p.calls.Add(n.Calls)
	p.errors.Add(n.Errors)
	p.shards.Add(n.Shards)
	p.rows.Add(n.Rows)
	p.nanos.Add(uint64(n.Total))
	p.longest.Store(max(p.longest.Load(), uint64(n.Max)))
}

func (u *Usage) add(o Usage) {
	u.Calls += o.Calls
	u.Errors += o.Errors
	u.Shards += o.Shards
	u.Rows += o.Rows
	u.Total += o.Total
	u.Max = max(u.Max, o.Max)
}

// Usages are the statements that were used since the last reset, by normal form and in no order: some thousand of them, the last used.
func (p *Planner) Usages() []Usage {
	a := p.usages
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make([]Usage, 0, len(a.list))
	for _, u := range a.list {
		if n := u.now(); n.Calls+n.Errors > 0 {
			list = append(list, n)
		}
	}
	return list
}

// Usage is the sum over all statements since the planner was made, whatever was reset.
func (p *Planner) Usage() Usage {
	a := p.usages
	a.mu.Lock()
	defer a.mu.Unlock()
	sum := a.past
	for _, u := range a.list {
		sum.add(u.now())
	}
	return sum
}

// ResetUsages has statements counted from zero on.
func (p *Planner) ResetUsages() {
	a := p.usages
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, u := range a.list {
		a.past.add(u.take())
	}
}

// count has a plan's use counted under its normal form. n is it, if it is known.
func (p *Planner) count(plan *Plan, env *Env, sql string, n *normal) {
	switch {
	case plan.Statements == 0:
	case plan.Syntax:
		const form = "(a text that PostgreSQL's parser does not take)"
		plan.usage = p.usages.of(env.Database, form, func() string { return form })
	case n != nil:
		plan.usage = p.usages.of(env.Database, string(n.text), func() string { return n.shown() })
	default:
		own := p.normals.Get().(*normal)
		defer p.normals.Put(own)
		if own.of(sql, env) {
			p.count(plan, env, sql, own)
			return
		}
		form := p.normalized(sql)
		plan.usage = p.usages.of(env.Database, form, func() string { return form })
	}
}

// Form is the normal form of a text, for people: without its constants.
func (p *Planner) Form(sql string) string { return p.normalized(sql) }

// normalized is the normal form of a text of which our own lexer makes none: that of PostgreSQL's parser.
func (p *Planner) normalized(sql string) string {
	if len(sql) <= maxNormalText && !tooDeep(sql) {
		p.slots <- struct{}{}
		defer func() { <-p.slots }()
		if form, err := pgquery.Normalize(sql); err == nil {
			return form
		}
	}
	return "(a long text)"
}

// shown is the normal form for people: a question mark for each constant.
func (n *normal) shown() string {
	b := make([]byte, 0, min(len(n.text), 2*maxShown))
	for i := 0; i < len(n.text) && len(b) <= 2*maxShown; i++ {
		if n.text[i] == 0 {
			b = append(b, '?')
			i++ // the class
			continue
		}
		b = append(b, n.text[i])
	}
	return string(b)
}

// brief makes white space one, and a long text short.
func brief(form string) string {
	form = strings.Join(strings.Fields(form), " ")
	if len(form) <= maxShown {
		return form
	}
	n := maxShown
	for n > 0 && !utf8.RuneStart(form[n]) {
		n--
	}
	return form[:n] + "…"
}
