package node

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"rangefinder/gossip"
	"rangefinder/rib"
)

// A node that restarts while nobody else answers has to know which servers there are beyond its own configuration, and which of them
// were primaries: so what others announced is kept on disk. And what it knew of its own: until it has reached them again the cluster
// goes by that, and so they stay in their place.

const (
	beliefsFile   = "backends.json"
	beliefsFormat = 1
	maxBeliefs    = 16 << 20 // bytes of backends.json
	beliefsTick   = time.Second
	beliefsWait   = 3 * time.Second // for what others believe, before clients are let in
)

// beliefs is the file.
type beliefs struct {
	keptFile
	Backends []knownBackend `json:"backends"`
}

type knownBackend struct {
	Name        string `json:"name"`
	Shard       string `json:"shard"`
	Region      string `json:"region"`
	Addr        string `json:"addr"`
	SystemID    uint64 `json:"system_id,string"`
	Observer    string `json:"announced_by"`
	Incarnation uint32 `json:"incarnation"`
	Seq         uint64 `json:"seq"`
	Role        string `json:"role"`
	Timeline    uint32 `json:"timeline"`
}

func encodeBeliefs(clusterID string, known []rib.Known) ([]byte, error) {
	f := beliefs{keptFile: keptFile{beliefsFormat, clusterID}, Backends: []knownBackend{}}
	for _, k := range known {
		b, stamp := k.Announcement.Backend, k.Announcement.Stamp
		f.Backends = append(f.Backends, knownBackend{
			Name: b.Name, Shard: b.Shard, Region: b.Region, Addr: b.Addr, SystemID: b.SystemID, Observer: k.Announcement.Observer,
			Incarnation: stamp.Incarnation, Seq: stamp.Seq, Role: k.Role.String(), Timeline: k.Timeline,
		})
	}
	text, err := json.MarshalIndent(f, "", "  ")
	return append(text, '\n'), err
}

func decodeBeliefs(text []byte, clusterID string) (known []rib.Known, err error) {
	var f beliefs
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, err
	}
	if err := f.check(keptFile{beliefsFormat, clusterID}); err != nil {
		return nil, err
	}
	for _, b := range f.Backends {
		if _, _, err := net.SplitHostPort(b.Addr); err != nil {
			return nil, fmt.Errorf("backend %q: its address: %w", b.Name, err)
		}
		a := rib.Announcement{
			Backend:  rib.Backend{Name: b.Name, Shard: b.Shard, Region: b.Region, Addr: b.Addr, SystemID: b.SystemID},
			Observer: b.Observer, Stamp: rib.Stamp{Incarnation: b.Incarnation, Seq: b.Seq},
		}
		if err := gossip.CheckAnnouncement(&a); err != nil {
			return nil, err
		}
		role := rib.RoleUnknown
		for _, r := range []rib.Role{rib.Primary, rib.Replica} {
			if b.Role == r.String() {
				role = r
			}
		}
		known = append(known, rib.Known{Announcement: a, Role: role, Timeline: b.Timeline})
	}
	return known, nil
}

// LoadBeliefs reads backends.json; nil if there is none.
func (d *dataDir) LoadBeliefs(clusterID string) ([]rib.Known, error) {
	text, found, err := d.readKept(beliefsFile, maxBeliefs)
	if err != nil || !found {
		return nil, err
	}
	return decodeBeliefs(text, clusterID)
}

// recallBeliefs puts into the table what was last known of backends.
func (n *Node) recallBeliefs() {
	known, err := n.dir.LoadBeliefs(n.state.ClusterID)
	if err != nil { // the others say it again
		n.log.Warn("what was last known of backends cannot be read; going on without it", "file", beliefsFile, "error", err)
		return
	}
	n.table.Health().Recall(known)
	n.recalled = known
}

// beliefsLoop keeps on disk what is announced. It ends with a last look.
func (n *Node) beliefsLoop(ctx context.Context) {
	var version uint64
	var kept []byte
	for on := true; on; {
		on = pause(ctx, beliefsTick)
		if v := n.table.Snapshot().Version; v != version {
			version = v
			kept = n.keepBeliefs(kept)
		}
	}
}

// keepBeliefs writes the file unless it holds the same, and returns what it holds.
func (n *Node) keepBeliefs(kept []byte) []byte {
	text, err := encodeBeliefs(n.state.ClusterID, n.table.Health().Known())
	if err == nil && bytes.Equal(text, kept) {
		return kept
	}
	if err == nil && len(text) > maxBeliefs {
		err = fmt.Errorf("%d bytes are more than %d", len(text), maxBeliefs)
	}
	if err == nil {
		err = writeFileAtomic(filepath.Join(n.dir.path, beliefsFile), text)
	}
	if err != nil {
		n.log.Warn("cannot keep on disk what is known of backends", "error", err)
		return nil
	}
	return text
}

// awaitBeliefs gives the cluster, and this node's own probes, a moment to say what is up: else the first clients meet what was
// believed before the restart, or nothing.
func (n *Node) awaitBeliefs(ctx context.Context) error {
	n.waits("hearing from the cluster which backends are up")
	late := time.NewTimer(beliefsWait)
	defer late.Stop()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	contacted := n.contacted
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-late.C:
			return nil
		case <-contacted:
			contacted = nil
		case <-poll.C:
		}
		if contacted == nil && beliefsSettled(n.table.Snapshot()) {
			return nil
		}
	}
}

// beliefsSettled reports whether somebody has said how every backend is that has a node in its region.
func beliefsSettled(s *rib.Snapshot) bool {
	regions := map[string]bool{}
	for _, m := range s.Members {
		regions[m.Region] = true
	}
	for i := range s.Backends {
		if b := &s.Backends[i]; b.Verdict == rib.StateUnknown && regions[b.Backend.Region] {
			return false
		}
	}
	return true
}
