package pool

// Rest says which backends are to get as few connections as can be: their idle ones are closed, those that are lent out when they come
// back, and none is made in advance. Who asks for one all the same gets it. The set replaces the last one, and must not be changed
// afterwards. It returns how many are closed now.
func (p *Pools) Rest(backends map[string]bool) (closed int) {
	p.mu.Lock()
	p.resting = backends
	p.mu.Unlock()
	for _, bp := range p.all() {
		if rests := backends[bp.name]; bp.resting.Swap(rests) != rests && rests {
			closed += bp.renew(func(Identity) bool { return true })
		}
	}
	return closed
}
