// Package twophase ends a transaction that has written on several shards: everywhere or nowhere.
//
// PostgreSQL's own two-phase commit does the work. All shards but one prepare. The last one, the decision shard, writes a row into
// rangefinder.decision in its still open transaction and commits: that commit is the decision. Then the others commit what they have
// prepared. Who finds something prepared later, on whichever node, asks the decision shard that the name of the transaction tells: a row
// says how it was decided, and where there is none, a row that says "rolled back" is put there first. Only one row may have that name, so the
// decision cannot be taken any more after that, and a commit that is on its way either came first or fails.
//
// The package knows branches (open transactions that somebody else has begun) and sites (a shard's primary, seen by the node itself). It
// does not know sessions, plans, or where a shard's primary is: it is handed all that.
//
// Failover. What has been prepared or decided must be on the server that is promoted. With synchronous replication it is: PREPARE, the
// decision and COMMIT PREPARED each wait for the replica. With asynchronous replication a promotion may lose the last moments of a shard, as it may
// lose any commit: a transaction can then be there on the other shards and not on that one.
package twophase
