package node

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func openDir(t *testing.T, path string) *dataDir {
	t.Helper()
	d, err := openDataDir(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestStateSurvivesARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "data")
	d := openDir(t, path)
	if _, found, err := d.Load(); found || err != nil {
		t.Fatalf("a new directory: found %v, %v", found, err)
	}
	want := State{Format: 1, Node: "fra-12ab", ClusterID: "c1", Incarnation: 7, Bootstrap: true, Peers: []string{"10.0.0.1:7946"}, Region: "fra"}
	if err := d.Save(want); err != nil {
		t.Fatal(err)
	}
	d.Close()
	got, found, err := openDir(t, path).Load()
	if err != nil || !found || !reflect.DeepEqual(got, want) {
		t.Errorf("Load = %+v, %v, %v; want %+v", got, found, err, want)
	}
}

func TestTwoProcessesCannotShareADirectory(t *testing.T) {
	path := t.TempDir()
	openDir(t, path)
	_, err := openDataDir(path)
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), path) {
		t.Errorf("second open gave %v, want ErrLocked naming the directory", err)
	}
}

// TestCrashWhileSaving leaves what a crash at each step of a save leaves, and expects the old state.
func TestCrashWhileSaving(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path)
	old := State{Format: 1, Node: "n", ClusterID: "c", Incarnation: 1}
	if err := d.Save(old); err != nil {
		t.Fatal(err)
	}
	for _, half := range []string{"", `{"format": 1, "node": "n", "clu`} {
		if err := os.WriteFile(filepath.Join(path, stateFile+".tmp-123"), []byte(half), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, found, err := d.Load(); err != nil || !found || !reflect.DeepEqual(got, old) {
			t.Errorf("after a crash with %q in the temporary file: %+v, %v, %v", half, got, found, err)
		}
	}
	if err := d.Save(State{Node: "n", ClusterID: "c", Incarnation: 2}); err != nil {
		t.Fatal(err)
	}
	if got, _, err := d.Load(); err != nil || got.Incarnation != 2 {
		t.Errorf("after the next save: %+v, %v", got, err)
	}
}

// TestFailedSaveKeepsTheOldState takes the directory's write permission away, as a full disk would.
func TestFailedSaveKeepsTheOldState(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path)
	if err := d.Save(State{Node: "n", ClusterID: "c", Incarnation: 1}); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	err := d.Save(State{Node: "n", ClusterID: "c", Incarnation: 2})
	if renameErr := os.Rename(path+".away", path); renameErr != nil {
		t.Fatal(renameErr)
	}
	if err == nil {
		t.Error("saving into a directory that is gone gave no error")
	}
	if got, _, err := d.Load(); err != nil || got.Incarnation != 1 {
		t.Errorf("Load = %+v, %v; want the old state", got, err)
	}
}

func TestDamagedStateIsNeverAFirstStart(t *testing.T) {
	for _, text := range []string{"", "{", "null", `{"format": 1}`, `{"format": 2, "node": "n", "cluster_id": "c"}`, "{}" + strings.Repeat(" ", maxState)} {
		path := t.TempDir()
		if err := os.WriteFile(filepath.Join(path, stateFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, found, err := openDir(t, path).Load()
		if found || !errors.Is(err, ErrState) {
			t.Errorf("%.40q: found %v, %v; want ErrState", text, found, err)
		}
	}
}
