package sqlkey

import (
	"sync"
	"weak"
)

// lent are plans that are too large for the cache. They are found for as long as somebody has them: a statement over several shards is planned by its
// session and by its coordinator, and what takes a megabyte of text to say takes a second to parse.
type lent struct {
	// guarded by mu
	mu   sync.Mutex
	last [16]lentPlan
	next int
}

type lentPlan struct {
	hash    uint64 // of Plan.SQL
	env     Env
	catalog [32]byte
	plan    weak.Pointer[Plan]
}

func (l *lent) get(hash uint64, catalog *[32]byte, env *Env, sql string) *Plan {
	if len(sql) < large/16 { // no such plan has so short a text
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.last {
		e := &l.last[i]
		if e.hash != hash || e.env != *env || e.catalog != *catalog {
			continue
		}
		if plan := e.plan.Value(); plan != nil && plan.SQL == sql {
			return plan
		}
	}
	return nil
}

func (l *lent) put(hash uint64, catalog *[32]byte, env *Env, plan *Plan) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last[l.next] = lentPlan{hash, *env, *catalog, weak.Make(plan)}
	l.next = (l.next + 1) % len(l.last)
}
