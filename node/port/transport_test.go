package port

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/raft"
)

// TestMemberlist: three nodes find each other over the port, exchange user messages both by packet and by stream, and see one leave.
func TestMemberlist(t *testing.T) {
	modes(t, func(t *testing.T, key []byte) {
		var ports []*Port
		var lists []*memberlist.Memberlist
		var heard [3]delegate
		for i := range 3 {
			p := open(t, Config{Key: key, Node: fmt.Sprint("n", i)})
			cfg := memberlist.DefaultLANConfig()
			cfg.Name, cfg.Transport, cfg.SecretKey, cfg.Delegate = fmt.Sprint("n", i), p.Gossip(), KeyFor(key, PurposeGossip), &heard[i]
			cfg.Logger = log.New(io.Discard, "", 0)
			cfg.Label = "c1"
			m, err := memberlist.Create(cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := m.Shutdown(); err != nil {
					t.Error(err)
				}
			})
			ports, lists = append(ports, p), append(lists, m)
		}
		for _, m := range lists[1:] {
			if n, err := m.Join([]string{ports[0].Addr()}); err != nil || n != 1 {
				t.Fatal(n, err)
			}
		}
		until(t, "all know all", func() bool {
			return lists[0].NumMembers() == 3 && lists[1].NumMembers() == 3 && lists[2].NumMembers() == 3
		})
		for _, n := range lists[0].Members() {
			if n.Name == "n2" {
				if err := errors.Join(lists[0].SendBestEffort(n, []byte("packet")), lists[0].SendReliable(n, []byte("stream"))); err != nil {
					t.Fatal(err)
				}
				if n.Address() != ports[2].Addr() {
					t.Errorf("n2 is known at %s", n.Address())
				}
			}
		}
		until(t, "both messages came", func() bool { return heard[2].count.Load() == 2 })
		if err := lists[1].Leave(5 * time.Second); err != nil {
			t.Fatal(err)
		}
		until(t, "it is seen to leave", func() bool { return lists[0].NumMembers() == 2 && lists[2].NumMembers() == 2 })
		if s := ports[0].Stats(); s.PacketsIn == 0 || s.PacketsOut == 0 {
			t.Errorf("%+v", s)
		}
		// Gossip ends and the rest of the port goes on.
		if err := lists[1].Shutdown(); err != nil {
			t.Fatal(err)
		}
		echo(t, ports[1], KindPull)
		c, err := ports[0].Dial(within(t, 10*time.Second), KindPull, ports[1].Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		says(t, c, "hello")
	})
}

// TestGossipStrangers: a node with another key does not get in, by stream nor by packet.
func TestGossipStrangers(t *testing.T) {
	join := func(key []byte, name string) (*Port, *memberlist.Memberlist) {
		p := open(t, Config{Key: key, Node: name})
		cfg := memberlist.DefaultLANConfig()
		cfg.Name, cfg.Transport, cfg.SecretKey, cfg.Logger = name, p.Gossip(), KeyFor(key, PurposeGossip), log.New(io.Discard, "", 0)
		m, err := memberlist.Create(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Shutdown() })
		return p, m
	}
	p, a := join(testKey('a'), "a")
	_, b := join(testKey('b'), "b")
	if _, err := b.Join([]string{p.Addr()}); err == nil {
		t.Error("it joined")
	}
	noise, err := net.Dial("udp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer noise.Close()
	for i := range 20 {
		noise.Write([]byte{byte(i), 1, 2, 3})
	}
	until(t, "the noise arrived", func() bool { return p.Stats().PacketsIn >= 20 })
	if a.NumMembers() != 1 || b.NumMembers() != 1 {
		t.Error("somebody was let in")
	}
}

// TestPacketHook: a laboratory can put itself between gossip and the socket.
func TestPacketHook(t *testing.T) {
	var sent atomic.Int64
	hook := func(c net.PacketConn) net.PacketConn { return countingConn{c, &sent} }
	p := open(t, Config{WrapPacket: hook})
	g := p.Gossip()
	if _, err := g.WriteTo([]byte("to myself"), p.Addr()); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-g.PacketCh():
		if string(got.Buf) != "to myself" || got.From.String() != p.Addr() || time.Since(got.Timestamp) > time.Minute {
			t.Errorf("%+v", got)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it did not arrive")
	}
	if sent.Load() != 1 {
		t.Errorf("the hook saw %d packets", sent.Load())
	}
	if ip, n, err := g.FinalAdvertiseAddr("", 0); err != nil || net.JoinHostPort(ip.String(), fmt.Sprint(n)) != p.Addr() {
		t.Errorf("%v, %d, %v", ip, n, err)
	}
	if err := errors.Join(g.Shutdown(), g.Shutdown()); err != nil {
		t.Error(err)
	}
}

type countingConn struct {
	net.PacketConn
	sent *atomic.Int64
}

func (c countingConn) WriteTo(b []byte, to net.Addr) (int, error) {
	c.sent.Add(1)
	return c.PacketConn.WriteTo(b, to)
}

type delegate struct{ count atomic.Int64 }

func (d *delegate) NodeMeta(int) []byte             { return nil }
func (d *delegate) NotifyMsg([]byte)                { d.count.Add(1) }
func (d *delegate) GetBroadcasts(int, int) [][]byte { return nil }
func (d *delegate) LocalState(bool) []byte          { return nil }
func (d *delegate) MergeRemoteState([]byte, bool)   {}

// TestRaft: three voters elect a leader and commit over the port.
func TestRaft(t *testing.T) {
	modes(t, func(t *testing.T, key []byte) {
		var rafts []*raft.Raft
		var fsms []*raft.MockFSM
		var all raft.Configuration
		for i := range 3 {
			p := open(t, Config{Key: key, Node: fmt.Sprint("n", i)})
			layer := p.Raft()
			logger := hclog.New(&hclog.LoggerOptions{Output: io.Discard})
			trans := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{Stream: layer, MaxPool: 2, Timeout: 5 * time.Second, Logger: logger})
			if string(trans.LocalAddr()) != p.Addr() {
				t.Fatalf("raft is at %s, the port at %s", trans.LocalAddr(), p.Addr())
			}
			cfg := raft.DefaultConfig()
			cfg.LocalID, cfg.Logger = raft.ServerID(fmt.Sprint("n", i)), logger
			store, fsm := raft.NewInmemStore(), &raft.MockFSM{}
			r, err := raft.NewRaft(cfg, fsm, store, store, raft.NewInmemSnapshotStore(), trans)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := errors.Join(r.Shutdown().Error(), trans.Close(), p.Close()); err != nil {
					t.Error(err)
				}
			})
			all.Servers = append(all.Servers, raft.Server{ID: cfg.LocalID, Address: trans.LocalAddr()})
			rafts, fsms = append(rafts, r), append(fsms, fsm)
		}
		if err := rafts[0].BootstrapCluster(all).Error(); err != nil {
			t.Fatal(err)
		}
		until(t, "a leader commits", func() bool {
			for _, r := range rafts { // on a busy machine the leadership may change under us
				if r.State() == raft.Leader && r.Apply([]byte("command"), 10*time.Second).Error() == nil {
					return true
				}
			}
			return false
		})
		until(t, "all applied it", func() bool {
			for _, f := range fsms {
				if len(f.Logs()) == 0 {
					return false
				}
			}
			return true
		})
	})
}

// TestDialHook: every stream goes through it.
func TestDialHook(t *testing.T) {
	var mu sync.Mutex
	var dialed []string
	b := open(t, Config{})
	echo(t, b, KindAPI)
	a := open(t, Config{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		mu.Lock()
		dialed = append(dialed, network+" "+addr)
		mu.Unlock()
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}})
	c, err := a.Dial(within(t, 10*time.Second), KindAPI, b.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	says(t, c, "x")
	if len(dialed) != 1 || dialed[0] != "tcp "+b.Addr() {
		t.Errorf("%v", dialed)
	}
}
