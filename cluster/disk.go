package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"rangefinder/rib"
)

// What lies in the ledger's directory beside Raft's own files.
const (
	clusterFile = "cluster.json" // which cluster this directory belongs to; written before anything else of it
	tableFile   = "ownership"    // the last table this node published, by EncodeOwnership
	votersFile  = "voters.json"  // where the voters were last seen: a list of rib.Member
)

// membership is the content of clusterFile.
type membership struct {
	ClusterID string `json:"cluster_id"`
	// Making: this node is to make the cluster and has not seen it made. It goes away once the cluster's first command is applied:
	// a node that lost Raft's files later must never make the cluster a second time.
	Making bool `json:"making,omitempty"`
}

// readMembership returns what is on disk, the zero value if there is nothing.
func readMembership(dir string) (m membership, err error) {
	b, err := os.ReadFile(filepath.Join(dir, clusterFile))
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil || m.ClusterID == "" {
		return m, fmt.Errorf("%s holds no cluster id: restore it, or empty the directory to join anew", filepath.Join(dir, clusterFile))
	}
	return m, nil
}

func writeMembership(dir string, m membership) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, clusterFile), append(b, '\n'))
}

// readTable returns the last table kept on disk, nil if there is none.
func readTable(dir string) (*rib.Ownership, error) {
	path := filepath.Join(dir, tableFile)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if info.Size() > maxEncoded {
		return nil, fmt.Errorf("%s: %w: it has %d bytes", path, ErrCorrupt, info.Size())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	o, err := DecodeOwnership(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return o, nil
}

func writeTable(dir string, encoded []byte) error {
	return writeFile(filepath.Join(dir, tableFile), encoded)
}

// readVoters returns the voters kept on disk, by name; empty if there are none.
func readVoters(dir string) (map[string]rib.Member, error) {
	b, err := os.ReadFile(filepath.Join(dir, votersFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []voterOnDisk
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, votersFile), err)
	}
	voters := make(map[string]rib.Member, len(list))
	for _, v := range list {
		voters[v.Name] = rib.Member(v)
	}
	return voters, nil
}

// voterOnDisk is rib.Member with names that outlive Go's.
type voterOnDisk struct {
	Name        string `json:"name"`
	Region      string `json:"region"`
	Addr        string `json:"addr"`
	Incarnation uint32 `json:"incarnation"`
}

func writeVoters(dir string, voters map[string]rib.Member) error {
	list := make([]voterOnDisk, 0, len(voters))
	for _, name := range slices.Sorted(maps.Keys(voters)) {
		list = append(list, voterOnDisk(voters[name]))
	}
	b, err := json.MarshalIndent(list, "", "\t")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, votersFile), append(b, '\n'))
}

// writeFile replaces a file whole or not at all, and returns when it will survive a loss of power.
func writeFile(path string, b []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
