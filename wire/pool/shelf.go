package pool

// Shelf holds the idle connections of one identity to one backend. A session that keeps the shelf of its last connection need not
// look for it again: two strings less to hash at every statement. It is empty for ever once its backend's pool is closed, or nobody
// of that identity has had a connection: ask Pools then.
type Shelf struct {
	home *backendPool // constant

	// guarded by home.mu
	idle []*Conn // last in, first out
	held int     // places taken: idle, lent out and being connected
}

// Ready lends the idle connection that was used last, with sure as Get does. It never waits, and returns nil if there is none, or if s
// is nil.
func (s *Shelf) Ready(sure bool) *Conn {
	if s == nil {
		return nil
	}
	for {
		s.home.mu.Lock()
		c := s.home.lend(s)
		s.home.mu.Unlock()
		if c == nil || c.usable(sure) {
			return c
		}
		c.Discard()
	}
}

// Shelf is where the connection comes from, and goes back to.
func (c *Conn) Shelf() *Shelf { return c.shelf }

// held is how many places an identity has taken. mu is held.
func (bp *backendPool) held(id Identity) int {
	if s := bp.shelves[id]; s != nil {
		return s.held
	}
	return 0
}
