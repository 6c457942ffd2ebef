package rib

// Reach says from where a backend can be reached: that this node cannot is another thing than that nobody can.
type Reach uint8

// The ways to stand to a backend.
const (
	ReachUnknown  Reach = iota // nobody says anything of it
	ReachAll                   // nothing speaks against it
	ReachNotHere               // this node cannot reach it; others can, or say nothing
	ReachHereOnly              // its observers cannot reach it; this node has met nothing against it itself
	ReachNobody                // neither can this node nor can its observers
)

var reachNames = [...]string{"unknown", "all", "not from here", "not by its observers", "nobody"}

// String is the reach in a few words.
func (r Reach) String() string { return nameOf(reachNames[:], uint8(r)) }

// Reach is who can reach the backend, as far as this node knows.
func (v *BackendView) Reach() Reach {
	switch {
	case v.Evidence != "" && v.Verdict == Down:
		return ReachNobody
	case v.Evidence != "":
		return ReachNotHere
	case v.Verdict == Down:
		return ReachHereOnly
	case v.Verdict == Up:
		return ReachAll
	}
	return ReachUnknown
}

// WhyUnreached is why the backend cannot be reached, and by whom; "" if nothing speaks against it.
func (v *BackendView) WhyUnreached() string {
	switch v.Reach() {
	case ReachNotHere:
		if v.Verdict == Up {
			return "this node cannot reach it, others can: " + v.Evidence
		}
		return "this node cannot reach it: " + v.Evidence
	case ReachNobody:
		return "nobody can reach it, nor can this node: " + v.Evidence
	case ReachHereOnly:
		return v.Reason
	}
	return ""
}
