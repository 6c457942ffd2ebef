// Package balance works out which ranges should have another shard. It is pure: it is told what was measured, and says what to move and
// what that would gain. It measures nothing and moves nothing.
package balance
