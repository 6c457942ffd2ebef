package scatter

import (
	"net"
	"testing"

	"go.uber.org/goleak"

	"rangefinder/internal/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.WithFarm(m)) }

// discard is a connection that nobody reads from.
type discard struct{ net.Conn }

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// capture keeps what is written to it.
type capture struct {
	net.Conn
	got []byte
}

func (c *capture) Write(p []byte) (int, error) {
	c.got = append(c.got, p...)
	return len(p), nil
}
