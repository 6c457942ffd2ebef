package main

import (
	"math"
	"slices"
	"time"
)

// report is what one world has shown.
type report struct {
	rest, busy           spread
	restBytes, busyBytes float64 // sent by each node in a second
	updates              float64 // a second, that were told when busy
	falseDown            int
	falseDead            int
}

// spread is how long news took to each node, over several pieces of news.
type spread struct {
	took   []time.Duration
	missed int // nodes that it did not reach
}

func (s *spread) add(o *spread) {
	s.took = append(s.took, o.took...)
	s.missed += o.missed
}

// at is the time after which that share of the nodes knew; nodes that were missed are not in it.
func (s *spread) at(share float64) time.Duration {
	if len(s.took) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s.took))
	i := int(math.Ceil(share*float64(len(sorted)))) - 1
	return sorted[max(i, 0)]
}

func ms(d time.Duration) float64 {
	return float64(d.Round(time.Millisecond)) / float64(time.Millisecond)
}

const (
	mustAll    = 400 * time.Millisecond
	giveUp     = 10 * time.Second // a node that has not heard by then is missed
	accuracy   = time.Millisecond // of all times
	mostPause  = time.Second      // between two pieces of news, at random
	leastPause = 500 * time.Millisecond
)

// await waits until each of n nodes knows, and notes when each did. late is told of those for whom it takes too long.
func (s *spread) await(n int, knows func(i int) bool, late func(i int)) {
	began, told := time.Now(), false
	waiting := make([]int, n)
	for i := range waiting {
		waiting[i] = i
	}
	for {
		took := time.Since(began)
		waiting = slices.DeleteFunc(waiting, func(i int) bool {
			if !knows(i) {
				return false
			}
			s.took = append(s.took, took)
			return true
		})
		if !told && took > mustAll {
			told = true
			for _, i := range waiting {
				late(i)
			}
		}
		if len(waiting) == 0 || took > giveUp {
			s.missed += len(waiting)
			return
		}
		time.Sleep(accuracy)
	}
}

// introduce makes n nodes known to each other in few steps, each of which doubles whom a node knows. One by one, each would have to
// hear of all others by gossip, which takes a thousand nodes longer than what is to be measured.
func introduce(n int, join func(i, to int) error) error {
	for step := 1; step < n; step *= 2 {
		errs := make(chan error, n)
		for i := range n {
			go func() { errs <- join(i, (i+step)%n) }()
		}
		for range n {
			if err := <-errs; err != nil {
				return err
			}
		}
	}
	return nil
}

// drained is how long the nodes still tell each other of each other, until when news would have to wait: 16 times of each, a
// hundred bytes long. Then they are at rest.
func drained(nodes int, packets float64) time.Duration {
	seconds := float64(nodes) * 16 * 100 / (packets * 1300)
	return 5*time.Second + time.Duration(1.5*seconds*float64(time.Second))
}
