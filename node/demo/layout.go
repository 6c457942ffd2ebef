package demo

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"rangefinder/internal/lab"
)

// region is one datacenter of the demo.
type region struct {
	name   string
	number int
}

var regions = [...]region{{"iad", 1}, {"fra", 2}, {"syd", 3}} // read only

// network is the part of the loopback network that one demo uses: 127.slot.0.0/16, with a /24 for each region.
type network struct {
	slot  int
	claim net.Listener
}

// claimNetwork takes the first part that no other demo on this machine uses. What it holds is an abstract socket: it belongs
// to the network namespace, as the addresses do, and ends with the process.
func claimNetwork() (network, error) {
	var last error
	for slot := range 100 {
		claim, err := net.Listen("unix", fmt.Sprintf("@rangefinder-demo-127.%d", slot))
		if err == nil {
			return network{slot, claim}, nil
		}
		last = err
	}
	return network{}, fmt.Errorf("no part of the loopback network is free: %w", last)
}

func (n network) close() error { return n.claim.Close() }

// node is the address of a region's node.
func (n network) node(r region) string { return fmt.Sprintf("127.%d.%d.1", n.slot, r.number) }

// server is the address of a region's copy of a shard (from 1).
func (n network) server(r region, shard int) string {
	return fmt.Sprintf("127.%d.%d.%d", n.slot, r.number, 10+shard)
}

// prefix holds all addresses of a region.
func (n network) prefix(r region) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{127, byte(n.slot), byte(r.number), 0}), 24)
}

// delays are what stands between a region and the others.
func (n network) delays(from region) (rules lab.Rules) {
	for _, to := range regions {
		if d := rtt(from, to); d > 0 {
			rules = append(rules, lab.Rule{Net: n.prefix(to), RTT: d})
		}
	}
	return rules
}

// rtt is the round trip between two regions; within one, nothing is added.
func rtt(a, b region) time.Duration {
	switch a.number + b.number {
	case 3: // iad, fra
		return 90 * time.Millisecond
	case 4: // iad, syd
		if a != b {
			return 200 * time.Millisecond
		}
	case 5: // fra, syd
		return 280 * time.Millisecond
	}
	return 0
}

// shards is how many there are. The primary of shard_1 is in the first region, and so on.
const shards = len(regions)

func shardName(shard int) string { return fmt.Sprintf("shard_%d", shard) }

// home is the region of a shard's primary.
func home(shard int) region { return regions[shard-1] }
