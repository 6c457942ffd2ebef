package main

import (
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"rangefinder/gossip/memnet"
)

// bare is a node of memberlist alone, as its defaults have it: a piece of news is a message in its queue.
type bare struct {
	// constant
	list  *memberlist.Memberlist
	queue *memberlist.TransmitLimitedQueue

	// atomic
	newest atomic.Int64 // the last piece of news heard
}

// measureMemberlist runs in a bubble.
func (c *converge) measureMemberlist(name string, wide bool, r *report) error {
	net := memnet.New(c.seed)
	net.Spread()
	regions := memnet.Regions()
	nodes := make([]*bare, 0, c.nodes)
	defer func() {
		for _, n := range nodes {
			_ = n.list.Shutdown()
		}
		net.Close()
		time.Sleep(time.Minute)
	}()
	net.SetSilent(true) // they meet over streams; that they tell everybody of everybody, too, has cost and no use here
	for i := range c.nodes {
		time.Sleep(rand.N(2 * startTime / time.Duration(c.nodes)))
		n, err := openBare(net.Host(fmt.Sprintf("n-%d", i), regions[i%len(regions)]), c.nodes, wide)
		if err != nil {
			return err
		}
		nodes = append(nodes, n)
	}
	err := introduce(len(nodes), func(i, to int) error {
		_, err := nodes[i].list.Join([]string{net.Host(fmt.Sprintf("n-%d", to), "").Addr(gossipPort)})
		return err
	})
	if err != nil {
		return err
	}
	err = await("know all others", func() bool {
		return !slices.ContainsFunc(nodes, func(n *bare) bool { return n.list.NumMembers() != c.nodes })
	})
	if err != nil {
		return err
	}
	packets := 15.0 // a second and node: 3 each 200 ms
	if wide {
		packets = 8
	}
	time.Sleep(drained(c.nodes, packets))
	net.SetSilent(false)
	time.Sleep(5 * time.Second)
	net.SetLoss(memnet.Everyone, memnet.Everyone, c.loss)
	for i := range c.flips {
		time.Sleep(leastPause + rand.N(mostPause-leastPause))
		news := int64(i + 1)
		from := nodes[rand.IntN(len(nodes))]
		from.newest.Store(news)
		from.queue.QueueBroadcast(bareNews{byte(news)})
		r.rest.await(len(nodes), func(i int) bool { return nodes[i].newest.Load() >= news }, func(int) {})
	}
	c.step("%s: %d pieces of news", name, c.flips)
	return nil
}

func openBare(host *memnet.Host, nodes int, wide bool) (*bare, error) {
	tr, err := host.Transport(gossipPort)
	if err != nil {
		return nil, err
	}
	cfg := memberlist.DefaultLANConfig()
	if wide {
		cfg = memberlist.DefaultWANConfig()
	}
	n := new(bare)
	cfg.Name, cfg.Transport, cfg.Delegate, cfg.Logger = host.Name(), tr, n, log.New(io.Discard, "", 0)
	cfg.EnableCompression = false // it costs this machine and changes nothing
	n.queue = &memberlist.TransmitLimitedQueue{RetransmitMult: cfg.RetransmitMult, NumNodes: func() int { return nodes }}
	n.list, err = memberlist.Create(cfg)
	return n, err
}

// bareNews is as large as one of our observations.
type bareNews [25]byte

func (b bareNews) Invalidates(memberlist.Broadcast) bool { return false }
func (b bareNews) Message() []byte                       { return b[:] }
func (b bareNews) Finished()                             {}

// NodeMeta and the others implement memberlist.Delegate.
func (n *bare) NodeMeta(int) []byte                    { return nil }
func (n *bare) LocalState(bool) []byte                 { return nil }
func (n *bare) MergeRemoteState([]byte, bool)          {}
func (n *bare) GetBroadcasts(over, limit int) [][]byte { return n.queue.GetBroadcasts(over, limit) }

// NotifyMsg tells news on when it is new, as every user of memberlist does.
func (n *bare) NotifyMsg(b []byte) {
	if len(b) == 0 || int64(b[0]) <= n.newest.Load() {
		return
	}
	n.newest.Store(int64(b[0]))
	var copied bareNews
	copy(copied[:], b)
	n.queue.QueueBroadcast(copied)
}
