package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/hashicorp/memberlist"

	"rangefinder/rib"
)

const metaVersion = 1

// A node's metadata is its identity alone, since changing it at runtime races with memberlist: version, hash of the
// cluster id, incarnation at its start, name, region, newest level that it reads (left out: the first). Fields
// may be appended without a new version.

func appendMeta(dst []byte, m *rib.Member, cluster id, reads byte) []byte {
	dst = append(dst, metaVersion)
	dst = binary.BigEndian.AppendUint64(dst, uint64(cluster))
	dst = binary.AppendUvarint(dst, uint64(m.Incarnation))
	dst = appendString(dst, m.Name)
	dst = appendString(dst, m.Region)
	if reads > 1 {
		dst = append(dst, reads)
	}
	return dst
}

// memberOf reads a node's metadata and refuses whoever is not of this cluster.
func memberOf(n *memberlist.Node, cluster id) (m rib.Member, reads byte, err error) {
	d := decoder{buf: n.Meta}
	if v := d.byte(); v != metaVersion {
		return m, 0, fmt.Errorf("gossip: node %q has metadata of version %d, want %d", n.Name, v, metaVersion)
	}
	theirs := d.id()
	m.Incarnation = uint32(d.uvarint(maxIncarnation))
	m.Name, m.Region = d.name(), d.name()
	switch {
	case d.failed:
		return m, 0, fmt.Errorf("gossip: node %q: %w", n.Name, errMalformed)
	case theirs != cluster:
		return m, 0, fmt.Errorf("gossip: node %q at %s: %w", n.Name, n.Address(), ErrStranger)
	case m.Name != n.Name:
		return m, 0, fmt.Errorf("gossip: node %q calls itself %q in its metadata", n.Name, m.Name)
	}
	m.Addr = net.JoinHostPort(n.Addr.String(), strconv.Itoa(int(n.Port)))
	if reads = 1; len(d.buf) > 0 {
		reads = max(d.byte(), 1)
	}
	return m, reads, nil
}

// ErrStranger is the reason why a node of another cluster is refused.
var ErrStranger = errors.New("it belongs to another cluster")
