package main

import (
	"math/rand/v2"
	"slices"
	"time"
)

// The faults, by the track that they run on: on each one fault follows the other, so there are up to four at a time.
const (
	trackNetwork = "network"
	trackNode    = "node"
	trackServer  = "server"
	trackClock   = "clock"

	chaosCut      = "region_cut"       // nothing goes into a region or out of it
	chaosUnplug   = "region_unplugged" // its cable is out: the kernel knows
	chaosOneWay   = "one_way"          // from one region to another nothing goes, back it does
	chaosFlap     = "flapping"         // a region is cut and healed all the time
	chaosLoss     = "loss_25"          // of all that goes in and out of a region, a quarter
	chaosFreeze   = "node_stop"        // SIGSTOP, and later SIGCONT
	chaosKill     = "node_kill"        // SIGKILL, and a new start
	chaosHalf     = "half_killed"      // half of all nodes at once
	chaosReplica  = "replica_kill"     // and a new start
	chaosStill    = "replica_stop"     // SIGSTOP, and later SIGCONT
	chaosCrash    = "primary_crash"    // SIGKILL, and a new start as the primary that it was
	chaosStall    = "primary_stop"     // SIGSTOP, and later SIGCONT; nobody is promoted
	chaosPromote  = "primary_kill"     // SIGKILL, promotion of the most advanced replica; the old one becomes a replica later
	chaosTwoHeads = "primary_cut"      // its region is cut, a replica is promoted, and the old primary goes on for a while

	chaosNodeClock   = "node_clock"   // a node's wall clock is set an hour ahead or behind, and later right again
	chaosServerClock = "server_clock" // a server's is
)

var chaosTracks = []struct {
	name  string
	kinds []string
}{
	{trackNetwork, []string{chaosCut, chaosUnplug, chaosOneWay, chaosFlap, chaosLoss}},
	{trackNode, []string{chaosFreeze, chaosKill, chaosHalf}},
	{trackServer, []string{chaosReplica, chaosStill, chaosCrash, chaosStall, chaosPromote, chaosTwoHeads}},
	{trackClock, []string{chaosNodeClock, chaosServerClock}},
}

// plannedFault is one line of the schedule. It begins at its time or, if the fault before it on its track takes longer than planned,
// once that is over.
type plannedFault struct {
	at   time.Duration // since the start
	hold time.Duration // until it is healed
	kind string
	dice [3]uint32 // who is meant
}

// chaosPlan is the schedule of a seed, by track. Each kind comes once before any comes twice.
func chaosPlan(seed uint64, length time.Duration) map[string][]plannedFault {
	plan := map[string][]plannedFault{}
	for i, track := range chaosTracks {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		span := func(from, to float64) time.Duration {
			return time.Duration((from + rng.Float64()*(to-from)) * float64(time.Second)).Round(100 * time.Millisecond)
		}
		longest := min(12, length.Seconds()/5)
		var bag []string
		for at := span(1, 3); ; {
			if len(bag) == 0 {
				bag = slices.Clone(track.kinds)
				rng.Shuffle(len(bag), func(i, j int) { bag[i], bag[j] = bag[j], bag[i] })
			}
			p := plannedFault{at: at, hold: span(longest/4, longest), kind: bag[0], dice: [3]uint32{rng.Uint32N(1000), rng.Uint32N(1000), rng.Uint32N(1000)}}
			if bag = bag[1:]; at+p.hold > length {
				break
			}
			plan[track.name] = append(plan[track.name], p)
			at += p.hold + span(1, longest/2+1)
		}
	}
	return plan
}
