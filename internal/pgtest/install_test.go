package pgtest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// install makes a folder of programs that look like PostgreSQL's.
func install(t *testing.T, dir string, programs ...string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, p := range programs {
		if err := os.WriteFile(filepath.Join(dir, p), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestNewestCompleteInstallationIsFound(t *testing.T) {
	root := t.TempDir()
	pattern := filepath.Join(root, "*", "bin")
	nowhere := func(string) (string, error) { return "", exec.ErrNotFound }
	if _, err := binDir(pattern, nowhere); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("nothing installed: %v", err)
	}
	install(t, filepath.Join(root, "17", "bin"), "psql", "initdb") // of a client package
	if _, err := binDir(pattern, nowhere); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("only clients installed: %v", err)
	}
	elsewhere := install(t, filepath.Join(root, "opt"), "postgres", "initdb", "pg_basebackup")
	inPath := func(name string) (string, error) { return filepath.Join(elsewhere, name), nil }
	if got, err := binDir(pattern, inPath); err != nil || got != elsewhere {
		t.Errorf("in PATH: %s, %v", got, err)
	}
	install(t, filepath.Join(root, "9.6", "bin"), "postgres", "initdb", "pg_basebackup")
	install(t, filepath.Join(root, "14", "bin"), "postgres", "initdb", "pg_basebackup")
	newest := install(t, filepath.Join(root, "16", "bin"), "postgres", "initdb", "pg_basebackup")
	if got, err := binDir(pattern, inPath); err != nil || got != newest {
		t.Errorf("several: %s, %v", got, err)
	}
}

// As root, servers run as another user, who must get through every folder above theirs.
func TestFolderThatServersCannotEnterIsNamed(t *testing.T) {
	root := t.TempDir()
	closed := filepath.Join(root, "closed")
	inner := filepath.Join(closed, "inner")
	if err := os.MkdirAll(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	stranger := &syscall.Credential{Uid: 4242424, Gid: 4242424}
	if _, err := parentFolder(inner, stranger); err == nil {
		t.Error("a folder behind a closed one was taken")
	}
	if got, err := parentFolder(inner, nil); err != nil || got != inner {
		t.Errorf("as ourselves: %s, %v", got, err)
	}
	if _, err := parentFolder(filepath.Join(root, "none"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
}
