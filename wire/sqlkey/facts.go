package sqlkey

import "slices"

// column is a key column of one table reference.
type column struct {
	ref *ref
	i   int // into ref.table.columns
}

// fact is an equality that holds for every row that reaches the result: a column equals a constant, or another column of
// the same type. Both sides are then not NULL.
type fact struct {
	a     column
	b     column // if value is nil
	value *binding
	set   *KeySet // or a is one of these
	// within, if not nil, are the items on the side of an outer join that may be missing: the equality is that join's
	// condition, and holds in the rows in which these items are there.
	within []*ref
}

// holdsOf tells whether the equality holds in the rows in which r is there.
func (f *fact) holdsOf(r *ref) bool { return f.within == nil || slices.Contains(f.within, r) }

// guarded returns the facts for rows in which the items may be missing.
func guarded(list []fact, within []*ref) []fact {
	out := slices.Clone(list)
	for i := range out {
		if out[i].within == nil { // else it is about fewer items, which are there only if all of these are
			out[i].within = within
		}
	}
	return out
}

// unlock makes facts hold for all rows if others say that their items are there: "b.x = 1" in WHERE leaves no row without a
// b, so that b's outer join is an inner one.
//
// It returns the items that are there in all rows of which the facts hold.
func unlock(list []fact) (present map[*ref]bool) {
	present = make(map[*ref]bool)
	for changed := true; changed; {
		changed = false
		for i := range list {
			f := &list[i]
			if f.within != nil && slices.ContainsFunc(f.within, func(r *ref) bool { return present[r] }) {
				f.within = nil
			}
			if f.within == nil && !(present[f.a.ref] && (f.b.ref == nil || present[f.b.ref])) {
				present[f.a.ref], changed = true, true
				if f.b.ref != nil {
					present[f.b.ref] = true
				}
			}
		}
	}
	return present
}

// binding is a constant that a column equals.
type binding struct {
	KeyRef
}

// facts are what holds at one place of a statement: those found there and those of the places around it. They are
// immutable, so a place can hand its own to all below it.
type facts struct {
	parent *facts
	list   []fact
}

// with returns f and more. The receiver may be nil.
func (f *facts) with(more []fact) *facts {
	if len(more) == 0 {
		return f
	}
	return &facts{f, more}
}

// value finds a constant that c must equal, directly or through other columns: the unknown key before others.
func (f *facts) value(c column) (v *binding) {
	known := []column{c}
	seen := map[column]bool{c: true}
	for i := 0; i < len(known); i++ {
		for at := f; at != nil; at = at.parent {
			for j := range at.list {
				e := &at.list[j]
				other := e.b
				if e.set != nil || !e.holdsOf(known[i].ref) {
					continue // what is known to equal c is not NULL, but says nothing of these items
				}
				switch {
				case e.a == known[i]:
					if e.value != nil && e.value.unknown > 0 {
						return e.value
					}
					if e.value != nil {
						if v == nil || v.made != nil { // what is to be computed comes last
							v = e.value
						}
						continue
					}
				case e.value == nil && e.b == known[i]:
					other = e.a
				default:
					continue
				}
				if !seen[other] {
					seen[other] = true
					known = append(known, other)
				}
			}
		}
	}
	return v
}
