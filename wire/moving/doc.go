// Package moving is what a node does for ranges that change hands: it knows the moves that its table tells of, counts what runs on their
// ranges, has new transactions on a frozen one wait, and says when the last one of before has ended.
//
// Counting costs nothing as long as no move is known, and takes no lock at any time: who enters a range adds one to the move's counter and
// then looks at its phase; who freezes it sets the phase and then looks at the counter. So one of them sees the other.
//
// What began before the node knew of a move was not counted. So at the moment a move becomes known the package asks for everything that is at
// work, and until that is over nothing is said of the move's range.
//
// The package knows no protocol and no session: it is used by wire's sessions and by simulations alike.
package moving
