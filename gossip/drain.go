package gossip

import (
	"encoding/binary"
	"fmt"
	"time"

	"rangefinder/rib"
)

// Drains are an operator's words, and no observer's: they outlive the node that was told. So they have a sum of their own among those that
// nodes compare, and an entry of their own in digests, under a name that no node can have. As long as a node lives that does not know
// them they are left out of the sums that ride on pings, for it would differ from all others for ever; then they are told to
// everybody at once, and again when nodes exchange digests.

// drainsEntry stands for all drains in digests and pulls.
var drainsEntry = idOf("\x00drains")

// Drain gives an operator's word to the cluster: it is in this node's table and on its way to all others when Drain returns. Number and
// author are filled in: it takes the place of the last word on its target that this node has heard.
func (s *Speaker) Drain(w rib.Drain) (rib.Drain, error) {
	if err := checkDrain(&w); err != nil {
		return w, err
	}
	w.Author = s.cfg.Self.Name
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return w, fmt.Errorf("gossip: Drain: %w", ErrClosed)
	}
	last, _ := s.cfg.Health.DrainOf(w.Target)
	w.Number = min(last.Number+1, maxDrainNumber)
	if _, err := s.cfg.Health.Drain(w, time.Now()); err != nil {
		s.mu.Unlock()
		return w, err
	}
	s.count.told.Add(1)
	out := s.tellDrain(&w)
	s.mu.Unlock()
	s.flush(out)
	return w, nil
}

// tellDrain queues a word that is news here, and returns it for flush. It may be called with mu held.
func (s *Speaker) tellDrain(w *rib.Drain) outgoing {
	s.changed()
	return s.tell("drain "+w.Target.String(), appendDrain(nil, w), true)
}

// HearDrain merges a word that this node has asked another one for, and tells it on if it is news.
func (s *Speaker) HearDrain(w rib.Drain) error {
	if err := CheckDrain(&w); err != nil {
		return err
	}
	var out outgoing
	s.hearDrain(w, &out)
	s.flush(out)
	return nil
}

// hearDrain merges an operator's word that another node was given; out is nil if it is not to be told on.
func (s *Speaker) hearDrain(w rib.Drain, out *outgoing) {
	last, _ := s.cfg.Health.DrainOf(w.Target)
	if w.Number > max(last.Number, manyDrains)+drainStep { // a lie must not take it to where no later word is possible
		s.count.implausible.Add(1)
		return
	}
	changed, err := s.cfg.Health.Drain(w, time.Now())
	if err != nil {
		s.count.overBound.Add(1)
		return
	}
	if !changed {
		return
	}
	s.count.heard.Add(1)
	s.log.Info("an operator's word was heard", "target", w.Target.String(), "back", w.Back, "by", w.By, "why", w.Why, "told_to", w.Author, "number", w.Number)
	s.changed()
	if out != nil {
		out.add(s.tellDrain(&w))
	}
}

// drainsDigest is what stands for all drains in a digest; false if there are none.
func (s *Speaker) drainsDigest() (e entry, ok bool) {
	sum := s.cfg.Health.DrainSum()
	return entry{observer: drainsEntry, sum: sum}, sum != 0 && s.reads >= levelDrains
}

// appendDrain needs a word that checkDrain has found well.
func appendDrain(dst []byte, w *rib.Drain) []byte {
	var back byte
	if w.Back {
		back = 1
	}
	dst = append(dst, kindDrain, version, byte(w.Target.Kind), back)
	for _, n := range [...]uint64{w.Number, uint64(w.Since), uint64(w.Until)} {
		dst = binary.AppendUvarint(dst, n)
	}
	for _, s := range [...]string{w.Target.Name, w.Author, w.By, w.Why} {
		dst = appendString(dst, s)
	}
	return dst
}

func (d *decoder) drain() (w rib.Drain) {
	w.Target.Kind = rib.DrainKind(d.byte())
	w.Back = d.flag()
	w.Number = d.uvarint(maxDrainNumber)
	w.Since, w.Until = int64(d.uvarint(maxUnix)), int64(d.uvarint(maxUnix))
	w.Target.Name, w.Author = d.name(), d.name()
	w.By, w.Why = d.text(maxBy), d.text(maxWhy)
	if w.Target.Kind < rib.DrainRegion || w.Target.Kind > rib.DrainNode || w.Number == 0 || w.By == "" {
		d.bad()
	}
	return w
}

// CheckDrain tells what no peer would accept of a word that comes from elsewhere than from peers.
func CheckDrain(w *rib.Drain) error {
	if err := checkDrain(w); err != nil {
		return err
	}
	if w.Number == 0 || w.Number > maxDrainNumber || !validName(w.Author) || w.Target.Kind < rib.DrainRegion || w.Target.Kind > rib.DrainNode {
		return fmt.Errorf("gossip: there is no such word of an operator: %+v", *w)
	}
	return nil
}

// checkDrain tells an author what no peer would accept.
func checkDrain(w *rib.Drain) error {
	switch {
	case !validName(w.Target.Name):
		return fmt.Errorf("gossip: the name of a %s must be 1 to %d bytes of printable UTF-8, got %q", w.Target.Kind, maxName, w.Target.Name)
	case w.By == "" || len(w.By) > maxBy || !validText(w.By):
		return fmt.Errorf("gossip: who wants it must be 1 to %d bytes of printable UTF-8, got %q", maxBy, w.By)
	case len(w.Why) > maxWhy || !validText(w.Why):
		return fmt.Errorf("gossip: why must be up to %d bytes of printable UTF-8, got %q", maxWhy, w.Why)
	case w.Since < 0 || w.Since > maxUnix || w.Until < 0 || w.Until > maxUnix:
		return fmt.Errorf("gossip: no such time: %d, %d", w.Since, w.Until)
	}
	return nil
}
