package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"rangefinder/rib"
)

// A recovery begins a new generation on one node. Voters of an earlier one may come back, with votes and a log that must not count any
// more. So Raft's streams of a later generation than the first say which they are of, and whoever accepts one answers that it is of the
// same: "RFG" | generation, 4 bytes, big endian; one byte back. Streams of the first generation say nothing, as they never have. (Raft's own
// begin with a byte below 16.)
const (
	magicGeneration   = "RFG"
	generationGranted = 1
	leftFile          = "left-behind" // in the ledger's directory: Raft's files there are of an earlier generation
)

// errGeneration is the end of a stream from another generation.
var errGeneration = errors.New("the other side is of another generation of the cluster: one of the two was left behind by a recovery")

// generation is that of the table this node serves, and logs that of its Raft state; 0: it has none.
func (l *Ledger) generation() (serves, logs uint32) {
	return l.Epoch().Generation, l.fsm.current.Load().Epoch.Generation
}

// leftBehind reports whether this node's Raft state is of an earlier generation than the table it serves.
func (l *Ledger) leftBehind() bool {
	serves, logs := l.generation()
	return logs != 0 && logs < serves
}

// noteLeft has the next Open begin without Raft's files, if they are of an earlier generation than the table that was just published.
func (l *Ledger) noteLeft(o *rib.Ownership) {
	if _, logs := l.generation(); logs == 0 || logs >= o.Epoch.Generation {
		return
	}
	err := writeFile(filepath.Join(l.cfg.Dir, leftFile), fmt.Appendf(nil, "%d\n", o.Epoch.Generation))
	l.log.Error("the cluster was recovered without this node: what only its own part had agreed on does not count; it follows, and can be a voter again once it has been restarted",
		slog.String("epoch", o.Epoch.String()), slog.Any("error", err))
}

// forgetLeft removes Raft's files of an earlier generation.
func forgetLeft(dir string, log *slog.Logger) error {
	marker := filepath.Join(dir, leftFile)
	if _, err := os.Stat(marker); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	log.Warn("removing Raft's files of an earlier generation: the cluster was recovered without them")
	return errors.Join(os.RemoveAll(filepath.Join(dir, "raft.db")), os.RemoveAll(filepath.Join(dir, "snapshots")), os.Remove(marker))
}

// greet says on a new stream which generation it is of, and waits until the other side agrees.
func (l *Ledger) greet(c net.Conn, timeout time.Duration) error {
	_, logs := l.generation()
	if logs <= 1 {
		return nil
	}
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if _, err := c.Write(binary.BigEndian.AppendUint32([]byte(magicGeneration), logs)); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := c.Read(answer[:]); err != nil || answer[0] != generationGranted {
		return errors.Join(errGeneration, err)
	}
	return c.SetDeadline(time.Time{})
}

// welcome judges a stream by the generation that it is of.
func (l *Ledger) welcome(generation uint32) error {
	serves, logs := l.generation()
	if generation < serves || generation > serves && logs != 0 || logs != 0 && logs < generation {
		l.stats.strangers.Add(1)
		return fmt.Errorf("%w: %d, and %d here", errGeneration, generation, max(serves, logs))
	}
	return nil
}

// greetedConn is a stream that was accepted: its first bytes may say which generation it is of.
type greetedConn struct {
	net.Conn
	l *Ledger

	once sync.Once
	err  error
	rest []byte // read, and not yet given on
}

// Read reads what follows the greeting.
func (c *greetedConn) Read(b []byte) (int, error) {
	c.once.Do(func() { c.err = c.hear() })
	switch {
	case c.err != nil:
		return 0, c.err
	case len(c.rest) > 0:
		n := copy(b, c.rest)
		c.rest = slices.Clip(c.rest[n:])
		return n, nil
	}
	return c.Conn.Read(b)
}

func (c *greetedConn) hear() error {
	var head [len(magicGeneration) + 4]byte
	if _, err := c.Conn.Read(head[:1]); err != nil {
		return err
	}
	if head[0] != magicGeneration[0] {
		c.rest = slices.Clone(head[:1])
		err := c.l.welcome(1)
		if err != nil {
			c.Conn.Close()
		}
		return err
	}
	for n := 1; n < len(head); {
		m, err := c.Conn.Read(head[n:])
		if err != nil {
			return err
		}
		n += m
	}
	err := errGeneration
	if string(head[:len(magicGeneration)]) == magicGeneration {
		err = c.l.welcome(binary.BigEndian.Uint32(head[len(magicGeneration):]))
	}
	if err != nil {
		c.Conn.Close()
		return err
	}
	_, err = c.Conn.Write([]byte{generationGranted})
	return err
}
