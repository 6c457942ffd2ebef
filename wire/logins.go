package wire

import (
	"container/list"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"rangefinder/wire/pg"
)

const (
	// loginBurst is how many seconds' worth of logins an address may make at once: a connection pool starts like that.
	loginBurst = 10
	// maxAddresses bounds the addresses that are remembered. Of those forgotten nothing is held against them.
	maxAddresses = 1 << 14
)

// errHush ends a connection without a word: its address has been told often enough.
var errHush = errors.New("too many logins from its address")

// logins is a bucket of tokens for each address that has logged in lately.
type logins struct {
	// guarded by mu
	mu     sync.Mutex
	byAddr map[netip.Addr]*list.Element // of *bucket
	recent list.List                    // the latest first
}

// bucket is what an address may still do now. Telling it why it is refused costs something too, and is rationed the same way.
type bucket struct {
	addr   netip.Addr
	at     time.Time
	tokens float64 // logins
	words  float64 // refusals that it is told of
}

// allow takes a login of that address from its bucket: nil, a *pg.Error to tell it, or errHush.
func (l *logins) allow(remote net.Addr, rate int, now time.Time) error {
	addr, ok := addressOf(remote)
	if rate == 0 || !ok {
		return nil
	}
	burst := float64(rate * loginBurst)
	l.mu.Lock()
	defer l.mu.Unlock()
	el := l.byAddr[addr]
	if el == nil {
		if l.recent.Len() >= maxAddresses {
			delete(l.byAddr, l.recent.Remove(l.recent.Back()).(*bucket).addr)
		}
		el = l.recent.PushFront(&bucket{addr: addr, at: now, tokens: burst, words: burst})
		l.byAddr[addr] = el
	}
	l.recent.MoveToFront(el)
	b := el.Value.(*bucket)
	fill := max(0, now.Sub(b.at).Seconds()) * float64(rate)
	b.at, b.tokens, b.words = now, min(burst, b.tokens+fill), min(burst, b.words+fill)
	switch {
	case b.tokens >= 1:
		b.tokens--
		return nil
	case b.words < 1:
		return errHush
	}
	b.words--
	return pg.NewError(pg.CodeTooManyConnections, "too many logins from "+addr.String()).
		WithDetail(fmt.Sprintf("An address may log in %d times a second to this node, and %d times at once.", rate, rate*loginBurst)).
		WithHint("Keep connections open instead of making a new one for each statement, or raise limits.logins.")
}

// addressOf is what logins are counted by: an IPv4 address, or the network of an IPv6 address, which has one holder.
func addressOf(remote net.Addr) (netip.Addr, bool) {
	tcp, ok := remote.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}, false
	}
	addr := tcp.AddrPort().Addr().Unmap().WithZone("")
	if addr.Is6() {
		p, err := addr.Prefix(64)
		if err != nil {
			return netip.Addr{}, false
		}
		addr = p.Addr()
	}
	return addr, addr.IsValid()
}
