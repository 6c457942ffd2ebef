package cluster

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"rangefinder/rib"
)

// A pull is one exchange over a stream: a question and an answer, each "RFP1", a length (2 bytes, big endian) and a head in JSON of
// at most 4 KiB. A head that announces a table is followed by it, in EncodeOwnership's form.
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
}

type pullAnswer struct {
	ClusterID  string    `json:"cluster_id"`
	Epoch      rib.Epoch `json:"epoch"`
	Size       int       `json:"size"`              // bytes of the table that follows; 0: the other side has nothing newer
	Refused    string    `json:"refused,omitempty"` // why there is no answer
	Leader     string    `json:"leader,omitempty"`  // as known there
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
	case o.Epoch.Compare(q.Have) > 0:
		var err error
		if table, err = l.encodedFor(o); err != nil {
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
// ErrCorrupt, ErrPullVersion, ErrPullTooLarge, and those of the stream.
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
	o, err := l.pull(ctx, conn)
	if err != nil {
		return false, err
	}
	if o == nil || !l.publish(o) {
		l.stats.pullsCurrent.Add(1)
		return false, nil
	}
	l.stats.pullsApplied.Add(1)
	if err := l.saveNow(); err != nil {
		return true, fmt.Errorf("keep the pulled table on disk: %w", err)
	}
	return true, nil
}

// pull returns the other side's table, nil if it is not newer.
func (l *Ledger) pull(ctx context.Context, conn net.Conn) (*rib.Ownership, error) {
	more := func() error {
		// In this order: a cancellation after the check finds this deadline set, and overrides it.
		if err := conn.SetDeadline(time.Now().Add(pullPause)); err != nil {
			return err
		}
		return ctx.Err()
	}
	if err := more(); err != nil {
		return nil, err
	}
	have := l.cfg.Owners.Get().Epoch
	if err := writeHead(conn, pullQuestion{Node: l.cfg.Node, ClusterID: l.ClusterID(), Have: have}); err != nil {
		return nil, fmt.Errorf("ask for the ownership table: %w", err)
	}
	var a pullAnswer
	if err := readHead(conn, &a); err != nil {
		return nil, fmt.Errorf("pull the ownership table: %w", err)
	}
	ours := l.ClusterID()
	switch {
	case ours != "" && a.ClusterID != "" && a.ClusterID != ours:
		return nil, fmt.Errorf("pull the ownership table: %w: it belongs to %s and this node to %s", ErrOtherCluster, a.ClusterID, ours)
	case a.Refused != "":
		return nil, fmt.Errorf("pull the ownership table: refused: %s", a.Refused)
	case a.Size < 0 || a.Size > maxEncoded:
		return nil, fmt.Errorf("%w: %d bytes", ErrPullTooLarge, a.Size)
	}
	l.hear(&a)
	if a.Size == 0 {
		return nil, nil
	}
	// The memory grows with what has arrived, not with what was announced.
	var table []byte
	for len(table) < a.Size {
		if err := more(); err != nil {
			return nil, err
		}
		n := min(a.Size-len(table), max(pullChunk, len(table)))
		at := len(table)
		table = append(table, make([]byte, n)...)
		for at < len(table) {
			m, err := conn.Read(table[at:min(len(table), at+pullChunk)])
			at += m
			if err != nil {
				if errors.Is(err, io.EOF) {
					err = io.ErrUnexpectedEOF
				}
				return nil, fmt.Errorf("pull the ownership table: %w after %d of %d bytes", err, at, a.Size)
			}
			if err := more(); err != nil {
				return nil, err
			}
		}
	}
	o, err := DecodeOwnership(table)
	if err != nil {
		return nil, fmt.Errorf("pull the ownership table: %w", err)
	}
	for i := range o.Keyspaces {
		if err := o.Keyspaces[i].Validate(); err != nil {
			return nil, fmt.Errorf("pull the ownership table: %w: %v", ErrCorrupt, err)
		}
	}
	return o, nil
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
