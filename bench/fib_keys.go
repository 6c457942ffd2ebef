package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"

	"rangefinder/rib"
)

// askedKeys is how many different keys are asked for, in their order: so many that neither the processor's caches nor its
// branch predictor know them all. A power of two.
const askedKeys = 1 << 18

// fibKeys is a list of keys: numbers of eight bytes, or bytes one after another. The keys asked for lie where reading them
// costs least, so that what is measured is finding their range.
type fibKeys struct {
	numbers []uint64
	arena   []byte
	ends    []uint32 // where key i+1 begins
}

func (k *fibKeys) len() int {
	if k.numbers != nil {
		return len(k.numbers)
	}
	return len(k.ends) - 1
}

// key is a key as a session has it: a number is made bytes in the session's buffer.
func (k *fibKeys) key(i int, buffer *[8]byte) []byte {
	if k.numbers != nil {
		binary.BigEndian.PutUint64(buffer[:], k.numbers[i])
		return buffer[:]
	}
	return k.arena[k.ends[i]:k.ends[i+1]]
}

func (k *fibKeys) append(dst []byte, i int) []byte {
	var buffer [8]byte
	return append(dst, k.key(i, &buffer)...)
}

func keysOf(texts [][]byte) *fibKeys {
	k := &fibKeys{ends: make([]uint32, 1, len(texts)+1)}
	for _, t := range texts {
		k.arena = append(k.arena, t...)
		k.ends = append(k.ends, uint32(len(k.arena)))
	}
	return k
}

// fibLayout makes the starts of n ranges, but the first, and the keys to ask for.
//
//   - even integers: as a keyspace by hash has them;
//   - skewed integers: a range's width is anything up to 2^40 times another's, as splits of hot ranges make them, and each
//     range is asked as often as the others;
//   - even bytes: texts that count, behind a common prefix;
//   - skewed bytes: texts of 500 tenants, of which some have many more ranges than others; all keys of a tenant begin with
//     the same 10 to 16 bytes.
//
// The seed is fixed: two runs measure the same.
func fibLayout(n int, spread, kind string) (starts, asked *fibKeys) {
	r := rand.New(rand.NewPCG(uint64(n), 1))
	switch {
	case kind == integer && spread == evenly:
		starts, asked = &fibKeys{numbers: make([]uint64, 0, n)}, &fibKeys{numbers: make([]uint64, askedKeys)}
		for i, x := range rib.EvenRanges(make([]string, n)) {
			if i > 0 {
				starts.numbers = append(starts.numbers, binary.BigEndian.Uint64(x.From))
			}
		}
		for i := range asked.numbers {
			asked.numbers[i] = r.Uint64()
		}
	case kind == integer:
		starts, asked = &fibKeys{numbers: unique(n-1, func() uint64 { return 1 + r.Uint64()>>r.UintN(40) })}, &fibKeys{numbers: make([]uint64, askedKeys)}
		for i := range asked.numbers {
			at := r.IntN(n)
			low, high := uint64(0), ^uint64(0)
			if at > 0 {
				low = starts.numbers[at-1]
			}
			if at < n-1 {
				high = starts.numbers[at]
			}
			asked.numbers[i] = low + r.Uint64N(high-low)
		}
	case spread == evenly:
		texts := make([][]byte, n-1)
		for i := range texts {
			texts[i] = customer(uint64(i+1) * 1_000_000_000 / uint64(n))
		}
		starts = keysOf(texts)
		texts = make([][]byte, askedKeys)
		for i := range texts {
			texts[i] = customer(r.Uint64N(1_000_000_000))
		}
		asked = keysOf(texts)
	default:
		t := newTenants(r)
		seen := make(map[string]bool, n)
		texts := make([][]byte, 0, n-1)
		for len(texts) < n-1 {
			if text := t.next(); !seen[string(text)] {
				seen[string(text)] = true
				texts = append(texts, text)
			}
		}
		slices.SortFunc(texts, bytes.Compare)
		starts = keysOf(texts)
		texts = make([][]byte, askedKeys)
		for i := range texts {
			texts[i] = t.next()
		}
		asked = keysOf(texts)
	}
	return starts, asked
}

// unique draws n different numbers and sorts them.
func unique(n int, draw func() uint64) []uint64 {
	var all []uint64
	for len(all) < n {
		for range n - len(all) {
			all = append(all, draw())
		}
		slices.Sort(all)
		all = slices.Compact(all)
	}
	return all
}

// customer is the key of a text that counts. A text's encoding ends with a NUL.
func customer(i uint64) []byte { return fmt.Appendf(nil, "customer/eu/%09d\x00", i) }

// tenants draws keys like "qmzkuwbvetrp/q3xk0b1v": of few tenants many, of many few.
type tenants struct {
	rand  *rand.Rand
	zipf  *rand.Zipf
	names []string
}

func newTenants(r *rand.Rand) *tenants {
	t := &tenants{rand: r, zipf: rand.NewZipf(r, 1.2, 4, 499)}
	for range 500 {
		t.names = append(t.names, t.word(10+r.IntN(7)))
	}
	return t
}

func (t *tenants) next() []byte {
	return fmt.Appendf(nil, "%s/%s\x00", t.names[t.zipf.Uint64()], t.word(4+t.rand.IntN(9)))
}

func (t *tenants) word(size int) string {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	word := make([]byte, size)
	for i := range word {
		word[i] = letters[t.rand.IntN(len(letters))]
	}
	return string(word)
}
