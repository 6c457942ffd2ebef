package pgtest

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// template is a data folder that initdb has filled and that no server has run in. Primaries are copies of it, each with a system identifier of
// its own, as initdb would have given it one: Rangefinder tells shards apart by that. initdb takes two seconds of a processor, a copy less
// than a tenth of one.
type template struct {
	// constant
	password string // the superuser's in every copy

	// guarded by mu
	mu    sync.Mutex
	dir   string // "": not made yet
	ident uint64 // its own system identifier
	count uint32 // of its copies
}

// initialize runs initdb for a data folder. secret is a file beside it, for the superuser's password.
func (f *Farm) initialize(ctx context.Context, data, password, auth string) error {
	dir := filepath.Dir(data)
	secret := filepath.Join(dir, "password")
	if err := os.WriteFile(secret, []byte(password), 0o600); err != nil {
		return err
	}
	if err := f.own(secret); err != nil {
		return err
	}
	return f.run(ctx, dir, nil, "initdb", "--pgdata", data, "--username", superuser, "--pwfile", secret, "--no-sync",
		"--no-instructions", "--wal-segsize", "1", "--encoding", "UTF8", "--locale", "C", "--auth", auth)
}

// fromTemplate fills a data folder with a copy of the farm's template, which the first call makes.
func (f *Farm) fromTemplate(ctx context.Context, data string) error {
	from, ident, n, err := f.nextCopy(ctx)
	if err != nil {
		return fmt.Errorf("make a data folder to copy: %w", err)
	}
	if err := f.copyFolder(from, data); err != nil {
		return err
	}
	return reidentify(data, ident, newIdentifier(n))
}

// nextCopy returns the template's folder and system identifier, and the number of this copy of it.
func (f *Farm) nextCopy(ctx context.Context) (dir string, ident uint64, n uint32, err error) {
	t := &f.template
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dir == "" {
		if err := f.makeTemplate(ctx); err != nil {
			return "", 0, 0, err
		}
	}
	t.count++
	return t.dir, t.ident, t.count, nil
}

// makeTemplate needs the template's mu.
func (f *Farm) makeTemplate(ctx context.Context) error {
	dir := filepath.Join(f.dir, "template")
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil { // what an attempt before has left
		return err
	}
	if err := f.own(dir); err != nil {
		return err
	}
	data := filepath.Join(dir, "data")
	if err := f.initialize(ctx, data, f.template.password, "trust"); err != nil {
		return err
	}
	ident, err := identifier(data)
	if err != nil {
		return err
	}
	f.template.ident, f.template.dir = ident, data
	return nil
}

// copyFolder copies a folder for the servers' user.
func (f *Farm) copyFolder(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if d.IsDir() {
			err = os.Mkdir(target, 0o700)
		} else {
			var content []byte
			if content, err = os.ReadFile(path); err == nil {
				err = os.WriteFile(target, content, 0o600)
			}
		}
		if err != nil {
			return err
		}
		return f.own(target)
	})
}

// newIdentifier is a system identifier as initdb makes them: the second in the upper half, and below it what tells apart those of one second.
// n tells apart those of one farm, chance those of several.
func newIdentifier(n uint32) uint64 {
	var chance [4]byte
	_, _ = rand.Read(chance[:])                                                                         // never fails
	return uint64(time.Now().Unix())<<32 | uint64(binary.NativeEndian.Uint32(chance[:])&^0xfff|n&0xfff) // #nosec G115 -- a time after 1970
}

// identifier is the system identifier in a data folder: pg_control's first field.
func identifier(data string) (uint64, error) {
	control, err := os.ReadFile(controlFile(data))
	if err != nil {
		return 0, err
	}
	if len(control) < 8 {
		return 0, fmt.Errorf("%s has %d bytes", controlFile(data), len(control))
	}
	return binary.NativeEndian.Uint64(control), nil
}

func controlFile(data string) string { return filepath.Join(data, "global", "pg_control") }

// reidentify gives the data folder of a server that does not run another system identifier. It stands in pg_control as the first field, under
// a checksum, and in the header of each WAL segment's first page. A server that found the two to differ would not start.
func reidentify(data string, from, to uint64) error {
	path := controlFile(data)
	control, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	at := checksummed(control)
	if at < 0 || binary.NativeEndian.Uint64(control) != from {
		return fmt.Errorf("%s: not as PostgreSQL writes it", path)
	}
	binary.NativeEndian.PutUint64(control, to)
	binary.NativeEndian.PutUint32(control[at:], crc32.Checksum(control[:at], castagnoli()))
	if err := os.WriteFile(path, control, 0o600); err != nil {
		return err
	}
	segments, err := filepath.Glob(filepath.Join(data, "pg_wal", "0*"))
	if err != nil {
		return err
	}
	for _, path := range segments {
		segment, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		const ident = 24 // behind the short header, in XLogLongPageHeaderData
		if len(segment) < ident+8 || binary.NativeEndian.Uint64(segment[ident:]) != from {
			continue // not written yet
		}
		binary.NativeEndian.PutUint64(segment[ident:], to)
		if err := os.WriteFile(path, segment, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// checksummed returns where pg_control's checksum stands, which is over all bytes before it, or -1. The place differs from version to version.
func checksummed(control []byte) int {
	table := castagnoli()
	sum := uint32(0)
	for at := 0; at+8 <= len(control); at += 4 {
		if at >= 8 && binary.NativeEndian.Uint32(control[at:]) == sum {
			return at
		}
		sum = crc32.Update(sum, table, control[at:at+4])
	}
	return -1
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }
