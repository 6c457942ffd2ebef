// Package scatter is the place for one statement on many shards: fan out, merge, limit.
//
// Nothing is scattered yet: the session answers 0A000 with a hint to a statement whose key cannot be found, which is the
// right answer until the merge can be trusted. The seam is sqlkey.Plan's target None: what it refuses today is what this
// package will be asked to run.
package scatter
