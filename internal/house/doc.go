// Package house holds the rules of the house as tests: which package may import which, one package comment each in doc.go, no
// sleeping in tests, no file that nobody can read in one sitting.
//
// It knows the tree as text (go/parser) and builds nothing, so it sees files of every build tag and costs no time.
package house
