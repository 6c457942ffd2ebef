package wire_test

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"testing"

	"github.com/jackc/pgx/v5"

	"rangefinder/internal/pgtest"
)

// Sessions that wait for their clients keep no buffer for what a server sends, also if its connection is no plain socket, as with TLS.
func TestIdleSessionsKeepNoBuffer(t *testing.T) {
	const many = 100
	heap := func() uint64 {
		var m runtime.MemStats
		for range 3 { // pools of buffers need two
			runtime.GC() //revive:disable-line:call-to-gc memory in use is what is measured
		}
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	fake := fakeServer(t, fakeSystemID, answered)
	r := newRig(t, rigOptions{backends: fakeAlone(fake), poolSize: 2, dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return struct{ net.Conn }{conn}, nil
	}})
	var conns []*pgx.Conn
	for range many {
		conns = append(conns, r.connect(pgx.QueryExecModeSimpleProtocol))
	}
	before := heap()
	for i, conn := range conns {
		if got, err := rowsOf(ctxOf(t), conn, fmt.Sprintf("SELECT %d", i)); err != nil || got == "" {
			t.Fatal(got, err)
		}
	}
	pgtest.Eventually(t, patience, func() error {
		if grown := int64(heap()) - int64(before); grown > many*8<<10 {
			return fmt.Errorf("%d idle sessions have taken %d bytes", many, grown)
		}
		return nil
	})
	runtime.KeepAlive(conns)
}
