package node

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
)

// The first read after the death of the closest backend is answered over a connection that was there before.
func TestReadsFindAConnectionAtTheNextBackend(t *testing.T) {
	c := startDrainCluster(t, 1, nil)
	conn := c.fra.connect(t)
	ask := func() (port int, pid uint32) {
		t.Helper()
		if err := conn.QueryRow(t.Context(), "SELECT inet_server_port(), pg_backend_pid()").Scan(&port, &pid); err != nil {
			t.Fatal(err)
		}
		return port, pid
	}
	if port, _ := ask(); c.ports[port] != "db-fra-1" {
		t.Fatalf("%s answered", c.ports[port])
	}
	ready := map[uint32]bool{}
	pgtest.Eventually(t, 20*time.Second, func() error {
		list, _ := c.fra.pools.Servers()
		for _, s := range list {
			if s.Backend == "db-iad" && s.Identity.User == "app" && s.Idle {
				ready[s.PID] = true
			}
		}
		if len(ready) == 0 {
			return errors.New("no connection stands by at db-iad")
		}
		return nil
	})
	if err := c.servers["db-fra-1"].Kill(); err != nil {
		t.Fatal(err)
	}
	if port, pid := ask(); c.ports[port] != "db-iad" || !ready[pid] {
		t.Errorf("%s answered, process %d: not one of %s", c.ports[port], pid, fmt.Sprint(ready))
	}
}
