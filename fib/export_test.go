package fib

import "rangefinder/rib"

// Flip lets benchmarks do what the Maintainer does with a change of health.
func Flip(t *Table, s *rib.Snapshot) int { return t.flip(s, nil) }
