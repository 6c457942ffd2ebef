package pool

import (
	"sync"
	"time"
)

// Server is one server connection's state.
type Server struct {
	ID          uint64
	Identity    Identity
	Backend     string
	Shard       string
	Idle        bool
	CloseNeeded bool // it is closed when it comes back
	Addr        string
	Local       string
	Connected   time.Time
	PID         uint32
}

// Servers returns every server connection, in no order, and how many more are being made for whom.
func (p *Pools) Servers() (list []Server, logins map[Identity]int) {
	logins = make(map[Identity]int)
	for _, bp := range p.all() {
		bp.mu.Lock()
		idle := make(map[*Conn]bool, bp.idleN)
		for _, s := range bp.shelves {
			for _, c := range s.idle {
				idle[c] = true
			}
		}
		for c := range bp.conns {
			list = append(list, Server{
				ID: c.ID, Identity: c.Identity, Backend: bp.name, Shard: c.Backend.Shard, Idle: idle[c], CloseNeeded: c.worn,
				Addr: bp.addr, Local: c.Net.LocalAddr().String(), Connected: c.Connected, PID: c.PID,
			})
		}
		for id, n := range bp.logins {
			logins[id] += n
		}
		bp.mu.Unlock()
	}
	return list, logins
}

// Waited returns how long sessions have waited for server connections to a database, all in all.
func (p *Pools) Waited(database string) (total time.Duration) {
	for _, bp := range p.all() {
		bp.mu.Lock()
		total += bp.waited[database]
		bp.mu.Unlock()
	}
	return total
}

// Reconnect closes the idle connections to a database, and those that are lent out or being made when they come back. It
// returns how many are closed now.
func (p *Pools) Reconnect(database string) int {
	closed := 0
	for _, bp := range p.all() {
		closed += bp.renew(func(id Identity) bool { return id.Database == database })
	}
	return closed
}

func (bp *backendPool) renew(whose func(Identity) bool) (closed int) {
	var gone []*Conn
	bp.mu.Lock()
	bp.renewals++
	for id, s := range bp.shelves {
		if whose(id) {
			gone = append(gone, s.idle...)
			s.idle = nil
		}
	}
	bp.idleN -= len(gone)
	for c := range bp.conns {
		c.worn = c.worn || whose(c.Identity)
	}
	bp.mu.Unlock()
	farewell(gone)
	return len(gone)
}

// began counts a connection that is being made. It returns what ended takes.
func (bp *backendPool) began(id Identity) (renewals uint64) {
	bp.mu.Lock()
	defer bp.mu.Unlock()
	bp.logins[id]++
	return bp.renewals
}

// ended notes what became of it: c, or an error. Whatever was to be renewed since it began may be this one too. It reports whether
// who wanted it is to wait for another.
func (bp *backendPool) ended(id Identity, c *Conn, renewals uint64, ce *ConnectError, gaveUp bool) (queues bool) {
	bp.mu.Lock()
	defer bp.mu.Unlock()
	if bp.logins[id]--; bp.logins[id] == 0 {
		delete(bp.logins, id)
	}
	bp.connecting--
	if c != nil {
		bp.conns[c] = struct{}{}
		c.shelf = bp.shelves[id]
		c.worn = renewals != bp.renewals
		bp.down = nil
		delete(bp.full, id)
	} else {
		bp.leave(id)
		queues = bp.connectFailed(id, ce, gaveUp)
	}
	bp.fill()
	return queues
}

// byesAtOnce is how many connections are closed at a time. One whose backend is silent takes goodbye.
const byesAtOnce = 32

// farewell closes connections that are in order.
func farewell(gone []*Conn) {
	var wg sync.WaitGroup
	room := make(chan struct{}, byesAtOnce)
	for _, c := range gone {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			c.Bye()
		})
	}
	wg.Wait()
}
