package auth

import "container/list"

// lru is a map of bounded size: of more than max values, the one used longest ago goes. Its owner locks it.
type lru[V any] struct {
	max   int
	byKey map[scope]*list.Element // of *lruItem[V]
	order list.List               // most recently used first
}

type lruItem[V any] struct {
	key   scope
	value V
}

// get returns a value and marks it as used.
func (l *lru[V]) get(k scope) (v V, ok bool) {
	el, ok := l.byKey[k]
	if !ok {
		return v, false
	}
	l.order.MoveToFront(el)
	return el.Value.(*lruItem[V]).value, true
}

func (l *lru[V]) put(k scope, v V) {
	if el, ok := l.byKey[k]; ok {
		el.Value.(*lruItem[V]).value = v
		l.order.MoveToFront(el)
		return
	}
	if l.byKey == nil {
		l.byKey = make(map[scope]*list.Element)
	}
	l.byKey[k] = l.order.PushFront(&lruItem[V]{k, v})
	if len(l.byKey) > l.max {
		l.remove(l.order.Back().Value.(*lruItem[V]).key)
	}
}

func (l *lru[V]) remove(k scope) {
	if el, ok := l.byKey[k]; ok {
		l.order.Remove(el)
		delete(l.byKey, k)
	}
}

// all calls do for each value, the most recently used first.
func (l *lru[V]) all(do func(scope, V)) {
	for el := l.order.Front(); el != nil; el = el.Next() {
		item := el.Value.(*lruItem[V])
		do(item.key, item.value)
	}
}
