package move

import (
	"testing"

	"go.uber.org/goleak"

	"rangefinder/internal/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.WithFarm(m)) }
