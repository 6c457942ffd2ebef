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
	goleak.VerifyTestMain(pgtest.WithFarm(m))
}
