package sqlkey

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

// value finds a constant that c must equal, directly or through other columns.
func (f *facts) value(c column) *binding {
	known := []column{c}
	seen := map[column]bool{c: true}
	for i := 0; i < len(known); i++ {
		for at := f; at != nil; at = at.parent {
			for j := range at.list {
				e := &at.list[j]
				other := e.b
				switch {
				case e.a == known[i]:
					if e.value != nil {
						return e.value
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
	return nil
}
