package node

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rangefinder/rib"
)

func TestBeliefsFile(t *testing.T) {
	known := []rib.Known{{
		Announcement: rib.Announcement{
			Backend:  rib.Backend{Name: "db", Shard: "shard_1", Region: "fra", Addr: "10.0.0.1:5432", SystemID: 1<<63 + 1},
			Observer: "fra-1", Stamp: rib.Stamp{Incarnation: 3, Seq: 9},
		},
		Role: rib.Primary, Timeline: 2,
	}}
	text, err := encodeBeliefs("c1", known)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decodeBeliefs(text, "c1"); err != nil || !slices.Equal(got, known) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := decodeBeliefs(text, "c2"); err == nil || !strings.Contains(err.Error(), "c1") {
		t.Errorf("another cluster's: %v", err)
	}
	for _, bad := range []string{"", "{", "[]", `{"format":2,"cluster_id":"c1"}`, strings.Replace(string(text), "10.0.0.1:5432", "x", 1), strings.Replace(string(text), `"fra-1"`, `""`, 1)} {
		if _, err := decodeBeliefs([]byte(bad), "c1"); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// TestDamagedFilesStopNobody: the others say it again.
func TestDamagedFilesStopNobody(t *testing.T) {
	cfg := testConfig(t, "fra")
	if err := newNode(t, cfg, nil).open(t).Close(); err != nil {
		t.Fatal(err)
	}
	damaged := map[string]string{beliefsFile: `{"format": 1, "backends": [`, drainsFile: `{"format": 1, "drains": [`}
	for name, text := range damaged {
		if err := os.WriteFile(filepath.Join(cfg.DataDir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n := newNode(t, cfg, nil).open(t)
	for name := range damaged {
		if !strings.Contains(n.log.String(), name) {
			t.Errorf("the log says nothing of a damaged %s", name)
		}
	}
}
