package twophase

import (
	"fmt"
	"strconv"
	"strings"
)

// prefix begins the name of everything that this program prepares.
const prefix = "rangefinder:"

// maxName is how long names of nodes and shards may be, in bytes, so that a GID is one that PostgreSQL takes (199 bytes).
const maxName = 64

// GID names a transaction over several shards, alike on all of them.
type GID struct {
	Cluster  string // the first 8 characters of the cluster's id
	Node     string // which ends it
	Boot     string // of that node's process: no two have the same
	Number   uint64 // in that process, from 1 on
	Decision string // shard that decides
}

// String is the name as PostgreSQL is told it.
func (g GID) String() string {
	return prefix + g.Cluster + ":" + g.Node + ":" + g.Boot + ":" + strconv.FormatUint(g.Number, 10) + ":" + g.Decision
}

// ParseGID reads a name back; false: it is none of ours.
func ParseGID(s string) (GID, bool) {
	rest, ours := strings.CutPrefix(s, prefix)
	part := strings.Split(rest, ":")
	if !ours || len(part) != 5 {
		return GID{}, false
	}
	n, err := strconv.ParseUint(part[3], 10, 64)
	g := GID{Cluster: part[0], Node: part[1], Boot: part[2], Number: n, Decision: part[4]}
	if err != nil || !plain(g.Cluster) || !plain(g.Node) || !plain(g.Boot) || !plain(g.Decision) {
		return GID{}, false
	}
	return g, true
}

// plain tells whether a name can be a part of a GID, which is quoted nowhere.
func plain(s string) bool {
	return s != "" && len(s) <= maxName && !strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-_.", r))
	})
}

// clusterPart is what a GID has of a cluster's id.
func clusterPart(id string) string { return id[:min(len(id), 8)] }

// The statements of the protocol. What they are made of is plain.

func prepareSQL(gid GID) string {
	// PREPARE itself writes to the disk whatever synchronous_commit says; that it waits for the replicas is what this is for.
	return syncSQL + fmt.Sprintf("; PREPARE TRANSACTION '%s'", gid)
}

// syncSQL has this transaction be kept as any other is: a session that can do without its last commits has not said so of halves.
const syncSQL = "SELECT CASE WHEN pg_catalog.current_setting('synchronous_commit') IN ('off', 'local') THEN pg_catalog.set_config('synchronous_commit', 'on', true) END"

func decideSQL(gid GID, participants []string) string {
	return fmt.Sprintf("%s; SELECT rangefinder.decide('%s'::pg_catalog.text, '{%s}'::pg_catalog.text[]); COMMIT", syncSQL, gid, strings.Join(participants, ","))
}

func commitPreparedSQL(gid string) string { return "COMMIT PREPARED '" + gid + "'" }

func rollbackPreparedSQL(gid string) string { return "ROLLBACK PREPARED '" + gid + "'" }
