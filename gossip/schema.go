package gossip

import (
	"encoding/binary"
	"math/rand/v2"
)

// Which tables and views there are is for PostgreSQL to say: nodes only tell each other when to ask it again. Who has told is not kept, nor the order
// in which it was: each news has a number by chance, and is passed on by whoever hears it for the first time. A node that misses one looks by
// itself now and then.

// maxSchemas is how many news are remembered, to know them when they come again.
const maxSchemas = 1024

// Schema tells all nodes that a schema has changed: each is to look at it anew.
func (s *Speaker) Schema() {
	number := rand.Uint64()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.count.told.Add(1)
	out := s.tellSchema(number)
	s.mu.Unlock()
	s.flush(out)
}

// tellSchema queues news that are not known here yet, and returns them for flush. mu is held.
func (s *Speaker) tellSchema(number uint64) outgoing {
	if len(s.schemas) < maxSchemas {
		s.schemas = append(s.schemas, number)
	} else {
		s.schemas[s.schemaNext] = number
		s.schemaNext = (s.schemaNext + 1) % maxSchemas
	}
	return s.tell("schema", appendSchema(nil, number), true) // the newest alone: whoever looks sees all
}

// hearSchema has this node look; out is nil if it is not to be told on.
func (s *Speaker) hearSchema(number uint64, out *outgoing) {
	s.mu.Lock()
	for _, known := range s.schemas {
		if known == number {
			s.mu.Unlock()
			return
		}
	}
	s.count.heard.Add(1)
	told := s.tellSchema(number)
	s.mu.Unlock()
	if out != nil {
		out.add(told)
	}
	if s.cfg.OnSchema != nil {
		s.cfg.OnSchema()
	}
}

func appendSchema(dst []byte, number uint64) []byte {
	return binary.AppendUvarint(append(dst, kindSchema, version), number)
}
