package twophase

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Settle ends prepared transactions of a shard as they were decided; one of which nothing was decided is rolled back. It is for whoever cannot wait
// any longer for what they hold. What is not of this cluster is left alone, and so is what this process is still at: the error names them.
func (m *Manager) Settle(ctx context.Context, shard string, gids []string) error {
	found, err := m.prepared(ctx, shard)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range gids {
		gid, ours := ParseGID(name)
		at := slices.IndexFunc(found.Prepared, func(p Prepared) bool { return p.GID == name })
		switch {
		case !ours || gid.Cluster != clusterPart(m.cfg.Cluster):
			errs = append(errs, fmt.Errorf("shard %s: transaction %q was prepared by somebody else", shard, name))
			continue
		case at < 0: // it has ended by itself
			continue
		case m.isOurs(name):
			errs = append(errs, fmt.Errorf("shard %s: transaction %s is being committed by this node", shard, name))
			continue
		}
		p := found.Prepared[at]
		commit, err := m.fate(ctx, place{gid.Decision, p.Database}, p.GID, p.Owner)
		if err == nil {
			_, err = m.endAt(ctx, place{shard, p.Database}, p.GID, commit)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		m.counts.ended.Add(1)
	}
	return errors.Join(errs...)
}
