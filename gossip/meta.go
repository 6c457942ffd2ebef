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
// cluster id, incarnation at its start, name, region. Fields may be appended without a new version.

func appendMeta(dst []byte, m *rib.Member, cluster id) []byte {
	dst = append(dst, metaVersion)
	dst = binary.BigEndian.AppendUint64(dst, uint64(cluster))
	dst = binary.AppendUvarint(dst, uint64(m.Incarnation))
	dst = appendString(dst, m.Name)
	return appendString(dst, m.Region)
}

// memberOf reads a node's metadata and refuses whoever is not of this cluster.
func memberOf(n *memberlist.Node, cluster id) (rib.Member, error) {
	d := decoder{buf: n.Meta}
	if v := d.byte(); v != metaVersion {
		return rib.Member{}, fmt.Errorf("gossip: node %q has metadata of version %d, want %d", n.Name, v, metaVersion)
	}
	theirs := d.id()
	m := rib.Member{Incarnation: uint32(d.uvarint(maxIncarnation))}
	m.Name, m.Region = d.name(), d.name()
	switch {
	case d.failed:
		return m, fmt.Errorf("gossip: node %q: %w", n.Name, errMalformed)
	case theirs != cluster:
		return m, fmt.Errorf("gossip: node %q at %s: %w", n.Name, n.Address(), ErrStranger)
	case m.Name != n.Name:
		return m, fmt.Errorf("gossip: node %q calls itself %q in its metadata", n.Name, m.Name)
	}
	m.Addr = net.JoinHostPort(n.Addr.String(), strconv.Itoa(int(n.Port)))
	return m, nil
}

// ErrStranger is the reason why a node of another cluster is refused.
var ErrStranger = errors.New("it belongs to another cluster")
