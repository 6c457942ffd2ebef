package gossip

import (
	"net"

	"github.com/hashicorp/memberlist"
)

// doorway keeps what comes in waiting until memberlist.Create has returned. It reads before that, and then makes the node known to itself in two steps: if
// somebody's word of this node's last life comes between them, it takes its own for an old one, holds the node for dead, and removes it from its own
// list a moment later; and whoever asks for the local node is answered by a panic (memberlist 0.7.0, setAlive).
type doorway struct {
	memberlist.NodeAwareTransport
	open chan struct{} // closed when the node is known
}

// PacketCh implements memberlist.Transport.
func (d *doorway) PacketCh() <-chan *memberlist.Packet {
	<-d.open
	return d.NodeAwareTransport.PacketCh()
}

// StreamCh implements memberlist.Transport.
func (d *doorway) StreamCh() <-chan net.Conn {
	<-d.open
	return d.NodeAwareTransport.StreamCh()
}
