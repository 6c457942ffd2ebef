package cluster

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"time"

	"rangefinder/rib"
)

// A pull is one exchange over a stream: a question and an answer, each "RFP1", a length (2 bytes, big endian) and a head in JSON of
// at most 4 KiB. A head that announces a table is followed by it, in EncodeOwnership's form, or by the commands that lead to it: see delta.go.
const (
	magicPull   = "RFP1"
	maxPullHead = 4096
	pullChunk   = 256 << 10        // bytes
	pullPause   = 15 * time.Second // longest time for one chunk
)

type pullQuestion struct {
	Node      string    `json:"node"`
	ClusterID string    `json:"cluster_id"` // empty: none yet
	Have      rib.Epoch `json:"have"`
	Hash      []byte    `json:"hash,omitempty"`   // of the link at Have; empty: it has none
	Deltas    bool      `json:"deltas,omitempty"` // commands that lead from Have to the newest table will do
}

type pullAnswer struct {
	ClusterID  string    `json:"cluster_id"`
	Epoch      rib.Epoch `json:"epoch"`
	Size       int       `json:"size"`               // bytes of the table that follows; 0: the other side has nothing newer
	Delta      bool      `json:"delta,omitempty"`    // what follows are commands
	Link       []byte    `json:"link,omitempty"`     // then the last one that the table has
	Refused    string    `json:"refused,omitempty"`  // why there is no answer
	Diverged   bool      `json:"diverged,omitempty"` // since the two tables have come from different commands
	Leader     string    `json:"leader,omitempty"`   // as known there
	LeaderAddr string    `json:"leader_addr,omitempty"`
	Votes      bool      `json:"votes,omitempty"`  // whoever answers is a voter: it knows the leader at first hand
	Voters     []Voter   `json:"voters,omitempty"` // as known there
}

// maxHintVoters bounds the voters in an answer: it must fit into a head.
const maxHintVoters = 7

// ServePull answers one pull. The caller closes the stream. It takes bounded time whatever the other side does.
func (l *Ledger) ServePull(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(pullPause)); err != nil {
		return err
	}
	var q pullQuestion
	if err := readHead(conn, &q); err != nil {
		return fmt.Errorf("read a pull's question: %w", err)
	}
	o := l.cfg.Owners.Get()
	a := pullAnswer{ClusterID: l.ClusterID(), Epoch: o.Epoch}
	a.Leader, a.LeaderAddr = l.Leader()
	a.Votes, a.Voters = l.voterHints()
	var table []byte
	switch {
	case q.ClusterID != "" && a.ClusterID != "" && q.ClusterID != a.ClusterID:
		a.Refused = fmt.Sprintf("this is cluster %s, not %s", a.ClusterID, q.ClusterID)
		l.stats.pullsRefused.Add(1)
	case diverged(o.Links, o.Epoch, rib.Link{Epoch: q.Have, Hash: hashOf(q.Hash)}, len(q.Hash) > 0):
		a.Refused = fmt.Sprintf("node %s has a table of epoch %s that has come from other commands than the one here: one of the two belongs to a part of the cluster that was left behind", q.Node, q.Have)
		a.Diverged = true
		l.stats.pullsRefused.Add(1)
		l.divergence("asked by "+q.Node, q.Have)
	case o.Epoch.Compare(q.Have) > 0:
		var err error
		if table = l.delta(&q, o); table != nil {
			a.Delta, a.Link = true, o.Links[len(o.Links)-1].Hash[:]
		} else if table, err = l.encodedFor(o); err != nil {
			return err
		}
		a.Size = len(table)
		if a.Size > maxEncoded {
			a.Refused = fmt.Sprintf("the table has %d bytes, and a pull may carry %d", a.Size, maxEncoded)
			a.Size, table = 0, nil
		}
	}
	if err := writeHead(conn, a); err != nil {
		return fmt.Errorf("answer a pull: %w", err)
	}
	for len(table) > 0 { // time is bounded by progress: a large table over a thin line is fine
		n := min(len(table), pullChunk)
		if err := conn.SetWriteDeadline(time.Now().Add(pullPause)); err != nil {
			return err
		}
		if _, err := conn.Write(table[:n]); err != nil {
			return fmt.Errorf("answer a pull: %w", err)
		}
		table = table[n:]
	}
	l.stats.pullsServed.Add(1)
	return nil
}

// Pull asks the node at the other end of conn for a newer table and, if there is one, publishes it and keeps it on disk. applied
// reports whether this node's table changed. The caller closes the stream, which cannot be used again. Errors: ErrOtherCluster,
// ErrCorrupt, ErrPullVersion, ErrPullTooLarge, ErrDelta (the next pull will bring the whole table), and those of the stream.
func (l *Ledger) Pull(ctx context.Context, conn net.Conn) (applied bool, err error) {
	select {
	case <-l.opened:
	default:
		return false, ErrNotOpen
	}
	// The deadline in the past ends a read or write under way.
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })() //nolint:errcheck // it only ends a wait
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = fmt.Errorf("pull the ownership table: %w", context.Cause(ctx))
		}
	}()
	whole := l.whole.Swap(false)
	o, delta, err := l.pull(ctx, conn, !whole)
	if err != nil {
		if delta || whole {
			l.whole.Store(true)
		}
		return false, err
	}
	if o == nil || !l.publish(o) {
		l.stats.pullsCurrent.Add(1)
		return false, nil
	}
	l.stats.pullsApplied.Add(1)
	if delta {
		l.stats.pullsDelta.Add(1)
	}
	if err := l.saveNow(); err != nil {
		return true, fmt.Errorf("keep the pulled table on disk: %w", err)
	}
	return true, nil
}

// pull returns the other side's table, nil if it is not newer. deltas: commands that lead to it will do; delta: that is what came.
func (l *Ledger) pull(ctx context.Context, conn net.Conn, deltas bool) (o *rib.Ownership, delta bool, err error) {
	more := func() error {
		// In this order: a cancellation after the check finds this deadline set, and overrides it.
		if err := conn.SetDeadline(time.Now().Add(pullPause)); err != nil {
			return err
		}
		return ctx.Err()
	}
	if err := more(); err != nil {
		return nil, false, err
	}
	mine := l.cfg.Owners.Get()
	q := pullQuestion{Node: l.cfg.Node, ClusterID: l.ClusterID(), Have: mine.Epoch, Deltas: deltas}
	link, linked := lastLink(mine)
	if linked {
		q.Hash = link.Hash[:]
	}
	if err := writeHead(conn, q); err != nil {
		return nil, false, fmt.Errorf("ask for the ownership table: %w", err)
	}
	var a pullAnswer
	if err := readHead(conn, &a); err != nil {
		return nil, false, fmt.Errorf("pull the ownership table: %w", err)
	}
	ours := l.ClusterID()
	switch {
	case ours != "" && a.ClusterID != "" && a.ClusterID != ours:
		return nil, false, fmt.Errorf("pull the ownership table: %w: it belongs to %s and this node to %s", ErrOtherCluster, a.ClusterID, ours)
	case a.Diverged:
		l.divergence("asked at "+conn.RemoteAddr().String(), a.Epoch)
		return nil, false, fmt.Errorf("pull the ownership table: %w: %s", ErrDiverged, a.Refused)
	case a.Refused != "":
		return nil, false, fmt.Errorf("pull the ownership table: refused: %s", a.Refused)
	case a.Size < 0 || a.Size > maxEncoded:
		return nil, false, fmt.Errorf("%w: %d bytes", ErrPullTooLarge, a.Size)
	}
	l.hear(&a)
	if a.Size == 0 {
		return nil, false, nil
	}
	table, err := readTableOf(conn, a.Size, more)
	if err != nil {
		return nil, a.Delta, err
	}
	if a.Delta {
		if !deltas {
			return nil, true, fmt.Errorf("pull the ownership table: %w: commands came that nobody asked for", ErrCorrupt)
		}
		if o, err = l.followed(mine, table, a.Link); err != nil {
			return nil, true, fmt.Errorf("pull the ownership table: %w", err)
		}
		l.diverged.Store(nil)
		return o, true, nil
	}
	if o, err = DecodeOwnership(table); err != nil {
		return nil, false, fmt.Errorf("pull the ownership table: %w", err)
	}
	for i := range o.Keyspaces {
		if err := o.Keyspaces[i].Validate(); err != nil {
			return nil, false, fmt.Errorf("pull the ownership table: %w: %v", ErrCorrupt, err)
		}
	}
	if diverged(o.Links, o.Epoch, link, linked) {
		l.divergence("pulled from "+conn.RemoteAddr().String(), o.Epoch)
		return nil, false, fmt.Errorf("pull the ownership table: %w: its epoch is %s, and it does not hold the command of epoch %s that is here", ErrDiverged, o.Epoch, link.Epoch)
	}
	l.diverged.Store(nil)
	return o, false, nil
}

// readTableOf reads so many bytes. The memory grows with what has arrived, not with what was announced. more is asked before each part.
func readTableOf(conn net.Conn, size int, more func() error) (table []byte, err error) {
	for len(table) < size {
		if err := more(); err != nil {
			return nil, err
		}
		n := min(size-len(table), max(pullChunk, len(table)))
		at := len(table)
		table = append(table, make([]byte, n)...)
		for at < len(table) {
			m, err := conn.Read(table[at:min(len(table), at+pullChunk)])
			at += m
			if err != nil {
				if errors.Is(err, io.EOF) {
					err = io.ErrUnexpectedEOF
				}
				return nil, fmt.Errorf("pull the ownership table: %w after %d of %d bytes", err, at, size)
			}
			if err := more(); err != nil {
				return nil, err
			}
		}
	}
	return table, nil
}

// lastLink is the link of the command that made a table.
func lastLink(o *rib.Ownership) (link rib.Link, ok bool) {
	if n := len(o.Links); n > 0 && o.Links[n-1].Epoch == o.Epoch {
		return o.Links[n-1], true
	}
	return rib.Link{}, false
}

func hashOf(b []byte) (h [16]byte) {
	copy(h[:], b)
	return h
}

// diverged tells whether a table of some links and an epoch has come without the command of a link: never so if that is older than all
// of the links, for then nobody can tell, nor if the table is older, or of a later generation, which a recovery has begun.
func diverged(links []rib.Link, epoch rib.Epoch, link rib.Link, linked bool) bool {
	if !linked || epoch.Generation != link.Epoch.Generation || epoch.Compare(link.Epoch) < 0 {
		return false
	}
	at, found := slices.BinarySearchFunc(links, link.Epoch, func(l rib.Link, e rib.Epoch) int { return l.Epoch.Compare(e) })
	if found {
		return links[at].Hash != link.Hash
	}
	return at > 0 || len(links) == 0 // it lies between links, or the chain is not there at all
}

// divergence counts and tells of a table that has come from other commands.
func (l *Ledger) divergence(who string, e rib.Epoch) {
	l.stats.pullsDiverged.Add(1)
	why := fmt.Sprintf("a table of epoch %s, %s, has come from other commands than the one of epoch %s here: one of the two nodes was left behind by a recovery or has another's data; stop it, empty its data directory and let it join anew", e, who, l.Epoch())
	if old := l.diverged.Swap(&why); old == nil || *old != why {
		l.log.Error("ownership tables differ", slog.String("why", why))
	}
}

// hear keeps what an answer says of the leader and the voters. A voter knows it at first hand; what others have heard may be older
// than what this node has, and only serves to begin with.
func (l *Ledger) hear(a *pullAnswer) {
	l.membersMu.Lock()
	defer l.membersMu.Unlock()
	if a.Votes || l.hintLeader == "" {
		l.hintLeader, l.hintAddr = a.Leader, a.LeaderAddr
	}
	if len(a.Voters) > 0 && (a.Votes || len(l.hintVoters) == 0) {
		l.hintVoters = a.Voters[:min(len(a.Voters), maxHintVoters)]
	}
	if a.Votes {
		l.votersTold = time.Now()
	}
}

// hearLeader keeps who leads, as another node has said just now.
func (l *Ledger) hearLeader(name, addr string) {
	l.membersMu.Lock()
	defer l.membersMu.Unlock()
	l.hintLeader, l.hintAddr = name, addr
}

// voterHints is what an answer says of the voters, and whether this node is one.
func (l *Ledger) voterHints() (votes bool, voters []Voter) {
	voters = l.Voters()
	for i := range voters {
		votes = votes || voters[i].Name == l.cfg.Node && !l.Follows()
	}
	return votes, voters[:min(len(voters), maxHintVoters)]
}

func writeHead(w io.Writer, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > maxPullHead {
		return fmt.Errorf("a pull's head of %d bytes is over the limit of %d", len(body), maxPullHead)
	}
	b := append([]byte(magicPull), 0, 0)
	binary.BigEndian.PutUint16(b[4:], uint16(len(body)))
	_, err = w.Write(append(b, body...))
	return err
}

func readHead(r io.Reader, v any) error {
	var head [6]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	if string(head[:4]) != magicPull {
		return fmt.Errorf("%w: it begins with %q", ErrPullVersion, head[:4])
	}
	n := binary.BigEndian.Uint16(head[4:])
	if n == 0 || n > maxPullHead {
		return fmt.Errorf("%w: a head of %d bytes", ErrCorrupt, n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%w: %v", ErrCorrupt, err)
	}
	return nil
}
