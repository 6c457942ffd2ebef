package move

import "encoding/json"

// step is where a move stands within its phase.
type step string

const (
	stepCheck  step = ""       // nothing was touched yet
	stepCopy   step = "copy"   // the servers may hold anything
	stepFollow step = "follow" // the copy is whole, the target follows
	stepFence  step = "fence"
	stepThaw   step = "thaw" // the range was frozen in vain: the fence may be shut, and the copy is whole
	stepDetach step = "detach"
	stepDelete step = "delete"
	stepWait   step = "wait" // for the last nodes to say that they know
	stepClean  step = "clean"
)

// note is what the next leader needs to go on, beside the phase.
type note struct {
	Step     step     `json:"step,omitempty"`
	Touched  bool     `json:"touched,omitempty"` // something may have been changed on the servers
	Paused   bool     `json:"paused,omitempty"`
	Identity Identity `json:"identity,omitzero"`
	Leader   uint64   `json:"leader,omitempty"`  // term of the last one who took the move over
	Thawed   int      `json:"thawed,omitempty"`  // how often the range was frozen in vain
	Problem  string   `json:"problem,omitempty"` // why, the last time
}

func (n note) encode() []byte {
	b, err := json.Marshal(n)
	if err != nil {
		return nil // there is nothing in it that cannot be written
	}
	return b
}

// Cleared tells by a move's note whether the source's rows are deleted.
func Cleared(b []byte) bool { return decodeNote(b).Step == stepWait }

// decodeNote reads a note; of what nobody understands the zero one, with which everything is done again.
func decodeNote(b []byte) (n note) {
	if len(b) > 0 && json.Unmarshal(b, &n) != nil {
		return note{Touched: true}
	}
	return n
}
