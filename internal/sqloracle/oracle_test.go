package sqloracle

import "testing"

// What a client is told through the router is what PostgreSQL itself tells, or a refusal that is listed.
func TestOracle(t *testing.T) {
	p := newPlace(t)
	t.Run("corpus", func(t *testing.T) { testCorpus(t, p) })
	t.Run("bad input", func(t *testing.T) { testBadInput(t, p) })
	t.Run("document", func(t *testing.T) { testDocument(t, p) })
	t.Run("generated", func(t *testing.T) { testGenerated(t, p) })
}
