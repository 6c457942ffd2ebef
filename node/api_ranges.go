package node

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"rangefinder/cluster"
	"rangefinder/cluster/balance"
)

// maxEvents bounds the answer of GET /api/v1/history.
const maxEvents = cluster.MaxHistory

// historyShown is how many events are shown if nobody says how many.
const historyShown = 100

// rangeOperations are the calls about ranges, and those that change hands.
func (a *api) rangeOperations() []operation {
	id := parameter{name: "id", about: "The move's number.", path: true, number: true}
	refused := []int{400, 404, 409, 422, 503, 504}
	list := []operation{
		{
			method: "POST", path: "/api/v1/ranges/split", summary: "Put bounds into ranges.", body: cluster.SplitSpec{}, needs: []string{"keyspace", "at"},
			status: 200, answer: RangesAnswer{}, failures: refused, forwarded: true, handle: taking(http.StatusOK, a.office.Split),
		}, {
			method: "POST", path: "/api/v1/ranges/merge", summary: "Make one range of those within an interval, which have one owner.", body: cluster.MergeSpec{}, needs: []string{"keyspace", "range"},
			status: 200, answer: RangesAnswer{}, failures: refused, forwarded: true, handle: taking(http.StatusOK, a.office.Merge),
		}, {
			method: "GET", path: "/api/v1/history", summary: "The ledger's last changes: who, when, why; newest first.",
			params: []parameter{
				{name: "keyspace", about: "Only this keyspace's."}, {name: "range", about: "Only what meets this range of it."}, {name: "move", about: "Only this move's.", number: true},
				{name: "limit", about: fmt.Sprintf("At most so many; %d if absent, %d at most.", historyShown, maxEvents), number: true},
			},
			status: 200, answer: HistoryAnswer{}, failures: []int{400, 404, 422, 503}, forwarded: true, handle: a.history,
		}, {
			method: "POST", path: forgetPath, summary: "Have nobody wait for a node that is gone for good. Refused while it may be alive.",
			body: cluster.ForgetSpec{}, needs: []string{"node"}, status: 200, answer: ForgottenView{}, failures: refused, forwarded: true,
			handle: taking(http.StatusOK, a.office.ForgetNode),
		}, {
			method: "GET", path: "/api/v1/moves", summary: "Ranges on their way to another shard, and how far they are.", status: 200, answer: MovesAnswer{}, forwarded: true,
			handle: func(w http.ResponseWriter, r *http.Request) {
				v, err := a.office.Moves(r.Context())
				answered(w, http.StatusOK, v, err)
			},
		}, {
			method: "POST", path: "/api/v1/moves", summary: "Move a range with its rows to another shard. What stands against it is named before anything is touched.",
			body: cluster.MoveRequest{}, needs: []string{"keyspace", "range", "to"}, status: 202, answer: MoveView{}, failures: refused, forwarded: true,
			handle: taking(http.StatusAccepted, a.office.StartMove),
		}, {
			method: "GET", path: "/api/v1/moves/{id}", summary: "One move, also when it is over.", params: []parameter{id}, status: 200, answer: MoveView{}, failures: []int{400, 404, 503},
			handle: func(w http.ResponseWriter, r *http.Request) {
				id, err := moveID(r)
				if err != nil {
					fail(w, err)
					return
				}
				v, err := a.office.Move(r.Context(), id)
				answered(w, http.StatusOK, v, err)
			},
		}, {
			method: "GET", path: "/api/v1/rebalance", summary: "Which ranges should have another shard, by what the shards hold and do now. It takes a few seconds, and changes nothing.",
			params: []parameter{
				{name: "keyspace", about: "Only this one's ranges."}, {name: "empty", about: "A shard that is to have none any more."}, {name: "only", about: "The one shard that may be given ranges."},
				{name: "tolerance", about: "By how much of the mean the heaviest shard may be above the lightest; 0.1 if absent."},
			},
			status: 200, answer: balance.Plan{}, failures: []int{400, 404, 409, 422}, handle: a.rebalance,
		}, {
			method: "GET", path: routingMapPath, summary: "Ranges that go back to the shard that had them, and when.", status: 200, answer: LoansAnswer{},
			handle: func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, a.office.Loans()) },
		}, {
			method: "POST", path: routingMapPath, summary: "Give a range that holds no rows another shard, for good or for a time. One that holds rows is refused, with their count.",
			body: RoutingMapRequest{}, needs: []string{"partition_key_range", "target_backend"}, status: 200, later: "It takes longer, and goes on: GET /api/v1/moves/{id} tells.",
			answer: RoutingMapView{}, failures: refused, forwarded: true, handle: taking(http.StatusOK, a.office.MapRange),
		},
	}
	for what, about := range map[string]string{
		movePause: "Have a move stop before its next step that costs something.", moveResume: "Have a paused move go on.", moveAbort: "End a move with the range where it was, and remove all it has left. Before the flip alone.",
	} {
		list = append(list, operation{
			method: "POST", path: "/api/v1/moves/{id}/" + what, summary: about, params: []parameter{id}, body: MoveOrder{}, status: 200, answer: MoveView{}, failures: refused, forwarded: true,
			handle: func(w http.ResponseWriter, r *http.Request) {
				id, err := moveID(r)
				if err != nil {
					fail(w, err)
					return
				}
				v, err := a.office.ChangeMove(r.Context(), id, what, bodyOf[MoveOrder](r))
				answered(w, http.StatusOK, v, err)
			},
		})
	}
	return list
}

// taking serves a call that takes a body and answers with a value.
func taking[B, V any](status int, do func(context.Context, B) (V, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := do(r.Context(), bodyOf[B](r))
		if s, ok := any(v).(interface{ status() int }); ok {
			answered(w, s.status(), v, err)
			return
		}
		answered(w, status, v, err)
	}
}

func answered(w http.ResponseWriter, status int, v any, err error) {
	if err != nil {
		fail(w, statusOf(err))
		return
	}
	reply(w, status, v)
}

func moveID(r *http.Request) (uint64, error) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err != nil || id == 0 {
		return 0, badRequest(fmt.Sprintf("%.40q is no move's number", r.PathValue("id")), "GET /api/v1/moves lists them.")
	}
	return id, nil
}

func (a *api) history(w http.ResponseWriter, r *http.Request) {
	q, err := historyQuery(r.URL.Query())
	if err != nil {
		fail(w, err)
		return
	}
	v, err := a.office.History(r.Context(), q)
	answered(w, http.StatusOK, v, err)
}

func historyQuery(v url.Values) (q HistoryQuery, err error) {
	q = HistoryQuery{Keyspace: v.Get("keyspace"), Range: v.Get("range"), Limit: historyShown}
	if text := v.Get("limit"); text != "" {
		if q.Limit, err = strconv.Atoi(text); err != nil || q.Limit < 1 || q.Limit > maxEvents {
			return q, badRequest(fmt.Sprintf("limit is %.40q", text), fmt.Sprintf("It is a number from 1 to %d.", maxEvents))
		}
	}
	if text := v.Get("move"); text != "" {
		if q.Move, err = strconv.ParseUint(text, 10, 64); err != nil {
			return q, badRequest(fmt.Sprintf("move is %.40q", text), "It is a move's number.")
		}
	}
	if q.Range != "" && q.Keyspace == "" {
		return q, badRequest("range is given without keyspace", "Say which keyspace's range it is.")
	}
	return q, nil
}

// path is the call that asks this.
func (q HistoryQuery) path() string {
	v := url.Values{"limit": {strconv.Itoa(q.Limit)}}
	if q.Keyspace != "" {
		v.Set("keyspace", q.Keyspace)
	}
	if q.Range != "" {
		v.Set("range", q.Range)
	}
	if q.Move != 0 {
		v.Set("move", strconv.FormatUint(q.Move, 10))
	}
	return "/api/v1/history?" + v.Encode()
}
