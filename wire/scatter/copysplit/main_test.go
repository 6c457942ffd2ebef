package copysplit_test

import (
	"os"
	"testing"

	"rangefinder/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
