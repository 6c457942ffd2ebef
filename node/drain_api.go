package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"rangefinder/gossip"
	"rangefinder/rib"
)

// longestDrain bounds DrainRequest.For.
const longestDrain = 10 * 365 * 24 * time.Hour

// DrainRequest is the body of POST /api/v1/drains: that a region, backend or node is to get no more work, or is to get it again.
type DrainRequest struct {
	Kind string `json:"kind"` // region, backend or node
	Name string `json:"name"`
	Back bool   `json:"back"` // it is drained no more
	By   string `json:"by"`   // who wants it; "": "HTTP"
	Why  string `json:"why"`  // for people; may be empty
	For  string `json:"for"`  // how long, such as "1h"; "": until it is taken back
}

// DrainView is an operator's word that is in force.
type DrainView struct {
	Kind   string     `json:"kind"`
	Name   string     `json:"name"`
	Back   bool       `json:"back,omitempty"` // it is drained no more: in the answer to that wish alone
	By     string     `json:"by"`
	Why    string     `json:"why"`
	Since  time.Time  `json:"since"`
	Until  *time.Time `json:"until,omitempty"`  // absent: until it is taken back
	ToldTo string     `json:"told_to"`          // the node that was told
	Number uint64     `json:"number"`           // of the words on this target, which count up: the later one holds
	Text   string     `json:"text"`             // all of it in words
	Region string     `json:"region,omitempty"` // with which a backend or node stays drained: in the answer to a wish to take its own drain back alone
	Silent []string   `json:"silent,omitempty"` // nodes that were asked whether they know of a drain, and did not answer: in the answer to a wish to take one back alone
}

// DrainsAnswer is the answer of GET /api/v1/drains: what the node that answers has heard.
type DrainsAnswer struct {
	Drains   []DrainView `json:"drains"`
	Node     string      `json:"node"`      // which one answers
	AgreedMS float64     `json:"agreed_ms"` // how long ago another node was found to have heard the same; -1: none was yet, or it is the only one
}

func drainView(w *rib.Drain) DrainView {
	v := DrainView{Kind: w.Target.Kind.String(), Name: w.Target.Name, Back: w.Back, By: w.By, Why: w.Why, Since: time.Unix(w.Since, 0).UTC(), ToldTo: w.Author, Number: w.Number}
	if v.Text = w.Target.String() + " " + w.String(); w.Back {
		v.Text = w.Target.String() + " is not drained any more"
	}
	if w.Until != 0 {
		t := time.Unix(w.Until, 0).UTC()
		v.Until = &t
	}
	return v
}

func drainViews(s *rib.Snapshot) []DrainView {
	list := []DrainView{}
	for i := range s.Drains {
		list = append(list, drainView(&s.Drains[i]))
	}
	return list
}

// Drains lists what is drained, by all that this node has heard.
func (n *Node) Drains() DrainsAnswer {
	a := DrainsAnswer{Drains: drainViews(n.table.Snapshot()), Node: n.state.Node, AgreedMS: -1}
	if ago, ok := n.speaker().Agreed(); ok {
		a.AgreedMS = ms(ago)
	}
	return a
}

// Drain tells the cluster that an operator wants something drained, or not any more. It is on this node's disk and on its way to all others
// when it returns. This node may not have heard the last word yet, as when it has just joined or was cut off: so others are asked before. from
// says where the call came from, for the log.
func (n *Node) Drain(ctx context.Context, r DrainRequest, from string) (DrainView, error) {
	target, err := drainTarget(r.Kind, r.Name)
	if err != nil {
		return DrainView{}, err
	}
	now := time.Now()
	w := rib.Drain{Target: target, Back: r.Back, By: r.By, Why: strings.TrimSpace(r.Why), Since: now.Unix()}
	if w.By == "" {
		w.By = "HTTP"
	}
	if r.For != "" {
		d, err := time.ParseDuration(r.For)
		switch {
		case r.Back:
			return DrainView{}, badRequest("for says how long something is drained", "Leave it out to take a drain back.")
		case err != nil || d < time.Second || d > longestDrain:
			return DrainView{}, badRequest(fmt.Sprintf("for is %.40q, which is no time from a second to ten years", r.For), `For example "1h" or "30m".`)
		}
		w.Until = now.Add(d).Unix()
	}
	if there := targetsOf(n.table.Snapshot(), target.Kind); !slices.Contains(there, target.Name) && !r.Back {
		return DrainView{}, &apiError{Status: http.StatusNotFound, ErrorView: ErrorView{
			Error: fmt.Sprintf("this node knows no %s", target), Hint: fmt.Sprintf("There are: %s.", orNone(strings.Join(there, ", "))),
		}}
	}
	asked := n.askDrain(ctx, target)
	region, why := n.drainedWith(ctx, target, r.Back)
	stays := func(v DrainView) DrainView {
		if why != "" {
			v.Region, v.Text = region, fmt.Sprintf("%s stays drained with its region: %s", target, why)
		}
		return v
	}
	if last, known := n.table.Health().DrainOf(target); r.Back && (!known || last.Back) {
		// There is nothing to be said, and so nothing that could contradict anybody. A drain that is over by this node's clock may be in force by
		// others': that is taken back.
		w.Author, w.Number = n.state.Node, last.Number
		v := drainView(&w)
		v.Text, v.Silent = asked.notDrained(target, &last), asked.silent
		return stays(v), nil
	}
	said, err := n.speaker().Drain(w)
	if err != nil {
		return DrainView{}, drainRefused(err)
	}
	n.log.Warn("an operator's order", "drained", !w.Back, "target", target.String(), "by", w.By, "why", w.Why, "for", r.For, "number", said.Number, "from", from)
	if err := n.keepDrains(); err != nil {
		return DrainView{}, fmt.Errorf("the order is given, but if this node stops now it may be forgotten: %w", err)
	}
	return stays(drainView(&said)), nil
}

// drainedWith is the region that a backend or node stands in, and why that is drained; "": it is not, or nothing is taken back. Others may have heard of
// it and this node not.
func (n *Node) drainedWith(ctx context.Context, t rib.DrainTarget, back bool) (region, why string) {
	if !back {
		return "", ""
	}
	s := n.table.Snapshot()
	for i := range s.Backends {
		if b := &s.Backends[i].Backend; t.Kind == rib.DrainBackend && b.Name == t.Name {
			region = b.Region
		}
	}
	for _, m := range s.Members {
		if t.Kind == rib.DrainNode && m.Name == t.Name {
			region = m.Region
		}
	}
	if region == "" {
		return "", ""
	}
	whole := rib.DrainTarget{Kind: rib.DrainRegion, Name: region}
	n.askDrain(ctx, whole)
	if w, ok := n.table.Health().DrainOf(whole); ok && w.InForce(time.Now()) {
		return region, whole.String() + " " + w.String()
	}
	return "", ""
}

func drainRefused(err error) error {
	switch {
	case errors.Is(err, gossip.ErrClosed):
		return &apiError{Status: http.StatusServiceUnavailable, RetryAfter: time.Second, ErrorView: ErrorView{
			Error: "this process is not part of the cluster now", Hint: "Ask again in a moment, or ask another node.",
		}}
	case errors.Is(err, rib.ErrManyDrains):
		return &apiError{Status: http.StatusConflict, ErrorView: ErrorView{
			Error: err.Error(), Hint: "Take back what need not be drained any more, or drain a region instead of its backends and nodes.",
		}}
	}
	return badRequest(strings.TrimPrefix(err.Error(), "gossip: "), fieldsHint)
}

func drainTarget(kind, name string) (t rib.DrainTarget, err error) {
	k, ok := rib.ParseDrainKind(kind)
	if !ok {
		return t, badRequest(fmt.Sprintf("kind is %.40q", kind), "It is region, backend or node.")
	}
	if name == "" {
		return t, badRequest("name is missing", "Name the "+kind+".")
	}
	return rib.DrainTarget{Kind: k, Name: name}, nil
}

// targetsOf are the names of all that could be drained, sorted.
func targetsOf(s *rib.Snapshot, kind rib.DrainKind) (names []string) {
	for i := range s.Backends {
		switch b := &s.Backends[i].Backend; kind {
		case rib.DrainBackend:
			names = append(names, b.Name)
		case rib.DrainRegion:
			names = append(names, b.Region)
		}
	}
	for _, m := range s.Members {
		switch kind {
		case rib.DrainNode:
			names = append(names, m.Name)
		case rib.DrainRegion:
			names = append(names, m.Region)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (a *api) drain(w http.ResponseWriter, r *http.Request) {
	req := bodyOf[DrainRequest](r)
	view, err := a.office.Drain(r.Context(), req, r.RemoteAddr)
	if err != nil {
		a.log.Info("a drain is refused", "kind", req.Kind, "name", req.Name, "by", req.By, "error", err)
		fail(w, err)
		return
	}
	reply(w, http.StatusOK, view)
}

func (a *api) drains(w http.ResponseWriter, _ *http.Request) {
	answer := a.office.Drains()
	answer.Drains = orEmpty(answer.Drains)
	reply(w, http.StatusOK, answer)
}

// drainLeft serves what is left of a target in the whole cluster, or with here of this node alone.
func (a *api) drainLeft(here bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v := r.URL.Query()
		target, err := drainTarget(v.Get("kind"), v.Get("name"))
		if err != nil {
			fail(w, err)
			return
		}
		if !here {
			reply(w, http.StatusOK, a.office.DrainLeft(r.Context(), target))
			return
		}
		number, err := strconv.ParseUint(v.Get("number"), 10, 64)
		if err != nil {
			fail(w, badRequest("number is missing", "It is that of the word."))
			return
		}
		reply(w, http.StatusOK, a.office.DrainLeftHere(target, number))
	}
}
