package node

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"rangefinder/cluster"
	"rangefinder/rib"
)

// Bounds of a hand-over by POST /api/v1/routing-map.
const (
	longestTTL  = int64(10 * 365 * 24 * 3600) // seconds
	mapPatience = 30 * time.Second            // for the range to change hands, while the caller waits
	mapDrain    = 5 * time.Second             // and then for all nodes to say that they know
)

// RoutingMapRequest is the body of POST /api/v1/routing-map: a range that holds no rows gets another shard.
type RoutingMapRequest struct {
	Range     string `json:"partition_key_range" doc:"1000-2000, or 1000..2000; its end is not part of it. ..1000 and 2000.. are open."`
	Target    string `json:"target_backend" doc:"The shard that is to own the range."`
	TTL       *int64 `json:"ttl,omitempty" doc:"Seconds after which the range goes back to the shard that had it, unless it holds rows then. Absent: it stays."`
	Keyspace  string `json:"keyspace,omitempty" doc:"Which one, of the method range. Needed where there are several."`
	Reason    string `json:"reason,omitempty" doc:"For the history."`
	RequestID string `json:"request_id,omitempty" doc:"Instead of the header X-Request-Id."`
}

// RoutingMapView is what became of it.
type RoutingMapView struct {
	Keyspace string     `json:"keyspace"`
	Range    string     `json:"partition_key_range"`
	From     string     `json:"from"` // the shard that had the range
	Target   string     `json:"target_backend"`
	Changed  bool       `json:"changed"` // the target has got it; false: it is the target's already, or, with status 202, not yet
	Epoch    string     `json:"epoch"`   // of the range's owner
	Move     uint64     `json:"move,omitempty"`
	Phase    string     `json:"phase,omitempty"` // of the move; with status 202 it has not flipped yet: see GET /api/v1/moves/{id}
	Drained  *DrainedAs `json:"drained,omitempty"`
	Until    *time.Time `json:"until,omitempty"` // when it goes back, if it holds no rows then
}

// DrainedAs is how the old route was left.
type DrainedAs struct {
	MS      int64    `json:"ms"`      // from when nodes were told to hold new transactions back until the new owner had the range
	Missing []string `json:"missing"` // nodes that have not said yet that they know; the old shard refuses what they send
}

// MapRange gives a range without rows to another shard, by a move: so the old shard refuses what comes too late, and rows that are written
// in the meantime are not lost but move along.
func (n *Node) MapRange(ctx context.Context, r RoutingMapRequest) (RoutingMapView, error) {
	origin := cluster.Origin{Reason: r.Reason, RequestID: r.RequestID}
	sign(ctx, &origin)
	r.RequestID = origin.RequestID
	return onLeader(ctx, n, routingMapPath, r, func(ctx context.Context) (v RoutingMapView, err error) {
		if err := n.leads(); err != nil {
			return v, err
		}
		return n.mapHere(ctx, r, origin)
	})
}

const routingMapPath = "/api/v1/routing-map"

func (n *Node) mapHere(ctx context.Context, r RoutingMapRequest, origin cluster.Origin) (v RoutingMapView, err error) {
	o := n.table.Owners().Get()
	ks, err := rangeKeyspace(o, r.Keyspace)
	if err != nil {
		return v, err
	}
	if r.Range == "" {
		return v, badRequest("partition_key_range is missing", `For example "partition_key_range": "1000-2000".`)
	}
	low, high, err := ks.ParseInterval(r.Range)
	if err != nil {
		return v, badRange(ks, r.Range, err)
	}
	ttl, err := lentFor(r.TTL)
	if err != nil {
		return v, err
	}
	if r.Target == "" {
		return v, badRequest("target_backend is missing", `Name a shard, for example "target_backend": "shard_3".`)
	}
	if err := n.shardNamed(r.Target); err != nil {
		return v, err
	}
	v = RoutingMapView{Keyspace: ks.Name, Range: ks.FormatInterval(low, high), Target: r.Target}
	request := cluster.MoveRequest{Keyspace: ks.Name, Range: v.Range, To: r.Target, TTL: ttl, Origin: origin}
	if done := n.ledger().Requested(origin.RequestID); done != nil { // a repetition: the ledger has the move, or its end
		return n.mappedAgain(ctx, v, ks, low, high, request, done)
	}
	owned := owners(ks, low, high)
	switch {
	case len(owned) > 1:
		return v, &apiError{Status: http.StatusConflict, ErrorView: ErrorView{
			Code: codeSeveralOwners, Error: fmt.Sprintf("range %s belongs to several shards: %s", v.Range, strings.Join(owned, ", ")),
			Hint: "Nothing was changed. Name a range of one owner; 'rangefinder range list --keyspace " + ks.Name + "' lists them.",
		}}
	case owned[0] == r.Target:
		return n.alreadyMapped(ctx, v, ks, low, high, ttl, origin)
	}
	v.From = owned[0]
	for i := range o.Moves {
		if m := &o.Moves[i]; m.Keyspace == ks.ID && m.Meets(low, high) {
			return v, &apiError{Status: http.StatusConflict, ErrorView: ErrorView{
				Code: codeMoving, Error: fmt.Sprintf("range %s is under move %d from %s to %s (%s)", ks.FormatInterval(m.Low, m.High), m.ID, m.From, m.To, m.Phase),
				Hint: movingHint(m),
			}}
		}
	}
	if err := n.healthyShard(r.Target); err != nil {
		return v, unhealthy(err)
	}
	limited, cancel := context.WithTimeout(ctx, countTime)
	defer cancel()
	found, err := n.countRows(limited, ks, low, high, v.From)
	switch {
	case err != nil && limited.Err() != nil && ctx.Err() == nil:
		return v, tooLarge(&v, err)
	case err != nil:
		return v, unhealthy(err)
	case found.rows > 0:
		return v, rowsPresent(&v, found)
	}
	return n.mapped(ctx, v, ks, low, high, request)
}

// rangeKeyspace finds the keyspace that a call without a name means.
func rangeKeyspace(o *rib.Ownership, name string) (*rib.Keyspace, error) {
	if name != "" {
		ks := o.KeyspaceByName(name)
		switch {
		case ks == nil:
			return nil, noKeyspace(name)
		case ks.Method != "range":
			return nil, &apiError{Status: http.StatusUnprocessableEntity, ErrorView: ErrorView{
				Error: fmt.Sprintf("keyspace %s shards by %s: a range of its keys is no range of values", ks.Name, ks.Method), Hint: "Only keyspaces of the method range have them; 'rangefinder move start' moves any range.",
			}}
		}
		return ks, nil
	}
	var found []*rib.Keyspace
	var names []string
	for i := range o.Keyspaces {
		if ks := &o.Keyspaces[i]; ks.Method == "range" {
			found, names = append(found, ks), append(names, ks.Name)
		}
	}
	switch len(found) {
	case 0:
		return nil, &apiError{Status: http.StatusUnprocessableEntity, ErrorView: ErrorView{Error: "there is no keyspace of the method range", Hint: "Make one with 'rangefinder keyspace create ... --method range'."}}
	case 1:
		return found[0], nil
	}
	return nil, badRequest("there are several keyspaces of the method range, and keyspace is missing", "Say which, as 'keyspace' (on the command line --keyspace, in SQL KEYSPACE name): "+strings.Join(names, " or ")+".")
}

// lentFor is for how long a range is lent; zero: for good.
func lentFor(ttl *int64) (time.Duration, error) {
	if ttl == nil {
		return 0, nil
	}
	if *ttl < 1 || *ttl > longestTTL {
		return 0, &apiError{Status: http.StatusUnprocessableEntity, ErrorView: ErrorView{
			Code: codeTTL, Error: fmt.Sprintf("ttl is %d: it is a number of seconds from 1 to %d", *ttl, longestTTL), Hint: "Leave it out for a range that is to stay. Nothing was changed.",
		}}
	}
	return time.Duration(*ttl) * time.Second, nil
}

// countTime bounds how long it is looked for rows while a client waits: a large table without an index that begins with its key is read whole.
const countTime = 20 * time.Second

// tooLarge answers for a range of which it is not known in time whether it holds rows.
func tooLarge(v *RoutingMapView, err error) *apiError {
	return &apiError{Status: http.StatusConflict, ErrorView: ErrorView{
		Code: codeRows, Error: fmt.Sprintf("it is not known after %s whether range %s of %s holds rows on %s: %v", countTime, v.Range, v.Keyspace, v.From, err),
		Hint: "Nothing was changed. An index that begins with the key helps. A move needs to know nothing: " + moveCommand(v), Offer: offer(v),
	}}
}

func moveCommand(v *RoutingMapView) string {
	return fmt.Sprintf("rangefinder move start %s %s --to %s", v.Keyspace, v.Range, v.Target)
}

// offer is a move in place of what was asked for.
func offer(v *RoutingMapView) *OfferView {
	return &OfferView{Method: http.MethodPost, Path: "/api/v1/moves", Body: cluster.MoveRequest{Keyspace: v.Keyspace, Range: v.Range, From: v.From, To: v.Target}, Command: moveCommand(v)}
}

func rowsPresent(v *RoutingMapView, found rowsFound) *apiError {
	return &apiError{Status: http.StatusConflict, ErrorView: ErrorView{
		Code: codeRows, Error: fmt.Sprintf("range %s of %s holds %s on %s: only an empty range changes hands at once", v.Range, v.Keyspace, found, v.From),
		Detail: strings.Join(found.where, ", "), Rows: found.rows,
		Hint:  "Nothing was changed. Move the range with its rows: " + moveCommand(v),
		Offer: offer(v),
	}}
}

// alreadyMapped answers for a range that is the target's. If it is lent, it is from now on for as long as is asked.
func (n *Node) alreadyMapped(ctx context.Context, v RoutingMapView, ks *rib.Keyspace, low, high rib.Key, ttl time.Duration, o cluster.Origin) (RoutingMapView, error) {
	v.From, v.Epoch = v.Target, ks.Ranges[ks.Owner(low)].Epoch.String()
	l := lentWithin(n.table.Owners().Get(), ks, low, high)
	var err error
	switch {
	case l == nil && ttl == 0:
		return v, nil
	case l == nil:
		return v, &apiError{Status: http.StatusConflict, ErrorView: ErrorView{
			Code: codeConflict, Error: fmt.Sprintf("range %s belongs to %s already, for good: there is nobody whom it could go back to", v.Range, v.Target), Hint: "Nothing was changed. Leave ttl out, or name another shard.",
		}}
	case l.Low.Compare(low) != 0 || l.High.Compare(high) != 0:
		return v, lentOtherwise(ks, l, v.Range)
	case ttl == 0:
		v.From = l.From
		_, err = n.ledger().EndLoan(ctx, l.ID, o)
	default:
		var now rib.Loan
		now, err = n.ledger().LendFor(ctx, l.ID, ttl, o)
		v.From, v.Until = l.From, &now.Until
	}
	return v, err
}

// lentWithin is a loan that a range meets; nil: there is none.
func lentWithin(o *rib.Ownership, ks *rib.Keyspace, low, high rib.Key) *rib.Loan {
	for i := range o.Loans {
		if l := &o.Loans[i]; l.Keyspace == ks.ID && rib.Meet(l.Low, l.High, low, high) {
			return l
		}
	}
	return nil
}

// lentOtherwise refuses another time for a part of a range that is lent.
func lentOtherwise(ks *rib.Keyspace, l *rib.Loan, asked string) *apiError {
	span := ks.FormatInterval(l.Low, l.High)
	return &apiError{Status: http.StatusConflict, ErrorView: ErrorView{
		Code:  codeConflict,
		Error: fmt.Sprintf("range %s is not the one that is lent: %s is %s's until %s, and goes back to %s then", asked, span, l.To, l.Until.Format(time.RFC3339), l.From),
		Hint:  fmt.Sprintf("Nothing was changed. Name all of what is lent, %[1]s; or have it stay for good first: rangefinder range map %[1]s --to %[2]s --keyspace %[3]s", span, l.To, ks.Name),
	}}
}

// mappedAgain answers a request that was carried out, or is being carried out. The ledger says whether it is the same.
func (n *Node) mappedAgain(ctx context.Context, v RoutingMapView, ks *rib.Keyspace, low, high rib.Key, r cluster.MoveRequest, done *cluster.Event) (_ RoutingMapView, err error) {
	if done.Move == 0 || done.Keyspace != ks.Name || done.To != v.Target || done.Low.Compare(low) != 0 || done.High.Compare(high) != 0 {
		return v, statusOf(&cluster.RejectedError{Reason: cluster.ErrRequestReused, Text: fmt.Sprintf("request id %.100q was used for another command: use a new one", done.Request)})
	}
	v.From, v.Epoch = done.From, ks.Ranges[ks.Owner(low)].Epoch.String()
	if r.TTL > 0 {
		until := done.At.Add(r.TTL)
		v.Until = &until
	}
	switch {
	case done.Phase != 0: // of a move
		return n.mapped(ctx, v, ks, low, high, r)
	case r.TTL > 0:
		_, err = n.ledger().LendFor(ctx, done.Move, r.TTL, r.Origin)
	default:
		_, err = n.ledger().EndLoan(ctx, done.Move, r.Origin)
	}
	return v, err
}

// mapped hands the range over and waits until it is done.
func (n *Node) mapped(ctx context.Context, v RoutingMapView, ks *rib.Keyspace, low, high rib.Key, r cluster.MoveRequest) (RoutingMapView, error) {
	m, err := n.begin(ctx, ks, low, high, r)
	if err != nil {
		return v, err
	}
	if !m.Until.IsZero() { // of a move that is over there is the number alone
		v.Until = &m.Until
	}
	if m.From != "" {
		v.From = m.From
	}
	v.Epoch = ks.Ranges[ks.Owner(low)].Epoch.String() // until it has changed hands
	return n.handedOver(ctx, v, m.ID)
}

// handedOver waits until a move has flipped, and then a little for the nodes.
func (n *Node) handedOver(ctx context.Context, v RoutingMapView, id uint64) (RoutingMapView, error) {
	v.Move = id
	var frozen time.Time
	deadline := time.Now().Add(mapPatience)
	for {
		now := n.table.Owners().Get().Move(id)
		switch {
		case now != nil && now.Phase == rib.MoveAborted:
			return v, aborted(now.Why)
		case now != nil && now.Phase == rib.MoveFrozen && frozen.IsZero():
			frozen = time.Now()
		case now == nil || now.Phase == rib.MoveFlipped:
			return n.drainedOf(ctx, v, id, frozen)
		}
		v.Phase = now.Phase.String()
		if time.Now().After(deadline) || !pause(ctx, 10*time.Millisecond) {
			return v, nil
		}
		if n.leads() != nil { // the next leader carries it on
			return v, &apiError{Status: http.StatusServiceUnavailable, RetryAfter: retryLeader, ErrorView: ErrorView{
				Error: fmt.Sprintf("the range is on its way to %s by move %d, and the node that led does not lead any more", v.Target, id),
				Hint:  fmt.Sprintf("Ask again with the same X-Request-Id, or look with 'rangefinder move status %d'.", id),
			}}
		}
	}
}

// status is the status of what became of it: 202 while the range has not changed hands.
func (v RoutingMapView) status() int {
	if v.Move != 0 && !v.Changed {
		return http.StatusAccepted
	}
	return http.StatusOK
}

func aborted(why string) *apiError {
	return &apiError{Status: http.StatusConflict, ErrorView: ErrorView{
		Code: codeAborted, Error: "the hand-over was given up, and the range is where it was: " + why, Hint: "Mend what is named, and ask again.",
	}}
}

// drainedOf waits a little for the nodes to say that they know the new owner, and reports.
func (n *Node) drainedOf(ctx context.Context, v RoutingMapView, id uint64, frozen time.Time) (RoutingMapView, error) {
	v.Drained = &DrainedAs{Missing: []string{}}
	events, err := n.ledger().History(ctx, cluster.HistoryFilter{Move: id})
	if err != nil {
		return v, err
	}
	var since, flipped time.Time
	for i := range events {
		switch events[i].Phase {
		case rib.MoveFrozen:
			since = events[i].At
		case rib.MoveFlipped:
			flipped, v.Epoch = events[i].At, events[i].Epoch.String()
		case rib.MoveAborted:
			return v, aborted(events[i].Reason)
		}
		if events[i].Phase == rib.MoveFlipped {
			break
		}
	}
	if !since.IsZero() && flipped.After(since) {
		v.Drained.MS = flipped.Sub(since).Milliseconds()
	} else if !frozen.IsZero() {
		v.Drained.MS = time.Since(frozen).Milliseconds()
	}
	v.Phase, v.Changed = rib.MoveFlipped.String(), true
	for deadline := time.Now().Add(mapDrain); ; {
		m := n.table.Owners().Get().Move(id)
		if m == nil {
			v.Phase, v.Drained.Missing = phaseOver, []string{}
			return v, nil
		}
		// Of a move that is not at its end yet the view names nobody, for nobody is waited for yet.
		v.Drained.Missing = orEmpty(n.ledger().Leases().Acknowledged(m.Epoch))
		if len(v.Drained.Missing) == 0 || time.Now().After(deadline) || !pause(ctx, 20*time.Millisecond) {
			return v, nil
		}
	}
}
