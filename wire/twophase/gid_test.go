package twophase

import (
	"strings"
	"testing"
)

func TestGID(t *testing.T) {
	long := strings.Repeat("n", maxName)
	for _, g := range []GID{
		{"01234567", "fra-1", "ABCDEFGHIJKLM", 1, "shard_1"},
		{"01234567", long, "ABCDEFGHIJKLM", 1<<64 - 1, long},
	} {
		s := g.String()
		if back, ok := ParseGID(s); !ok || back != g {
			t.Errorf("%s: read back as %+v, %v", s, back, ok)
		}
		if len(s) > 199 {
			t.Errorf("%s: %d bytes, and PostgreSQL takes 199", s, len(s))
		}
	}
	for _, s := range []string{
		"", "rangefinder:", "other:a:b:c:1:s", "rangefinder:a:b:c:1", "rangefinder:a:b:c:1:s:t", "rangefinder:a:b:c:x:s", "rangefinder:a:b:c:-1:s",
		"rangefinder:a::c:1:s", "rangefinder:a:b'; DROP TABLE account; --:c:1:s", "rangefinder:a:b:c:1:" + long + "n",
	} {
		if g, ok := ParseGID(s); ok {
			t.Errorf("%q: read as %+v", s, g)
		}
	}
}
