package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"rangefinder/cluster"
	"rangefinder/internal/lab"
	"rangefinder/node/port"
	"rangefinder/rib"
)

const (
	joinFirstWait  = 200 * time.Millisecond // between two rounds of asking; doubles
	joinMaxWait    = 5 * time.Second
	joinRounds     = 3               // after which a refusal by everybody is final
	votersTimeout  = 2 * time.Second // for the leader to say who the voters are; whoever says hello waits for it
	rejoinPatience = 3 * time.Second // a restart asks its join list for this long, only to notice a stranger's cluster
)

// openPort listens for other nodes and answers their hellos.
func (n *Node) openPort(context.Context) error {
	p, err := port.Listen(n.portConfig())
	if err != nil {
		return portTaken("cluster", "ports.cluster", err)
	}
	n.parts.port.Store(p)
	n.opened("cluster port", p.Close)
	hellos := p.Listener(port.KindHello)
	n.wg.Go(func() {
		if err := p.ServeHello(hellos, n.answerHello); err != nil {
			n.log.Warn("hellos are not answered any more", "error", err)
		}
	})
	return nil
}

func (n *Node) answerHello(h port.Hello) port.HelloReply {
	reply := port.AnswerHello(n.hello(), h)
	if reply.Accepted && h.ClusterID == "" {
		n.refuseTakenName(h.Name, &reply)
	}
	if !reply.Accepted && !reply.Retry {
		n.log.Warn("a node was not let in", "node", h.Name, "region", h.Region, "reason", reply.Reason)
	}
	return reply
}

// refuseTakenName turns away a newcomer under the name of somebody who is known here. Under a voter's name it would vote with an
// empty log, and what the ledger had agreed on could be lost.
func (n *Node) refuseTakenName(name string, reply *port.HelloReply) {
	if !n.whole.Load() {
		reply.Accepted, reply.Retry, reply.Reason = false, true, "this node is starting itself"
		return
	}
	if err := n.hearVoters(); err != nil {
		reply.Accepted, reply.Retry = false, true
		reply.Reason = fmt.Sprintf("this node is no voter of the ledger, and cannot learn now whether a voter is named %q: %v", name, err)
		return
	}
	if slices.ContainsFunc(n.ledger().Voters(), func(v cluster.Voter) bool { return v.Name == name }) {
		reply.Accepted = false
		reply.Reason = fmt.Sprintf("the voter %q of this cluster's ledger has a data_dir, and this node comes with an empty one: start it with the old data_dir, or under another name", name)
		return
	}
	for _, m := range n.speaker().Members() {
		if m.Name == name {
			reply.Accepted = false
			reply.Reason = fmt.Sprintf("a node named %q lives at %s: every node needs a name of its own", name, m.Addr)
		}
	}
}

// hearVoters has a node that is no voter hear from the leader who the voters are: it has heard nothing since the table last changed, and who became a voter changes none.
func (n *Node) hearVoters() error {
	if !n.ledger().Follows() {
		return nil
	}
	leader, addr := n.ledger().Leader()
	if addr == "" {
		return errors.New("no leader is known")
	}
	ctx, cancel := context.WithTimeout(n.ctx, votersTimeout)
	defer cancel()
	asked := time.Now()
	if err := n.pull(ctx, addr); err != nil {
		return fmt.Errorf("%s does not answer: %w", leader, err)
	}
	if n.ledger().VotersTold().Before(asked) {
		return fmt.Errorf("%s does not lead any more", leader)
	}
	return nil
}

// hello is how this node introduces itself.
func (n *Node) hello() port.Hello {
	h := port.Hello{Version: port.HelloVersion, Name: n.state.Node, Region: n.cfg().Region}
	if id := n.clusterID.Load(); id != nil {
		h.ClusterID = *id
	}
	return h
}

// join decides which cluster this node belongs to. The state on disk says it; else the nodes named by --join say it; else
// this is the first node and makes one up. Only the first start of a node without --join ever does that.
func (n *Node) join(ctx context.Context) error {
	seeds := n.joinList()
	switch {
	case n.state.ClusterID != "":
		return n.checkSeeds(ctx, seeds)
	case len(n.cfg().Join) > 0 && len(seeds) == 0:
		return &Failure{
			Message: "join names this node alone",
			Hint:    "Name another node of the cluster, or start the very first one without --join.",
		}
	case len(seeds) > 0:
		id, err := n.learnCluster(ctx, seeds)
		if err != nil {
			return err
		}
		return n.settle(id, false)
	}
	id := newClusterID()
	n.log.Info("first node of a new cluster", "cluster", id, "hint", "start the others with --join "+n.port().Addr())
	return n.settle(id, true)
}

// settle writes the cluster's id to disk before anything is done in its name.
func (n *Node) settle(id string, bootstrap bool) error {
	err := n.change(func(s *State) { s.ClusterID, s.Bootstrap, s.Peers = id, bootstrap, n.joinList() })
	if err == nil {
		n.clusterID.Store(&id)
	}
	return err
}

// joinList is the configuration's list without this node: the same file may serve all nodes.
func (n *Node) joinList() []string {
	own := []string{n.port().Addr(), n.port().BoundAddr().String()}
	return slices.DeleteFunc(slices.Clone(n.cfg().Join), func(addr string) bool { return slices.Contains(own, addr) })
}

// final reports whether asking again cannot help before somebody changes a configuration.
func final(err error) bool {
	var refused *port.RefusedError
	if errors.As(err, &refused) {
		return !refused.Reply.Retry
	}
	return errors.Is(err, port.ErrKeyMismatch) || errors.Is(err, port.ErrKeyNeeded) || errors.Is(err, port.ErrNotProtected)
}

// learnCluster asks until one of the seeds says which cluster this is. It gives up when all of them have refused three times.
func (n *Node) learnCluster(ctx context.Context, seeds []string) (id string, err error) {
	wait := joinFirstWait
	for round := 1; ; round++ {
		replies := n.askAll(ctx, seeds)
		refusals := 0
		if r := letIn(replies); r != nil {
			n.log.Info("joining", "cluster", r.reply.ClusterID, "by", r.reply.Name, "addr", r.addr)
			return r.reply.ClusterID, nil
		}
		for _, r := range replies {
			if final(r.err) {
				refusals++
			}
		}
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		if refusals == len(replies) && round >= joinRounds {
			return "", joinRefused(replies)
		}
		n.waits("joining: no answer yet from " + strings.Join(seeds, ", "))
		n.log.Warn("cannot join yet, trying on", "round", round, "next_in", wait, "error", errors.Join(errorsOf(replies)...))
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(wait):
		}
		wait = min(2*wait, joinMaxWait)
	}
}

// letIn is a reply that lets this node in; nil: there is none, or another node of the same cluster refuses it. That one may have heard more of who has this name.
func letIn(replies []helloResult) *helloResult {
	at := slices.IndexFunc(replies, func(r helloResult) bool { return r.err == nil })
	if at < 0 || slices.ContainsFunc(replies, func(r helloResult) bool { return final(r.err) && r.reply.ClusterID == replies[at].reply.ClusterID }) {
		return nil
	}
	return &replies[at]
}

// checkSeeds lets a restarted node notice that its join list leads into another cluster, or that its key is wrong there.
// That nobody answers is no reason to stop: the node serves what it last knew.
func (n *Node) checkSeeds(ctx context.Context, seeds []string) error {
	if len(seeds) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, rejoinPatience)
	defer cancel()
	replies := n.askAll(ctx, seeds)
	refusals := 0
	for _, r := range replies {
		var refused *port.RefusedError
		switch {
		case r.err == nil:
			return nil
		case errors.As(r.err, &refused) && refused.Reply.ClusterID != "" && refused.Reply.ClusterID != n.state.ClusterID, errors.Is(r.err, port.ErrKeyMismatch):
			refusals++
		default:
			n.log.Warn("a node of the join list does not answer; starting with what was last known", "addr", r.addr, "error", r.err)
		}
	}
	if refusals == len(replies) {
		return joinRefused(replies)
	}
	return nil
}

func joinRefused(replies []helloResult) error {
	f := &Failure{Message: "the cluster does not take this node in", Detail: errors.Join(errorsOf(replies)...).Error(), Err: replies[0].err}
	switch err := replies[0].err; {
	case errors.Is(err, port.ErrKeyMismatch), errors.Is(err, port.ErrKeyNeeded):
		f.Message = "the cluster key does not match"
		f.Hint = "Give every node the same key: the first one in its cluster_key_file (or --cluster-key-file) must be in the file of every other node."
	case errors.Is(err, port.ErrNotProtected):
		f.Message = "the other side has no cluster key, or is no Rangefinder"
		f.Hint = "Name a cluster port (7946 by default) in --join, and give every node the same cluster key or none."
	}
	return f
}

type helloResult struct {
	addr  string
	reply port.HelloReply
	err   error
}

func errorsOf(replies []helloResult) []error {
	var errs []error
	for _, r := range replies {
		errs = append(errs, r.err)
	}
	return errs
}

// askAll says hello to all seeds at once.
func (n *Node) askAll(ctx context.Context, seeds []string) []helloResult {
	results := make([]helloResult, len(seeds))
	var wg sync.WaitGroup
	for i, addr := range seeds {
		wg.Go(func() {
			reply, err := n.port().Hello(ctx, addr, n.hello())
			results[i] = helloResult{addr, reply, err}
		})
	}
	wg.Wait()
	return results
}

// portConfig is what the cluster port needs of the configuration.
func (n *Node) portConfig() port.Config {
	return port.Config{
		Bind: n.cfg().Bind, Port: n.cfg().Ports.Cluster, Advertise: n.cfg().Advertise,
		Key: n.setup.Load().secrets.ClusterKey, OldKeys: n.setup.Load().secrets.OtherKeys, Node: n.state.Node, Logger: n.log.With("part", "port"),
		Dial: n.dialer.DialContext,
		TCP:  n.sockets.cluster, UDP: n.sockets.packets,
		WrapPacket: func(pc net.PacketConn) net.PacketConn { return lab.WrapPacketConn(pc, n.delays) },
	}
}

// awaitOwnership holds clients back until this node knows who owns which keys, and moves wait for it (see unowned).
func (n *Node) awaitOwnership(ctx context.Context) error {
	poll, report := time.NewTicker(10*time.Millisecond), time.NewTicker(5*time.Second)
	defer poll.Stop()
	defer report.Stop()
	for said := ""; ; {
		why := n.unowned()
		switch why {
		case "":
			return nil
		case said:
		default:
			n.waits("waiting for the ledger: " + why)
			said = why
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-report.C:
			leader, _ := n.ledger().Leader()
			n.log.Warn("still waiting for the ledger: "+why, "leader", orNone(leader), "members", len(n.speaker().Members()))
		case <-poll.C:
		}
	}
}

// unowned tells why this node may not serve by the table that it routes by; "": it may. Without one it would take a sharded table for an unsharded one, and
// a wrong route is worse than an error. And the table has to name the node itself: the shard that had a range refuses writes to it until all nodes that have a number
// know who has it now, and then no more. A node without one that was cut off, and reached that shard, would go on writing there. Numbers are for ever: who had one finds it in
// any table that is not older, on its disk or at a peer, and waits for no leader.
func (n *Node) unowned() string {
	o := n.fib.Load().Ownership()
	_, numbered := o.NodeNumber(n.state.Node)
	switch {
	case o.ClusterID != n.state.ClusterID:
		return "who owns which keys is not known yet"
	case o.Admitted(n.state.Node):
		return ""
	case !numbered && len(o.Nodes) >= rib.MaxNodes:
		return fmt.Sprintf("it has no number left for this node, and without one no move would wait for it: all %d are given, each to one name for ever. %s", rib.MaxNodes, oldName)
	}
	leader, _ := n.ledger().Leader()
	switch {
	case numbered && leader == "":
		return "this node was forgotten, so that no move waits for it, and only a leader takes it back: none is known now"
	case numbered:
		return "this node was forgotten, so that no move waits for it, and has not been taken back yet by the leader, " + leader
	case leader == "":
		return "this node has no number, without which no move waits for it, and only a leader gives one: none is known now"
	}
	return "this node has no number, without which no move waits for it, and has not got one yet from the leader, " + leader
}

// oldName is how to start a node when there are no numbers left.
const oldName = "Start it with an empty data_dir and under the name of a node that is gone for good, whose number it then has (name in its configuration)."

// servePull gives this node's table to another one. A node that may not serve by it gives it to nobody: no move has waited for it, so it may be older than what
// the other one once knew, which has a number and would serve by it.
func (n *Node) servePull(conn net.Conn) error {
	if why := n.unowned(); why != "" {
		return errors.New("it is not answered: " + why)
	}
	return n.ledger().ServePull(conn)
}

// seeds are whom to ask for the cluster after a restart or a long separation.
func (n *Node) seeds() []string {
	n.mu.Lock()
	peers := slices.Clone(n.state.Peers)
	n.mu.Unlock()
	all := append(n.joinList(), peers...)
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(a string) bool { return a == n.port().Addr() })
}

// joinGossip makes the first contact. The speaker itself goes on trying the seeds when this fails.
func (n *Node) joinGossip() {
	seeds := n.seeds()
	if len(seeds) == 0 {
		return
	}
	if joined, err := n.speaker().Join(seeds); err != nil {
		n.log.Warn("nobody of the cluster answers; serving what was last known, and trying on", "asked", fmt.Sprint(seeds), "error", err)
	} else {
		n.log.Info("joined", "answered", joined)
	}
}
