package scatter

import (
	"fmt"
	"sort"
	"strconv"
	"strings"

	"rangefinder/wire/pg"
)

// maxLines bounds how many rows back a shard's line can be told as one of the whole data.
const maxLines = 32 << 10

// lines tells the lines of one shard's data as those of the whole.
type lines struct {
	begun bool
	local uint64 // lines that the shard has got
	ring  []lineAt
	next  int // of ring, when it is full
}

type lineAt struct{ local, whole uint64 }

func (l *lines) add(whole uint64, count int) {
	l.local += uint64(count)
	if len(l.ring) < maxLines {
		l.ring = append(l.ring, lineAt{l.local, whole})
		return
	}
	l.ring[l.next] = lineAt{l.local, whole}
	l.next = (l.next + 1) % maxLines
}

// find is the line of the whole that the shard calls n; 0 if it is not known any more.
func (l *lines) find(n uint64) uint64 {
	at := func(i int) lineAt { return l.ring[(l.next+i)%len(l.ring)] }
	i := sort.Search(len(l.ring), func(i int) bool { return at(i).local >= n })
	if i == len(l.ring) || i == 0 && at(0).local-n > 0 && len(l.ring) == maxLines {
		return 0
	}
	return at(i).whole - min(at(i).local-n, at(i).whole-1) // within a row of several lines
}

// translate is the shard's error with the line in its CONTEXT told as one of the whole.
func (p *copyPart) translate(e *pg.Error) *pg.Error {
	if p.s.split == nil { // it is
		return e
	}
	context := "COPY " + p.s.plan.Fan.Copy.Name + ", line "
	before, rest, ok := strings.Cut(e.Where, context)
	if !ok {
		return e
	}
	n := 0
	for n < len(rest) && rest[n] >= '0' && rest[n] <= '9' {
		n++
	}
	local, err := strconv.ParseUint(rest[:n], 10, 64)
	if err != nil || local <= p.s.split.HeaderLines() {
		return e
	}
	c := *e
	if whole := p.lines.find(local); whole > 0 {
		c.Where = fmt.Sprintf("%s%s%d%s", before, context, whole, rest[n:])
	} else {
		c.Where = fmt.Sprintf("%s%s%d of those of shard %s%s", before, context, local, p.b.slot.Shard(), rest[n:])
	}
	return &c
}
