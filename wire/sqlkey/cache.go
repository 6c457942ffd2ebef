package sqlkey

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"unsafe"

	"rangefinder/rib"
)

// cache holds plans by text, or by normal form, and environment, bounded by bytes. Readers take no lock and write nothing but a plan's own
// mark, and that only when it is not set: a hit scales with the processors. It is a table of buckets; a full bucket, or a
// full stripe of the byte budget, gives up entries that were not used since the clock came by.
type cache struct {
	// constant
	seed    maphash.Seed
	buckets []bucket
	mask    uint64
	stripes [stripeCount]stripe
	budget  int64 // bytes, a stripe
}

const (
	ways        = 8
	maxChances  = 2
	stripeCount = 16 // a power of two
	// bytesPerSlot chooses the number of slots. It is about half of what a plan takes, so that few buckets are ever full: a
	// full one gives up a plan for want of a slot, however useful.
	bytesPerSlot = 512
)

type bucket [ways]atomic.Pointer[entry]

// stripe is the part of the cache that one writer at a time changes: the buckets whose number ends in its own.
type stripe struct {
	// guarded by mu
	mu    sync.Mutex
	bytes int64
	hand  uint64 // the slot that the clock looks at next, counted through the stripe's buckets
	_     [32]byte
}

// entry is one plan and all that it stands on.
type entry struct {
	// constant
	hash    uint64
	sql     string // or, if normal, what texts have in common that share the plan
	normal  bool
	env     Env
	catalog [32]byte
	plan    *Plan
	size    int64

	// chances is how often the clock still passes over it. With two, one that is used at least once a round always has one
	// left, and a full bucket can tell it from those that are not used.
	chances atomic.Int32
}

func newCache(maxBytes int64) *cache {
	n := uint64(stripeCount)
	for n*ways*bytesPerSlot < uint64(maxBytes) {
		n *= 2
	}
	return &cache{seed: maphash.MakeSeed(), buckets: make([]bucket, n), mask: n - 1, budget: max(maxBytes, 1) / stripeCount}
}

// hash is of the text, or the normal form, alone: one text is seldom planned in several environments.
func (c *cache) hash(sql string) uint64 { return maphash.String(c.seed, sql) }

func (c *cache) get(hash uint64, normal bool, catalog *[32]byte, env *Env, sql string) *Plan {
	b := &c.buckets[hash&c.mask]
	for i := range b {
		e := b[i].Load()
		if e == nil || e.hash != hash || e.normal != normal || e.sql != sql || e.env != *env || e.catalog != *catalog {
			continue
		}
		if e.chances.Load() != maxChances {
			e.chances.Store(maxChances)
		}
		return e.plan
	}
	return nil
}

// put adds a plan unless it alone would take an eighth of its stripe. The plan that is returned is the one in the cache, if it is kept: a
// racing caller's, if that came first.
func (c *cache) put(hash uint64, normal bool, catalog *[32]byte, env *Env, sql string, plan *Plan) (_ *Plan, kept bool) {
	e := &entry{hash: hash, sql: sql, normal: normal, env: *env, catalog: *catalog, plan: plan}
	e.size = e.bytes()
	if e.size > c.budget/8 {
		return plan, false
	}
	s := &c.stripes[hash&(stripeCount-1)]
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := c.get(hash, normal, catalog, env, sql); p != nil {
		return p, true
	}
	for turn := uint64(0); s.bytes+e.size > c.budget && turn < (maxChances+1)*ways*uint64(len(c.buckets))/stripeCount; turn++ {
		b := &c.buckets[(s.hand/ways*stripeCount+hash&(stripeCount-1))&c.mask]
		c.sweep(s, &b[s.hand%ways])
		s.hand++
	}
	if s.bytes+e.size > c.budget {
		return plan, false
	}
	c.slot(s, &c.buckets[hash&c.mask]).Store(e)
	s.bytes += e.size
	return plan, true
}

// slot finds room in a bucket: an empty slot, else one that was not used lately, else any. Marks stay, as this is not the
// clock: a full bucket alone makes no entry old.
func (c *cache) slot(s *stripe, b *bucket) *atomic.Pointer[entry] {
	for i := range b {
		if b[i].Load() == nil {
			return &b[i]
		}
	}
	victim := &b[s.hand%ways]
	for i := range b {
		if b[i].Load().chances.Load() == 0 {
			victim = &b[i]
			break
		}
	}
	s.bytes -= victim.Load().size
	victim.Store(nil)
	return victim
}

// sweep drops an entry that was not used for two rounds of the clock.
func (c *cache) sweep(s *stripe, slot *atomic.Pointer[entry]) {
	e := slot.Load()
	if e == nil {
		return
	}
	if left := e.chances.Load(); left > 0 { // a hit that comes between counts as not yet there
		e.chances.Store(left - 1)
		return
	}
	slot.Store(nil)
	s.bytes -= e.size
}

// bytes reckons what an entry takes.
func (e *entry) bytes() int64 {
	p := e.plan
	n := int(unsafe.Sizeof(*e)) + int(unsafe.Sizeof(*p)) + len(e.sql)
	n += len(e.env.Database) + len(e.env.SearchPath) + len(e.env.User) + len(e.env.Encoding) + len(e.env.HintShard) + len(p.HintShard)
	n += len(p.WhyWrite) + len(p.WhyPin) + len(p.Made) + len(p.Savepoint) + len(p.Setting) + len(p.Value) + len(p.Reason) + len(p.Channel) + len(p.Payload)
	for i := range p.Keys {
		n += p.Keys[i].bytes()
	}
	n += len(p.bound) * int(unsafe.Sizeof(bound{}))
	for _, t := range p.Unmade {
		n += int(unsafe.Sizeof(t)) + len(t)
	}
	for _, t := range p.Tables {
		n += int(unsafe.Sizeof(t)) + len(t)
	}
	for i := range p.Names {
		u := &p.Names[i]
		n += int(unsafe.Sizeof(*u)) + len(u.Name) + len(u.Tail) + 4*len(u.Types)
		for j := range u.Args {
			n += int(unsafe.Sizeof(u.Args[j])) + len(u.Args[j].Text)
		}
	}
	if x := p.Cursor; x != nil {
		n += int(unsafe.Sizeof(*x)) + len(x.Name) + len(x.SQL)
	}
	if x := p.Explains; x != nil {
		n += int(unsafe.Sizeof(*x)) + len(x.Prefix) + len(x.SQL) + len(x.Format)
	}
	if p.Fan != nil {
		n += p.Fan.bytes()
	}
	for _, part := range p.Parts {
		n += int(unsafe.Sizeof(*part)) + len(part.WhyWrite) + len(part.WhyPin) + len(part.Setting) + len(part.Value) + len(part.Reason) + len(part.Channel)
	}
	if p.Explained != nil {
		n += int((&entry{plan: p.Explained}).bytes())
	}
	if p.Err != nil {
		n += int(unsafe.Sizeof(*p.Err)) + len(p.Err.Message) + len(p.Err.Detail) + len(p.Err.Hint)
	}
	return int64(n)
}

func (f *Fan) bytes() int {
	n := int(unsafe.Sizeof(*f)) + len(f.SQL) + len(f.Final) + len(f.Why) + len(f.Lead) + 8*len(f.Times) + len(f.Order)*int(unsafe.Sizeof(FanOrder{}))
	if e := f.Refusal; e != nil {
		n += int(unsafe.Sizeof(*e)) + len(e.Message) + len(e.Detail) + len(e.Hint)
	}
	n += len(f.Keyspaces) * int(unsafe.Sizeof(rib.KeyspaceID(0)))
	for _, list := range [][]string{f.Copies, f.Names} {
		for _, name := range list {
			n += int(unsafe.Sizeof(name)) + len(name)
		}
	}
	if c := f.Copy; c != nil {
		n += int(unsafe.Sizeof(*c)) + len(c.Null) + len(c.Encoding) + len(c.Check)
		if c.Default != nil {
			n += int(unsafe.Sizeof(*c.Default)) + len(*c.Default)
		}
		for _, list := range [][]string{c.Columns, c.Given, c.ForceNull, c.ForceNotNull} {
			for _, name := range list {
				n += int(unsafe.Sizeof(name)) + len(name)
			}
		}
	}
	keys := func(list []KeyRef) {
		for i := range list {
			n += list[i].bytes()
		}
	}
	for i := range f.Within {
		s := &f.Within[i]
		keys(s.Keys)
		keys(s.Lists)
		n += int(unsafe.Sizeof(*s)) + len(s.Text)
		for _, b := range s.Bounds {
			n += int(unsafe.Sizeof(b))
			for _, k := range []*KeyRef{b.From, b.To} {
				if k != nil {
					n += k.bytes()
				}
			}
		}
	}
	if u := f.Unnamed; u != nil {
		n += int(unsafe.Sizeof(*u)) + len(u.Schema) + len(u.Table)
	}
	n += len(f.Unasked)
	if f.Once != nil {
		n += f.Once.bytes()
	}
	if f.Rekey != nil {
		n += f.Rekey.bytes()
	}
	if f.Deal != nil {
		n += f.Deal.bytes()
	}
	if t := f.together; t != nil {
		n += int(unsafe.Sizeof(*t)) + len(t.Reason)
		keys(t.Keys)
	}
	if f.Split != nil {
		keys(f.Split.Rows)
		n += f.Split.bytes()
	}
	return n
}

func (k *KeyRef) bytes() int {
	n := int(unsafe.Sizeof(*k)) + len(k.Literal) + len(k.Text)
	if k.made != nil {
		n += k.made.bytes()
	}
	if k.origin != nil {
		n += int(unsafe.Sizeof(*k.origin)) + len(k.origin.steps)*int(unsafe.Sizeof(k.origin)+unsafe.Sizeof(keyType{}))
	}
	for i := range k.Parts {
		n += k.Parts[i].bytes()
	}
	return n
}

// stats tells how many plans there are and what they take.
func (c *cache) stats() (plans int, bytes int64) {
	for i := range c.stripes {
		s := &c.stripes[i]
		s.mu.Lock()
		bytes += s.bytes
		s.mu.Unlock()
	}
	for i := range c.buckets {
		for j := range c.buckets[i] {
			if c.buckets[i][j].Load() != nil {
				plans++
			}
		}
	}
	return plans, bytes
}
