package scatter

import (
	"hash/maphash"

	"rangefinder/fib"
	"rangefinder/wire/pg"
)

// The copies of a reference table are to change alike. A row that another transaction has inserted is seen on one shard before it is on the next, as
// that commits there later; what finds it there and not here must not commit, or the copies would differ for good.

// add notes rows that a write to copies returns on one of them. In which order they come does not matter. Where a value may not be written the same
// on each server (numbers of tables, types and transactions) it is how many they are that counts.
func (f *fanout) add(p *part, rows []byte) {
	if !f.seeded {
		f.seed, f.seeded = maphash.MakeSeed(), true
		ends, ok := columnsOf(f.home.desc)
		f.counts = !ok
		for _, end := range ends {
			if _, common := commonTypes[typeAt(f.home.desc, end)]; !common {
				f.counts = true
			}
		}
	}
	for len(rows) > 0 {
		n := pg.Want(rows)
		if f.counts {
			p.sum++
		} else {
			p.sum += maphash.Bytes(f.seed, rows[:n])
		}
		rows = rows[n:]
	}
}

// unlike is the error if a write has not done the same to all copies, as far as their answers tell.
func (f *fanout) unlike() *pg.Error {
	for _, p := range f.parts {
		if p.tag != f.home.tag || p.sum != f.home.sum {
			return unlike(f.home.slot, p.slot, f.home.tag, p.tag)
		}
	}
	return nil
}

func unlike(one, other *fib.Slot, tag, otherTag string) *pg.Error {
	detail := one.Shard() + " says " + tag + ", and " + other.Shard() + " " + otherTag + ". "
	if tag == otherTag {
		detail = "The rows that " + other.Shard() + " returns are not those of " + one.Shard() + ". "
	}
	return pg.NewError(pg.CodeSerializationFailure, "the shards' copies of a reference table would not be changed alike").
		WithDetail(detail + "Another transaction may have changed them a moment ago, which the shards come to see one after the other; or the copies differ.").
		WithHint("Try the transaction again. If it goes on, compare the copies.")
}
