package fib

// nodeWidth is how many numbers one node of the tree holds: two cache lines.
const nodeWidth = 16

// newTree builds the inner levels over the leaves, root first. The leaves are the starts in groups of nodeWidth. Number i of
// an inner node is the first leaf number under its child i+1; child c of node k is node k*(nodeWidth+1)+c one level down.
// So the tree needs no pointers, and all levels but the last few stay in the processor's cache.
//
// starts has room for a whole last node behind it, filled with the largest number.
func newTree(starts []uint64) (levels [][]uint64) {
	firsts := make([]uint64, 0, len(starts)/nodeWidth+1) // of each node one level down: the first number under it
	for i := 0; i < len(starts); i += nodeWidth {
		firsts = append(firsts, starts[i])
	}
	for len(firsts) > 1 {
		var level, above []uint64
		for i := 0; i < len(firsts); i += nodeWidth + 1 {
			children := firsts[i:min(i+nodeWidth+1, len(firsts))]
			above = append(above, children[0])
			level = append(level, children[1:]...)
			for len(level) < len(above)*nodeWidth {
				level = append(level, ^uint64(0))
			}
		}
		levels = append([][]uint64{level}, levels...)
		firsts = above
	}
	return levels
}

// countTree is how many starts are at or before the number.
func countTree(levels [][]uint64, starts []uint64, number uint64) int {
	if number == ^uint64(0) {
		return len(starts) // it would count the padding
	}
	node := 0
	for _, level := range levels {
		node = node*(nodeWidth+1) + countNode((*[nodeWidth]uint64)(level[node*nodeWidth:]), number)
	}
	leaf := starts[node*nodeWidth : node*nodeWidth+nodeWidth : cap(starts)]
	return node*nodeWidth + countNode((*[nodeWidth]uint64)(leaf), number)
}

// countNode counts without a branch. It is written out, since the compiler does not unroll, in four sums that do not wait
// for each other.
func countNode(n *[nodeWidth]uint64, number uint64) int {
	a, b, c, d := uint64(nodeWidth), uint64(0), uint64(0), uint64(0)
	a = lessIfAfter(a, n[0], number)
	b = lessIfAfter(b, n[1], number)
	c = lessIfAfter(c, n[2], number)
	d = lessIfAfter(d, n[3], number)
	a = lessIfAfter(a, n[4], number)
	b = lessIfAfter(b, n[5], number)
	c = lessIfAfter(c, n[6], number)
	d = lessIfAfter(d, n[7], number)
	a = lessIfAfter(a, n[8], number)
	b = lessIfAfter(b, n[9], number)
	c = lessIfAfter(c, n[10], number)
	d = lessIfAfter(d, n[11], number)
	a = lessIfAfter(a, n[12], number)
	b = lessIfAfter(b, n[13], number)
	c = lessIfAfter(c, n[14], number)
	d = lessIfAfter(d, n[15], number)
	return int(a + b + c + d)
}
