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

// descend is where the leaf begins in which the number belongs. The largest number has none.
func descend(levels [][]uint64, number uint64) int {
	node := 0
	for _, level := range levels {
		node = node*(nodeWidth+1) + countNode((*[nodeWidth]uint64)(level[node*nodeWidth:]), number)
	}
	return node * nodeWidth
}

// countNode counts without a branch: first which four of the sixteen the number lies among, then how many of those. That is
// seven comparisons; all sixteen at once would end as soon, and keep the processor from what comes after.
func countNode(n *[nodeWidth]uint64, number uint64) int {
	four := lessIfAfter(3, n[3], number)
	four = lessIfAfter(four, n[7], number)
	four = lessIfAfter(four, n[11], number)
	f := (*[4]uint64)(n[four&3*4:])
	a := lessIfAfter(4, f[0], number)
	a = lessIfAfter(a, f[1], number)
	b := lessIfAfter(0, f[2], number)
	b = lessIfAfter(b, f[3], number)
	return int(four*4 + a + b)
}
