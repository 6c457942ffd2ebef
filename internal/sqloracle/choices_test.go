package sqloracle

import "math/rand/v2"

// choices are what a generator decides by. All that were made can be made again, and the generator gives the same; fewer or smaller
// ones, and it gives something simpler of the same sort. 0 is the simplest choice, and what there is no choice for is 0.
type choices struct {
	random *rand.Rand // nil: made is played again
	made   []uint32
	next   int
}

// n chooses a number below k.
func (c *choices) n(k int) int {
	if k <= 1 {
		return 0
	}
	if c.random != nil {
		v := c.random.Uint32()
		c.made = append(c.made, v)
		return int(v % uint32(k))
	}
	if c.next >= len(c.made) {
		return 0
	}
	v := c.made[c.next]
	c.next++
	return int(v % uint32(k))
}

// chance is true in so many of a hundred cases.
func (c *choices) chance(percent int) bool { return c.n(100) >= 100-percent }

// oneOf chooses one; the first is the simplest.
func oneOf[T any](c *choices, of ...T) T { return of[c.n(len(of))] }

// weigh chooses an index by weights; the first is the simplest.
func (c *choices) weigh(weights ...int) int {
	sum := 0
	for _, w := range weights {
		sum += w
	}
	v := c.n(sum)
	for i, w := range weights {
		if v < w {
			return i
		}
		v -= w
	}
	return 0
}

// smallest makes choices fewer and smaller as long as fails says that they still fail, at most tries times.
func smallest(made []uint32, tries int, fails func([]uint32) bool) []uint32 {
	try := func(c []uint32) bool {
		if tries <= 0 {
			return false
		}
		tries--
		if !fails(c) {
			return false
		}
		made = c
		return true
	}
	for again := true; again && tries > 0; {
		again = false
		for size := max(1, len(made)/2); size > 0; size /= 2 {
			for at := 0; at+size <= len(made); {
				if try(append(append([]uint32(nil), made[:at]...), made[at+size:]...)) {
					again = true
				} else {
					at += size
				}
			}
		}
		for at := 0; at < len(made); at++ {
			for _, v := range []uint32{0, made[at] % 2, made[at] % 8} {
				if v >= made[at] {
					continue
				}
				if try(append(append(append([]uint32(nil), made[:at]...), v), made[at+1:]...)) {
					again = true
					break
				}
			}
		}
	}
	return made
}
