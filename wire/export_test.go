package wire

// AgeFresh does what a minute does.
func (s *Server) AgeFresh(database string) { s.ageFresh(database) }
