package move

import (
	"fmt"
	"testing"
)

func TestMove(t *testing.T) {
	r := newRig(t, true)
	r.fill(4000)
	low, high := r.quarter()
	moving := r.query("shard_1", "SELECT count(*)::text FROM orders WHERE "+r.where(low, high))
	before := r.contents("shard_1", "orders", r.where(low, high))
	m := r.mover(nil)
	id := r.book.start(low, high, "shard_1", "shard_2")
	r.over(id, m)
	if got := fmt.Sprint(r.book.became()); got != "[flipped]" {
		t.Fatal(got)
	}
	r.clean()
	if n := r.query("shard_1", "SELECT count(*)::text FROM orders WHERE "+r.where(low, high)); n != "0" {
		t.Errorf("%s rows of the range are left on the source", n)
	}
	if n := r.query("shard_2", "SELECT count(*)::text FROM orders"); n != moving || n == "0" {
		t.Errorf("%s rows are on the target, and %s were to be moved", n, moving)
	}
	if got := r.contents("shard_2", "orders", "true"); got != before {
		t.Errorf("the target has %s, and the source had %s", got, before)
	}
}
