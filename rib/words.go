package rib

import (
	"slices"
	"strings"
)

// words are what observers say of one backend, one record of each, sorted by observer. They are one to three as a rule: a map for
// them takes a kilobyte, and every node holds those of every backend.
type words[T interface{ author() string }] []T

func (a Announcement) author() string { return a.Observer }
func (r Route) author() string        { return r.Observer }

func (w words[T]) find(observer string) (at int, ok bool) {
	return slices.BinarySearchFunc(w, observer, func(t T, observer string) int { return strings.Compare(t.author(), observer) })
}

// of is an observer's.
func (w words[T]) of(observer string) (t T, ok bool) {
	i, ok := w.find(observer)
	if ok {
		t = w[i]
	}
	return t, ok
}

// put takes the place of what its observer has said before.
func (w *words[T]) put(t T) {
	i, ok := w.find(t.author())
	if ok {
		(*w)[i] = t
		return
	}
	*w = slices.Insert(*w, i, t)
}

func (w *words[T]) drop(observer string) {
	if i, ok := w.find(observer); ok {
		*w = slices.Delete(*w, i, i+1)
	}
}
