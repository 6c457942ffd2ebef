package node

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// learned is what this node has read from the shards' catalogs, by database, and its server goes by.
type learned[V any] struct {
	// atomic
	known atomic.Pointer[map[string]V] // nil: nobody was asked yet

	// guarded by looking, which is held by whoever looks
	looking sync.Mutex
	set     func(map[string]V) // tells the server; nil: there is none yet

	// guarded by mu
	mu     sync.Mutex
	failed map[string]string // by database: why its catalogs cannot be read now
}

// get returns what is known. It must not be changed.
func (l *learned[V]) get() map[string]V {
	if known := l.known.Load(); known != nil {
		return *known
	}
	return nil
}

// serve has a server go by what is known, now and later.
func (l *learned[V]) serve(set func(map[string]V)) {
	l.looking.Lock()
	defer l.looking.Unlock()
	l.set = set
	l.tell()
}

// tell has the server, if there is one, go by what is known. The caller holds looking.
func (l *learned[V]) tell() {
	if l.set != nil {
		l.set(l.get())
	}
}

// fail replaces what is said of the databases whose catalogs cannot be read now.
func (l *learned[V]) fail(why map[string]string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = why
}

// alarms says of which databases what is known may be old. The format is for a database's name and the reason.
func (l *learned[V]) alarms(format string) (list []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for database, why := range l.failed {
		list = append(list, fmt.Sprintf(format, database, why))
	}
	return list
}
