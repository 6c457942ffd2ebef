package node

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"rangefinder/internal/pgtest"
)

func TestMain(m *testing.M) {
	if dir, ok := os.LookupEnv(stuckNodeEnv); ok {
		os.Exit(stuckNode(dir))
	}
	// memberlist waits for the answer to its last ping for up to a second after its Shutdown
	goleak.VerifyTestMain(pgtest.WithFarm(m), goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}
