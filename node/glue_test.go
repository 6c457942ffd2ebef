package node

import (
	"strings"
	"testing"
	"time"

	"rangefinder/rib"
)

// News of owners that nobody has, without end, have a node neither ask nor complain without end.
func TestFloodOfEpochs(t *testing.T) {
	n := newNode(t, testConfig(t, "fra"), nil).open(t)
	nobody := rib.Member{Name: "nobody", Addr: "127.0.0.1:1"}
	for began, i := time.Now(), uint64(1); time.Since(began) < 2*time.Second; i++ {
		n.heardEpoch(nobody, rib.Epoch{Generation: 9, Index: i})
	}
	if asked := strings.Count(n.log.String(), "cannot pull"); asked == 0 || asked > 25 {
		t.Errorf("it has asked %d times in 2 s", asked)
	}
}
