package rib

import (
	"maps"
	"sync"
)

// Trial is what this node makes of how a backend answers its own statements. Nobody is told.
type Trial struct {
	Ejected string // why it gets no reads for a while; "": it does
	// Held is the percentage of its turns that it leaves to backends as close as it while it warms up; 0: none.
	Held uint8
}

// Local is the table's part that is this node's own: what its operator wants, and what it makes of its own experience.
type Local struct {
	// constant
	touch func()

	// guarded by mu
	mu     sync.Mutex
	policy *Policy          // never nil
	trials map[string]Trial // by backend; never changed, but replaced
}

// SetPolicy puts another policy in force; nil is one of zeros.
func (l *Local) SetPolicy(p *Policy) {
	if p == nil {
		p = new(Policy)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.policy = p
	l.touch()
}

// Policy is the one in force; never nil.
func (l *Local) Policy() *Policy {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.policy
}

// Try puts the trials of all backends in force; who is not in it is on no trial. The map must not be changed afterwards.
func (l *Local) Try(trials map[string]Trial) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if maps.Equal(l.trials, trials) {
		return
	}
	l.trials = trials
	l.touch()
}

// fill puts this part into a snapshot that holds the backends already.
func (l *Local) fill(s *Snapshot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.Policy = l.policy
	for i := range s.Backends {
		s.Backends[i].Trial = l.trials[s.Backends[i].Backend.Name]
	}
}
