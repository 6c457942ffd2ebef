package wire

import "time"

// AgeFresh does what a minute does.
func (s *Server) AgeFresh(database string) { s.ageFresh(database) }

// SleepAfter has sessions sleep after another time. It is called before Serve.
func (s *Server) SleepAfter(d time.Duration) { s.sleepAfter = d }

// Dozed is how many times sessions have gone to sleep.
func (s *Server) Dozed() int64 { return s.dozed.Load() }

// DateStyle and IsZone are what a node knows of parameters without asking a server.
var DateStyle, IsZone = dateStyle, isZone
