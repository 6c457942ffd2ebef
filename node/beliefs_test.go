package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
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
	spoiled := func(old, spoiled string) string { return strings.Replace(string(text), old, spoiled, 1) }
	for _, bad := range []string{
		"", "{", "[]", `{"format":2,"cluster_id":"c1"}`, string(text[:len(text)/2]), spoiled("10.0.0.1:5432", "x"), spoiled(`"fra-1"`, `""`),
		// What no peer would take, and what no later word of its author could take the place of.
		spoiled(`"incarnation": 3`, `"incarnation": 2000000`), spoiled(`"seq": 9`, `"seq": 4611686018427387904`), spoiled(`"db"`, `"d\u0007b"`),
		spoiled(`"db"`, `"`+strings.Repeat("d", 129)+`"`), spoiled(`"region": "fra"`, `"region": ""`), spoiled("10.0.0.1", strings.Repeat("x", 300)),
	} {
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

// TestRestartBesideAPrimaryItCannotReach: a node starts again and cannot log in to its own backend. The others reach that, and go on to write to it; and
// so does the node itself, unless it has lost what it knew.
func TestRestartBesideAPrimaryItCannotReach(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprintf("its memory lost %v", lost), func(t *testing.T) {
			iad := startOne(t, nil)
			cfg := testConfig(t, "fra", iad.port().Addr())
			cfg.Databases, cfg.Users, cfg.Probe = iad.cfg.Databases, iad.cfg.Users, iad.cfg.Probe
			fra := newNode(t, cfg, clusterEnv()).open(t)
			fra.settled(t, 2, 1)
			conn := fra.connect(t)
			write := func(id int) {
				t.Helper()
				if _, err := conn.Exec(t.Context(), "INSERT INTO t (id) VALUES ($1)", id); err != nil {
					t.Error(err)
				}
			}
			write(1)
			pgtest.Eventually(t, 20*time.Second, func() error { // both observe it
				if b := fra.table.Snapshot().Backends; len(b) != 1 || len(b[0].Routes) != 2 {
					return fmt.Errorf("%+v", b)
				}
				return nil
			})

			if err := iad.Close(); err != nil {
				t.Fatal(err)
			}
			if lost {
				if err := os.Remove(filepath.Join(iad.cfg.DataDir, beliefsFile)); err != nil {
					t.Fatal(err)
				}
			}
			env := clusterEnv()
			env["PROBE_PASSWORD"] = "another"
			cfg = iad.cfg
			cfg.Join = []string{fra.port().Addr()}
			again := newNode(t, cfg, env).open(t)
			pgtest.Eventually(t, 20*time.Second, func() error {
				for _, k := range fra.table.Health().Known() {
					if a := k.Announcement; a.Observer == "iad-1" && a.Stamp.Incarnation == again.state.Incarnation {
						return nil
					}
				}
				return errors.New("it has not announced its backend again")
			})
			write(2)
			for _, n := range []*testNode{fra, again} {
				if b := n.table.Snapshot().Backends; len(b) != 1 || b[0].Refused != "" && !(lost && n == again) || b[0].Role != rib.Primary {
					t.Errorf("%s: %+v", n.cfg.Name, b)
				}
			}
			if !lost {
				if _, err := again.connect(t).Exec(t.Context(), "INSERT INTO t (id) VALUES (3)"); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
