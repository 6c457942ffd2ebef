package sqloracle

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"rangefinder/internal/pgtest"
)

var (
	seed   = flag.Uint64("oracle.seed", 1, "what statements are generated from")
	number = flag.Int("oracle.n", 2200, "statements to generate")
	update = flag.Bool("update", false, "write the table of docs/sql.md anew")
	trace  = flag.String("oracle.trace", "", "a file that is to hold every generated statement and what became of it")
)

// summary is the last line that this program prints; "": no statement was generated.
var summary string

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(pgtest.WithFarm(m), goleak.Cleanup(func(code int) {
		if summary != "" {
			fmt.Println(summary)
		}
		os.Exit(code)
	}))
}
