package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"rangefinder/rib"
)

// CreateKeyspace adds a keyspace to the ledger and returns it with its id and epochs. It works on the leader alone. Errors:
// *RejectedError (nothing changed), *NotLeaderError (nothing was done), ErrTooBusy, *OutcomeUnknownError. The caller has checked
// the tables with CheckKeyspace. When it returns without error, this node serves the keyspace.
func (l *Ledger) CreateKeyspace(ctx context.Context, spec KeyspaceSpec) (*rib.Keyspace, error) {
	ks, err := spec.Keyspace()
	if err != nil {
		return nil, err
	}
	if err := listedElsewhere(l.cfg.Owners.Get(), ks); err != nil {
		return nil, err
	}
	encoded, err := encodeKeyspace(ks)
	if err != nil {
		return nil, err
	}
	if spec.RequestID == "" {
		spec.RequestID = rand.Text()
	}
	r, err := l.propose(ctx, &command{Kind: keyspaceKind(ks), Request: spec.RequestID, Created: encoded, By: l.sign(spec.Origin)})
	if err != nil {
		return nil, err
	}
	if r.keyspace == nil {
		return nil, reject(ErrRequestReused, "request id %q belongs to a command that made no keyspace: use a new one", spec.RequestID)
	}
	return r.keyspace, nil
}

// RecordShard records which PostgreSQL cluster (by its system identifier) a shard is. The first one wins; saying the same again
// succeeds. It works on the leader alone; errors are as for CreateKeyspace.
func (l *Ledger) RecordShard(ctx context.Context, name string, systemID uint64) error {
	if l.isRecorded(name, systemID) {
		return nil // every node asks for every backend: do not fill the log with it
	}
	_, err := l.propose(ctx, &command{Kind: kindShard, Request: rand.Text(), Shard: &shardCommand{Name: name, SystemID: systemID}, By: l.sign(Origin{})})
	return err
}

// NumberNode gives a node a number that no other one ever has, if it has none yet; one that was forgotten is back. It works on the leader alone; errors are as for
// CreateKeyspace.
func (l *Ledger) NumberNode(ctx context.Context, name string) error {
	o := l.cfg.Owners.Get()
	if o.Admitted(name) {
		return nil
	}
	if _, was := o.NodeNumber(name); !was { // what would be refused again and again does not go into the log
		if err := newNumber(o, name); err != nil {
			return err
		}
	}
	_, err := l.propose(ctx, &command{Kind: kindNode, Request: rand.Text(), Node: name, By: l.sign(Origin{})})
	return err
}

func (l *Ledger) isRecorded(name string, systemID uint64) bool {
	for _, s := range l.cfg.Owners.Get().Shards {
		if s.Name == name && s.SystemID == systemID {
			return true
		}
	}
	return false
}

// sign says who wants a command, and that it is now. Before the chain begins there may be nodes that do not know of signatures: nil.
func (l *Ledger) sign(o Origin) *signature {
	if len(l.cfg.Owners.Get().Links) == 0 {
		return nil
	}
	return &signature{Author: o.Author, Reason: o.Reason, At: wholeMillis(time.Now())}
}

// propose puts a command into the log and waits for what it came to, but not past ctx nor the longest time for a command.
func (l *Ledger) propose(ctx context.Context, c *command) (result, error) {
	select {
	case <-l.opened:
	default:
		return result{}, ErrNotOpen
	}
	data, err := c.encode()
	if err != nil {
		return result{}, err
	}
	if err := l.leads(); err != nil {
		return result{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeouts.Command)
	defer cancel()
	deadline, _ := ctx.Deadline()
	left := time.Until(deadline)
	if left <= 0 {
		return result{}, context.Cause(ctx) // nothing was sent yet
	}
	f := l.raft.Apply(data, left)
	if err := l.await(ctx, f); err != nil {
		return result{}, l.proposeError(c.Request, err)
	}
	r, ok := f.Response().(result)
	if !ok {
		return result{}, &OutcomeUnknownError{RequestID: c.Request, Cause: errors.New("no answer from the log")}
	}
	if r.err != nil {
		return r, r.err
	}
	if err := l.served(ctx, r.epoch); err != nil {
		return result{}, &OutcomeUnknownError{RequestID: c.Request, Cause: err}
	}
	if r.keyspace != nil {
		r.keyspace = l.cfg.Owners.Get().Keyspace(r.keyspace.ID)
	}
	return r, nil
}

// leads returns a *NotLeaderError unless this node leads.
func (l *Ledger) leads() error {
	if l.IsLeader() {
		return nil
	}
	name, addr := l.Leader()
	if name == l.cfg.Node { // elected, or deposed, a moment ago
		name, addr = "", ""
	}
	return &NotLeaderError{Leader: name, Addr: addr}
}

// await waits for a future as long as ctx allows. Raft completes all of its futures at the latest when it is shut down, so the
// goroutine that is left behind ends.
func (l *Ledger) await(ctx context.Context, f raft.Future) error {
	completed := make(chan error, 1)
	go func() { completed <- f.Error() }()
	select {
	case err := <-completed:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// proposeError sorts Raft's errors by what the caller needs to know: whether the command may still take effect.
func (l *Ledger) proposeError(request string, err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		// Raft refused it before it reached the log.
		if again := l.leads(); again != nil {
			return again
		}
		return &NotLeaderError{}
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return ErrTooBusy
	}
	return &OutcomeUnknownError{RequestID: request, Cause: err}
}
