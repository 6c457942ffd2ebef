package sqlkey

import "rangefinder/wire/pg"

// PlannerConfig bounds a Planner. Zero fields take their defaults.
type PlannerConfig struct {
	MaxBytes     int64 // of cached plans with their texts, as accounted; default 64 MiB
	MaxStatement int   // bytes of a statement that is parsed; longer ones are not planned; default 1 MiB
}

// Planner makes plans and caches them. It is safe for concurrent use.
type Planner struct {
	config PlannerConfig
}

// NewPlanner makes a Planner with an empty cache.
func NewPlanner(config PlannerConfig) *Planner { return &Planner{config: config} }

// Plan returns the plan of a text. It never returns nil.
func (p *Planner) Plan(c *Catalog, env *Env, sql string) *Plan {
	return &Plan{SQL: sql, Target: None, Err: pg.NewError(pg.CodeFeatureNotSupported, "not planned yet")}
}

// PlanBytes is Plan for a text in a buffer. It copies the text on a miss only; the buffer stays the caller's.
func (p *Planner) PlanBytes(c *Catalog, env *Env, sql []byte) *Plan {
	return p.Plan(c, env, string(sql))
}
