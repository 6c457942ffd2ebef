package pool

// standbyPart says how many of a backend's places may be taken, as one in so many, for a standby to be made there.
const standbyPart = 4

// place is an identity at a backend.
type place struct {
	pool *backendPool
	id   Identity
}

// tending is what pools are looked after by, once a second.
type tending struct {
	present func(Identity) bool // it has sessions
	standby map[place]bool      // where statements of those sessions would go next
}

// tend closes what is of no use any more and makes what should be there.
func (p *Pools) tend() {
	t := &tending{present: p.isPresent, standby: make(map[place]bool)}
	all := p.all()
	for _, bp := range all {
		for _, id := range bp.present(t.present) {
			if next := p.cfg.Next; next != nil && bp.limits.Load().Standby > 0 {
				if b := next(bp.backend, id); b != nil {
					if there, err := p.of(b); err == nil {
						t.standby[place{there, id}] = true
					}
				}
			}
		}
	}
	for _, bp := range all {
		bp.reap(t)
		bp.warm(t)
	}
}

// present lists who has had connections here and has sessions; it forgets the others.
func (bp *backendPool) present(has func(Identity) bool) (list []Identity) {
	bp.mu.Lock()
	defer bp.mu.Unlock()
	for id := range bp.known {
		if !has(id) {
			delete(bp.known, id)
			continue
		}
		list = append(list, id)
	}
	return list
}
