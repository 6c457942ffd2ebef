package demo

import (
	"fmt"
	"net/netip"
	"time"

	"rangefinder/internal/lab"
)

// region is one datacenter of the demo: a loopback network of its own.
type region struct {
	name   string
	number int // third byte of its addresses
}

var regions = [...]region{{"iad", 1}, {"fra", 2}, {"syd", 3}} // read only

// node is the address of the region's node.
func (r region) node() string { return fmt.Sprintf("127.0.%d.1", r.number) }

// server is the address of the region's copy of a shard (from 1).
func (r region) server(shard int) string { return fmt.Sprintf("127.0.%d.%d", r.number, 10+shard) }

// net is the region's network.
func (r region) net() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{127, 0, byte(r.number), 0}), 24)
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

// delays are what stands between a region and the others.
func (r region) delays() (rules lab.Rules) {
	for _, other := range regions {
		if d := rtt(r, other); d > 0 {
			rules = append(rules, lab.Rule{Net: other.net(), RTT: d})
		}
	}
	return rules
}

// shards is how many there are. The primary of shard_1 is in the first region, and so on.
const shards = len(regions)

func shardName(shard int) string { return fmt.Sprintf("shard_%d", shard) }

// home is the region of a shard's primary.
func home(shard int) region { return regions[shard-1] }
