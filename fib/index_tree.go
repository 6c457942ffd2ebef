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

// countNode counts without a branch; written out, since the compiler does not unroll.
func countNode(n *[nodeWidth]uint64, number uint64) int {
	a := notBefore(n[0], number) + notBefore(n[1], number) + notBefore(n[2], number) + notBefore(n[3], number)
	b := notBefore(n[4], number) + notBefore(n[5], number) + notBefore(n[6], number) + notBefore(n[7], number)
	c := notBefore(n[8], number) + notBefore(n[9], number) + notBefore(n[10], number) + notBefore(n[11], number)
	d := notBefore(n[12], number) + notBefore(n[13], number) + notBefore(n[14], number) + notBefore(n[15], number)
	return int(a + b + c + d)
}
