package gossip

import (
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"rangefinder/gossip/memnet"
	"rangefinder/rib"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestCloseInRealTime opens, joins and closes by the real clock: TestMain finds what is left.
func TestCloseInRealTime(t *testing.T) {
	n := memnet.New(1)
	defer n.Close()
	var speakers []*Speaker
	for _, name := range []string{"a", "b", "c"} {
		tr, err := n.Host(name, "fra").Transport(7946)
		if err != nil {
			t.Fatal(err)
		}
		self := rib.Member{Name: name, Region: "fra", Incarnation: 1}
		s := New(Config{
			Self: self, ClusterID: "c", Key: make([]byte, 32), Transport: tr, Health: rib.NewTable(self).Health(),
			Logger: slog.New(slog.DiscardHandler),
		})
		if err := s.Open(); err != nil {
			t.Fatal(err)
		}
		if len(speakers) > 0 {
			if _, err := s.Join([]string{n.Host("a", "fra").Addr(7946)}); err != nil {
				t.Fatal(err)
			}
		}
		speakers = append(speakers, s)
	}
	for _, s := range speakers {
		start := time.Now()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
		t.Logf("closed after %v", time.Since(start))
		if took := time.Since(start); took > leaveTimeout+time.Second {
			t.Errorf("Close took %v", took)
		}
		s.Observe(rib.Route{Backend: "b", State: rib.Up}) // after Close: nothing happens
		s.SetEpoch(rib.Epoch{Index: 1})
	}
}
