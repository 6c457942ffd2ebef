package pool

// Tend does what Open does each second. In virtual time there is nobody who waits for the kernel's events.
func (p *Pools) Tend() { p.tend() }
