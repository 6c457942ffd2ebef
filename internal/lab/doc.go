// Package lab adds the delays of a wide-area network to connections and packets, in user space, for demos and tests.
//
// A Dialer delays what it dials by rules (network, round trip): the connect itself, every byte written and every byte read.
// A wrapped packet connection delays what it sends. Delay is all it adds: order is kept and throughput is not limited, since
// bytes travel down a delay line while later ones enter it, as they would on a long cable.
//
// It is here, and not in the kernel, because netem is not to be had in containers, and because a demo must run without
// privileges. What it wraps deliberately gives no access to the file descriptor: whoever read that would skip the delay.
package lab
