package rib

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Written is a place in one shard's write-ahead log: whatever was written up to there is meant.
type Written struct {
	Shard    string
	Timeline uint32 // never 0
	LSN      uint64 // of that timeline; never 0
}

// Token says up to where shards were written to, so that somebody else can ask to see all that. It is sorted by shard, and has each
// once.
type Token []Written

// MaxToken bounds a token's text, in bytes: some 700 shards with long names.
const MaxToken = 64 << 10

// maxShardName bounds the name of a shard in a token, as configurations do.
const maxShardName = 64

// TokenForm is what a token looks like, for hints.
const TokenForm = "shard/timeline/LSN, more of them behind commas: shard_1/3/16/B374D848,shard_2/1/0/5000"

// String is the token as ParseToken reads it; "" without shards.
func (t Token) String() string {
	var b []byte
	for i, w := range t {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, w.Shard...)
		b = append(b, '/')
		b = strconv.AppendUint(b, uint64(w.Timeline), 10)
		b = append(b, '/')
		b = append(b, FormatLSN(w.LSN)...)
	}
	return string(b)
}

// ParseToken reads a token's text. Its shards may come in any order, with blanks around them; none may come twice, for nobody can tell
// which of two places is the later one if their timelines differ. An empty text is an empty token.
func ParseToken(s string) (Token, error) {
	if len(s) > MaxToken {
		return nil, fmt.Errorf("it has %d bytes, and may have %d", len(s), MaxToken)
	}
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	t := make(Token, 0, strings.Count(s, ",")+1)
	for part := range strings.SplitSeq(s, ",") {
		w, err := parseWritten(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		t = append(t, w)
	}
	slices.SortFunc(t, func(a, b Written) int { return strings.Compare(a.Shard, b.Shard) })
	for i := 1; i < len(t); i++ {
		if t[i].Shard == t[i-1].Shard {
			return nil, fmt.Errorf("shard %s is there twice", t[i].Shard)
		}
	}
	return t, nil
}

func parseWritten(s string) (w Written, err error) {
	shard, rest, _ := strings.Cut(s, "/")
	timeline, lsn, ok := strings.Cut(rest, "/")
	if !ok {
		return w, fmt.Errorf("%.80q is not of the form shard/timeline/LSN", s)
	}
	if shard == "" || len(shard) > maxShardName || strings.ContainsFunc(shard, outsideNames) {
		return w, fmt.Errorf("%.80q is not the name of a shard", shard)
	}
	tli, err := strconv.ParseUint(timeline, 10, 32)
	if err != nil || tli == 0 || timeline[0] == '+' {
		return w, fmt.Errorf("the timeline %.40q of shard %s is not a number from 1 on", timeline, shard)
	}
	at, err := ParseLSN(lsn)
	if err != nil || at == 0 {
		return w, fmt.Errorf("the LSN %.40q of shard %s is no position in a write-ahead log", lsn, shard)
	}
	return Written{shard, uint32(tli), at}, nil
}

// outsideNames tells whether a character cannot be in the name of a shard.
func outsideNames(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-_.", r))
}

// FormatLSN writes a position in a write-ahead log as PostgreSQL does.
func FormatLSN(lsn uint64) string { return fmt.Sprintf("%X/%X", uint32(lsn>>32), uint32(lsn)) }
