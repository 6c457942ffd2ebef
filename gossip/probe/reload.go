package probe

import "fmt"

// Reload puts other settings in force. A backend that is new is announced and probed, one that is gone is withdrawn; one that
// is another server now (its address, shard or region differ) stays what it was until the first probe of the new one. If an
// address cannot be one, nothing changes.
func (p *Prober) Reload(s Settings) error {
	next := s.withDefaults()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.open || p.closed {
		return fmt.Errorf("probe: Reload: the prober is not open")
	}
	wanted := make(map[string]Target, len(next.Backends))
	for _, t := range next.Backends {
		if _, err := p.connConfig(t, next); err != nil {
			return err
		}
		wanted[t.Name] = t
	}
	old := p.settings.Swap(next)
	anew := old.User != next.User || old.Password != next.Password || old.Database != next.Database
	var ended []*worker
	for name, w := range p.near {
		switch t, ok := wanted[name]; {
		case !ok || !t.same(w.target):
			w.stop()
			ended = append(ended, w)
		case anew:
			w.renew()
		default:
			w.hurry() // it may have gone to rest for longer than the new interval
		}
	}
	if anew {
		for _, w := range p.far {
			w.renew()
		}
	}
	for _, w := range ended {
		p.mu.Unlock() // its connection ends under it
		<-w.done      // else it could have the last word
		p.mu.Lock()
		delete(p.near, w.target.Name)
		if _, ok := wanted[w.target.Name]; !ok {
			if w.evidence && p.cfg.Recovered != nil {
				p.cfg.Recovered(w.target.Name) // nobody would take it back later
			}
			p.cfg.Sink.Withdraw(w.target.Name)
			p.log.Info("backend is not looked at any more", "backend", w.target.Name)
		}
	}
	if p.closed {
		return nil
	}
	for _, t := range next.Backends {
		if p.near[t.Name] != nil {
			continue
		}
		w, err := p.newWorker(t, true)
		if err != nil {
			return err // cannot be: it was checked above
		}
		for _, e := range ended {
			if e.target.Name == t.Name {
				w.untold, w.evidence = true, e.evidence
			}
		}
		if far := p.far[t.Name]; far != nil { // it is listed from now on
			far.stop()
			delete(p.far, t.Name)
		}
		p.near[t.Name] = w
		if !w.untold {
			p.cfg.Sink.Announce(w.backend())
		}
		p.wg.Go(w.run)
	}
	return nil
}

// same tells whether two targets are one server, whatever is known of it.
func (t Target) same(o Target) bool {
	o.SystemID = t.SystemID
	return t == o
}

// Renew makes every worker connect anew: what TLS says has changed.
func (p *Prober) Renew() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.near {
		w.renew()
	}
	for _, w := range p.far {
		w.renew()
	}
}
