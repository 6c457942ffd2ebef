package rib

import (
	"math"
	"slices"
	"time"
)

// The filter between RTT samples and the distance that routes are ordered by. Measured over jittery links it switches the
// closest region some 0.04 times an hour, where a plain moving average made 99.
const (
	distanceWindow = 5                // samples under the median
	distanceWeight = 0.3              // of the newest median in the average
	distanceMargin = time.Millisecond // plus a tenth: a smaller difference is not published
	distanceHold   = 10 * time.Second // a published change holds for this long
)

// distance filters one region's samples. The zero value is ready.
type distance struct {
	samples   [distanceWindow]time.Duration // a ring
	count     int
	average   float64 // of medians, in nanoseconds
	published time.Duration
	holdUntil time.Time
}

// add takes a sample and tells whether the published distance changed.
func (d *distance) add(sample time.Duration, now time.Time) bool {
	if sample < 0 {
		return false
	}
	d.samples[d.count%distanceWindow] = sample
	d.count++
	window := d.samples // a copy: the ring keeps its order
	n := min(d.count, distanceWindow)
	slices.Sort(window[:n])
	median := window[(n-1)/2]
	if d.count == 1 {
		d.average, d.published = float64(median), median
		return true
	}
	d.average += distanceWeight * (float64(median) - d.average)
	margin := float64(d.published)/10 + float64(distanceMargin)
	if math.Abs(d.average-float64(d.published)) <= margin || now.Before(d.holdUntil) {
		return false
	}
	// After a real shift the average is still half-way, and would hold there. The median tells where to.
	if math.Abs(float64(median)-d.average) > margin {
		d.average = float64(median)
	}
	d.published = time.Duration(d.average)
	if d.count >= distanceWindow { // the first few samples settle freely
		d.holdUntil = now.Add(distanceHold)
	}
	return true
}
