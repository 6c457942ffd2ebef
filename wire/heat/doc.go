// Package heat counts the statements on each range of keys, and finds the keys that get the most. A session notes the key of a statement now
// and then, so seldom that on average it costs next to nothing: no lock is waited for and nothing is allocated. The rest is done by whoever
// collects the notes. What is kept is bounded, and what was long ago is forgotten.
//
// It knows nothing of tables and shards: who collects says which range a key is of.
package heat
