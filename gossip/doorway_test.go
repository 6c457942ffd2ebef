package gossip

import (
	"net"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// talkative is a transport to which peers speak while memberlist still asks where the node is.
type talkative struct {
	memberlist.NodeAwareTransport
	packets chan *memberlist.Packet
	streams chan net.Conn
	early   []string // what was read by then
}

func (t *talkative) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	p := &memberlist.Packet{From: &net.UDPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 7946}, Timestamp: time.Now()}
	near, far := net.Pipe()
	far.Close()
	select {
	case t.packets <- p:
		t.early = append(t.early, "a packet")
	case t.streams <- near:
		t.early = append(t.early, "a stream")
	case <-time.After(time.Second):
	}
	return t.NodeAwareTransport.FinalAdvertiseAddr(ip, port)
}

func (t *talkative) PacketCh() <-chan *memberlist.Packet { return t.packets }
func (t *talkative) StreamCh() <-chan net.Conn           { return t.streams }

// TestNobodyIsHeardBeforeTheNodeKnowsItself: what peers say of a node's last life while it starts is read when it has entered itself in its list; and then it is read.
func TestNobodyIsHeardBeforeTheNodeKnowsItself(t *testing.T) {
	virtual(t, func(t *testing.T) {
		w := newWorld(t, 1)
		var tr *talkative
		w.add("iad-1", "iad", func(c *Config) {
			tr = &talkative{NodeAwareTransport: c.Transport, packets: make(chan *memberlist.Packet), streams: make(chan net.Conn)}
			c.Transport = tr
		})
		defer w.close()
		if len(tr.early) > 0 {
			t.Errorf("read before the node was known: %q", tr.early)
		}
		select {
		case tr.packets <- &memberlist.Packet{From: &net.UDPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 7946}, Timestamp: time.Now()}:
		case <-time.After(time.Second):
			t.Error("nothing is read afterwards")
		}
	})
}
