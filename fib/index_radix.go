package fib

import "math/bits"

// maxRun is the most starts that one bucket of the radix table may hold: they are compared one by one.
const maxRun = 12

// radix says for the leading bits of a number where among the starts to begin counting.
type radix struct {
	low, high uint64   // the first and the last start
	shift     uint8    // of a number less low, to its bucket
	run       int      // the most starts in one bucket
	first     []uint32 // by bucket: how many starts lie before it
}

// build fills the table; false if the starts are too uneven for it. starts has at least maxRun of padding behind it.
func (r *radix) build(starts []uint64) bool {
	n := len(starts)
	if n == 0 {
		return false
	}
	r.low, r.high = starts[0], starts[n-1]
	// Half a bucket to two a start. More would save comparisons, but they come out of one cache line and a larger table
	// would not.
	r.shift = uint8(max(0, bits.Len64(r.high-r.low)-bits.Len(uint(n))))
	r.first = make([]uint32, (r.high-r.low)>>r.shift+1)
	run, bucket := 0, uint64(0)
	for i, s := range starts {
		b := (s - r.low) >> r.shift
		if b != bucket || i == 0 {
			for bucket++; bucket <= b; bucket++ {
				r.first[bucket] = uint32(i)
			}
			bucket, run = b, 0
		}
		if run++; run > maxRun {
			r.first = nil
			return false
		}
		r.run = max(r.run, run)
	}
	return true
}

// countFrom is how many starts are at or before the number, of which the bucket says that first of them are. The comparisons
// run past the bucket's end into starts that are larger in any case: their number is fixed, so that the processor can
// foresee it.
func (r *radix) countFrom(starts []uint64, first int, number uint64) int {
	count := uint64(first + r.run)
	for _, s := range starts[first : first+r.run : cap(starts)] {
		count = lessIfAfter(count, s, number)
	}
	return int(count)
}

// lessIfAfter is sum-1 if start > number, else sum: two instructions, where an if would be compiled to a branch that every
// second key mispredicts.
func lessIfAfter(sum, start, number uint64) uint64 {
	_, after := bits.Sub64(number, start, 0)
	sum, _ = bits.Sub64(sum, 0, after)
	return sum
}
