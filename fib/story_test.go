package fib_test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rangefinder/fib"
	"rangefinder/rib"
)

var rewrite = flag.Bool("rewrite", false, "write what the stories give now into testdata")

// The stories in testdata are commands, a line of dashes, and what they print. They are told to a rib.Table; routes are
// asked of a table compiled from it. The commands:
//
//	region R                              this node stands in R (first line of a story)
//	node N R | gone N                     another node joins, or is lost
//	distance R D [for T]                  this node measures the distance to R once a second, for T (default 10s)
//	shard S ID                            the ledger records the shard with its system identifier
//	own KEYSPACE METHOD TYPE FROM..TO=S … the ledger gives the ranges of a keyspace to shards
//	backend B S R [id=N]                  this node announces a backend of shard S in region R (id: the shard's own)
//	unlist B                              this node's configuration has B no more
//	up B | down B | unsure B  [by N] [primary|replica] [timeline=N] [lag=D] [bytes=N] [load=below|between|limit] [latency=D]
//	                                      an observer (default: all nodes) says so; what is not said stays
//	evidence B [why]                      this node itself cannot reach B; without why: it can again
//	flight B N                            N statements of this node are in flight on B
//	reads B N in D                        B answers N reads of this node, each in D
//	errors B N                            B answers N statements of this node with errors of the server
//	wait D                                time passes: once a second this node judges how backends answer
//	policy [lag=D] [bytes=N]              how far behind a replica may be; 0: no bound (first: lag=10s)
//	prefer DATABASE R … [only]            a database's reads go to these regions first; only: and to no others
//	drain region|backend|node N by WHO [for D] [why …]
//	undrain region|backend|node N by WHO  an operator wants N to get no more work, or takes that back
//	observers B                           asks which nodes are to observe B
//	verdict B                             asks what its observers say of B, and who can reach it
//	uses SHARD                            asks which of its backends get statements, and why not
//	route read|write SHARD [for DATABASE] asks where a statement goes
//	route read|write KEYSPACE KEY
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			old, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			told := tell(t, string(old))
			if *rewrite {
				if err := os.WriteFile(file, []byte(told), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, got := strings.Split(string(old), "\n"), strings.Split(told, "\n")
			for i := range max(len(want), len(got)) {
				if i >= len(want) || i >= len(got) || want[i] != got[i] {
					t.Fatalf("%s:%d: the story went otherwise; now it is told:\n%s", file, i+1, strings.Join(got[max(0, i-3):min(len(got), i+8)], "\n"))
				}
			}
		})
	}
}

// tell runs a story and gives it back with what it printed.
func tell(t *testing.T, text string) string {
	var out strings.Builder
	var s *story
	for _, chapter := range strings.Split(strings.TrimSpace(text), "\n\n") {
		commands, _, asked := strings.Cut(chapter+"\n", "----\n")
		commands = strings.TrimSuffix(commands, "\n") + "\n"
		out.WriteString(commands)
		var printed strings.Builder
		for _, line := range strings.Split(commands, "\n") {
			words := strings.Fields(line)
			if len(words) == 0 || strings.HasPrefix(line, "#") {
				continue
			}
			if words[0] == "region" {
				s = newStory(t, words[1])
				continue
			}
			if s == nil {
				t.Fatal("a story begins with its region")
			}
			printed.WriteString(s.command(line, words))
		}
		if asked || printed.Len() > 0 {
			out.WriteString("----\n" + printed.String())
		}
		out.WriteString("\n")
	}
	return strings.TrimSuffix(out.String(), "\n")
}

// story is the interpreter's state.
type story struct {
	t      *testing.T
	table  *rib.Table
	ledger rib.Ownership
	policy rib.Policy
	judge  *rib.Outliers
	rtt    map[string]map[string]time.Duration
	routes map[[2]string]rib.Route // the last by backend and observer
	seq    uint64
	now    time.Time
}

func newStory(t *testing.T, region string) *story {
	s := &story{
		t: t, table: rib.NewTable(rib.Member{Name: "me", Region: region}), policy: rib.Policy{MaxLag: 10 * time.Second},
		judge: rib.NewOutliers(), rtt: map[string]map[string]time.Duration{region: {}},
		routes: map[[2]string]rib.Route{}, now: time.Unix(1_700_000_000, 0),
	}
	s.policed(func(*rib.Policy) {})
	return s
}

// policed puts another policy in force.
func (s *story) policed(change func(*rib.Policy)) {
	next := s.policy
	next.Databases = maps.Clone(next.Databases)
	change(&next)
	s.policy = next
	s.table.Local().SetPolicy(&next)
}

// pass lets time pass, a second at a time.
func (s *story) pass(d time.Duration) {
	rules := rib.OutlierRules{Errors: 5, Slowness: 4, Base: 30 * time.Second, Longest: 5 * time.Minute, WarmUp: 30 * time.Second}
	for range d / time.Second {
		s.now = s.now.Add(time.Second)
		s.table.Local().Try(s.judge.Judge(s.table.Snapshot(), rules, s.now))
	}
	s.table.Health().Expire(s.now)
}

func (s *story) view(backend string) *rib.BackendView {
	snapshot := s.table.Snapshot()
	for i := range snapshot.Backends {
		if snapshot.Backends[i].Backend.Name == backend {
			return &snapshot.Backends[i]
		}
	}
	s.t.Fatalf("nobody announces %s", backend)
	return nil
}

func (s *story) command(line string, words []string) string {
	s.t.Helper()
	h, args := s.table.Health(), words[1:]
	s.seq++
	stamp := rib.Stamp{Incarnation: 1, Seq: s.seq}
	switch words[0] {
	case "node":
		h.MemberUp(rib.Member{Name: args[0], Region: args[1]})
	case "gone":
		h.MemberGone(args[0], s.now)
	case "distance":
		seconds := 10
		if len(args) > 3 {
			seconds = int(s.duration(args[3]) / time.Second)
		}
		for range seconds {
			s.now = s.now.Add(time.Second)
			h.Distance(args[0], s.duration(args[1]), s.now)
		}
		s.rtt[s.table.Snapshot().Self.Region][args[0]] = s.duration(args[1])
	case "shard":
		s.record(func(o *rib.Ownership) {
			o.Shards = append(slices.Clone(o.Shards), rib.Shard{Name: args[0], SystemID: s.number(args[1])})
		})
	case "own":
		s.own(args)
	case "backend":
		b := rib.Backend{Name: args[0], Shard: args[1], Region: args[2], Addr: args[0] + ":5432"}
		if shard := s.ledger.Shard(b.Shard); shard != nil {
			b.SystemID = shard.SystemID
		}
		if len(args) > 3 {
			b.SystemID = s.number(strings.TrimPrefix(args[3], "id="))
		}
		h.Announce(rib.Announcement{Backend: b, Observer: "me", Stamp: stamp})
	case "unlist":
		h.Announce(rib.Announcement{Backend: rib.Backend{Name: args[0]}, Observer: "me", Stamp: stamp, Gone: true})
	case "up", "down", "unsure":
		s.observe(words[0], args[0], args[1:])
	case "evidence":
		h.Evidence(args[0], len(args) > 1, strings.Join(args[1:], " "))
	case "wait":
		s.pass(s.duration(args[0]))
	case "flight":
		s.view(args[0]).Gauge.InFlight.Store(int32(s.number(args[1])))
	case "reads":
		for range s.number(args[1]) {
			s.view(args[0]).Gauge.Read(s.duration(args[3]))
		}
	case "errors":
		for range s.number(args[1]) {
			s.view(args[0]).Gauge.Failed()
		}
	case "policy":
		s.policed(func(p *rib.Policy) {
			for _, word := range args {
				switch name, value, _ := strings.Cut(word, "="); name {
				case "lag":
					p.MaxLag = s.duration(value)
				case "bytes":
					p.MaxLagBytes = int64(s.number(value))
				default:
					s.t.Fatalf("unknown word %q", word)
				}
			}
		})
	case "prefer":
		s.policed(func(p *rib.Policy) {
			regions := args[1:]
			pinned := len(regions) > 0 && regions[len(regions)-1] == "only"
			if pinned {
				regions = regions[:len(regions)-1]
			}
			if p.Databases == nil {
				p.Databases = map[string]rib.Preference{}
			}
			p.Databases[args[0]] = rib.Preference{Regions: regions, Pinned: pinned}
		})
	case "drain", "undrain":
		s.drain(words[0] == "undrain", args)
	case "observers":
		v, members := s.view(args[0]), s.table.Snapshot().Observing()
		return line + "\n  " + strings.Join(rib.NewPlaces(members, s.rtt).Observers(&v.Backend, v.AuthorRegion), ", ") + "\n"
	case "verdict":
		v := s.view(args[0])
		return fmt.Sprintf("%s\n  for all: %v, %s\n  reach: %v\n", line, v.Verdict, v.Reason, v.Reach())
	case "uses":
		return line + "\n" + s.uses(args[0])
	case "route":
		return line + "\n" + s.route(args)
	default:
		s.t.Fatalf("unknown command %q", line)
	}
	return ""
}

// drain gives an operator's word, as the node would that he tells it to.
func (s *story) drain(back bool, args []string) {
	kind, ok := rib.ParseDrainKind(args[0])
	if !ok || args[2] != "by" {
		s.t.Fatalf("unknown words %q", args)
	}
	d := rib.Drain{Target: rib.DrainTarget{Kind: kind, Name: args[1]}, Back: back, Author: "me", By: args[3], Since: s.now.Unix()}
	args = args[4:]
	if len(args) > 1 && args[0] == "for" {
		d.Until, args = s.now.Add(s.duration(args[1])).Unix(), args[2:]
	}
	if len(args) > 1 && args[0] == "why" {
		d.Why, args = strings.Join(args[1:], " "), nil
	}
	if len(args) > 0 {
		s.t.Fatalf("unknown words %q", args)
	}
	held, _ := s.table.Health().DrainOf(d.Target)
	d.Number = held.Number + 1
	if _, err := s.table.Health().Drain(d, s.now); err != nil {
		s.t.Fatal(err)
	}
}

func (s *story) duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *story) number(text string) (n uint64) {
	if _, err := fmt.Sscanf(text, "%d", &n); err != nil {
		s.t.Fatalf("%q: %v", text, err)
	}
	return n
}

// record makes the ledger's next epoch.
func (s *story) record(change func(*rib.Ownership)) {
	next := s.ledger
	change(&next)
	next.Epoch.Index++
	s.ledger = next
	s.table.Owners().Set(&next)
}

func (s *story) own(args []string) {
	typ, err := rib.ParseType(args[2])
	if err != nil {
		s.t.Fatal(err)
	}
	m, err := rib.MethodByName(args[1])
	if err != nil {
		s.t.Fatal(err)
	}
	s.record(func(o *rib.Ownership) {
		k := rib.Keyspace{ID: rib.KeyspaceID(len(o.Keyspaces) + 1), Name: args[0], Method: args[1], Types: []rib.Type{typ}}
		o.Keyspaces = slices.Clone(o.Keyspaces)
		if old := o.KeyspaceByName(k.Name); old != nil {
			k.ID = old.ID
			o.Keyspaces = slices.DeleteFunc(o.Keyspaces, func(x rib.Keyspace) bool { return x.ID == k.ID })
		}
		for _, r := range args[3:] {
			interval, shard, _ := strings.Cut(r, "=")
			from, to, err := rib.ParseInterval(m, k.Types, interval)
			if err != nil {
				s.t.Fatal(err)
			}
			k.Ranges = append(k.Ranges, rib.Range{From: from, To: to, Shard: shard, Epoch: rib.Epoch{Index: o.Epoch.Index + 1}})
		}
		o.Keyspaces = append(o.Keyspaces, k)
	})
}

func (s *story) observe(state, backend string, words []string) {
	var observers []string
	for _, m := range s.table.Snapshot().Members {
		observers = append(observers, m.Name)
	}
	change := func(*rib.Route) {}
	for i := 0; i < len(words); i++ {
		word, before := words[i], change
		switch name, value, _ := strings.Cut(word, "="); name {
		case "by":
			i++
			observers = []string{words[i]}
		case "primary":
			change = func(r *rib.Route) { before(r); r.Role = rib.Primary }
		case "replica":
			change = func(r *rib.Route) { before(r); r.Role = rib.Replica }
		case "timeline":
			change = func(r *rib.Route) { before(r); r.Timeline = uint32(s.number(value)) }
		case "bytes":
			change = func(r *rib.Route) {
				before(r)
				if r.LagBytes = rib.LagBytesUnknown; value != "unknown" {
					r.LagBytes = int64(s.number(value))
				}
			}
		case "latency":
			change = func(r *rib.Route) { before(r); r.Latency = s.duration(value) }
		case "load":
			change = func(r *rib.Route) {
				before(r)
				r.Load = map[string]rib.LoadClass{"below": rib.LoadBelow, "between": rib.LoadBetween, "limit": rib.LoadAtLimit}[value]
			}
		case "lag":
			change = func(r *rib.Route) {
				before(r)
				if r.Lag = rib.LagUnknown; value != "unknown" {
					r.Lag = s.duration(value)
				}
			}
		default:
			s.t.Fatalf("unknown word %q", word)
		}
	}
	for _, o := range observers {
		r := s.routes[[2]string{backend, o}]
		r.Backend, r.Observer, r.Stamp = backend, o, rib.Stamp{Incarnation: 1, Seq: s.seq}
		r.State = map[string]rib.State{"up": rib.Up, "down": rib.Down, "unsure": rib.StateUnknown}[state]
		if r.Timeline == 0 {
			r.Timeline = 1
		}
		change(&r)
		s.routes[[2]string{backend, o}] = r
		s.table.Health().Observe(r)
	}
}

func (s *story) route(args []string) string {
	t, err := fib.Compile(s.table.Snapshot())
	if err != nil {
		s.t.Fatal(err)
	}
	write, database := args[0] == "write", ""
	if n := len(args); args[n-2] == "for" {
		database, args = args[n-1], args[:n-2]
	}
	var e fib.Explanation
	var b strings.Builder
	if len(args) > 2 {
		k := t.Ownership().KeyspaceByName(args[1])
		m, err := rib.MethodByName(k.Method)
		if err != nil {
			s.t.Fatal(err)
		}
		v, err := rib.ParseText(k.Types[0], []byte(args[2]))
		if err != nil {
			s.t.Fatal(err)
		}
		key, err := m.AppendKey(nil, v)
		if err != nil {
			s.t.Fatal(err)
		}
		e = t.Explain(k, key, write)
		fmt.Fprintf(&b, "  key %s lies in [%s) of %s since epoch %s\n", e.Key, e.Range, e.Shard, e.Epoch)
	} else {
		e = t.ExplainShard(args[1], database, write)
	}
	var order []string
	for _, v := range e.Backends {
		place := "-"
		if v.Order > 0 {
			place = fmt.Sprint(v.Order)
			order = append(order, v.Backend)
		}
		fmt.Fprintf(&b, "  %s  %s, %s in %s: %s\n", place, v.Backend, v.Role, v.Region, v.Reason)
	}
	if e.Problem != "" {
		fmt.Fprintf(&b, "  problem: %s\n", e.Problem)
	}
	s.agrees(t, e, database, write, order)
	return b.String()
}

// uses fails if what is said of the shard's backends is not what the candidate lists do.
func (s *story) uses(shard string) string {
	t, err := fib.Compile(s.table.Snapshot())
	if err != nil {
		s.t.Fatal(err)
	}
	var b strings.Builder
	in := map[string]bool{}
	for _, database := range append(slices.Collect(maps.Keys(s.policy.Databases)), "") {
		for _, hop := range slices.Concat(t.Slot(shard).For(database).Reads, t.Slot(shard).For(database).Writes) {
			in[hop.Backend.Name] = true
		}
	}
	uses := t.Uses()
	for _, v := range s.table.Snapshot().Backends {
		name := v.Backend.Name
		if v.Backend.Shard != shard {
			continue
		}
		u := uses[name]
		if u.Used != in[name] {
			s.t.Errorf("%s is used: %v; in a list: %v", name, u.Used, in[name])
		}
		fmt.Fprintf(&b, "  %s %s\n", name, strings.TrimSuffix(map[bool]string{true: "is used: ", false: "is not used: "}[u.Used]+u.Why, ": "))
	}
	if stray := t.Slot(shard).Candidates().Stray; stray != "" {
		fmt.Fprintf(&b, "  alarm: %s\n", stray)
	}
	return b.String()
}

// agrees fails if an explanation is not what the candidate lists do.
func (s *story) agrees(t *fib.Table, e fib.Explanation, database string, write bool, order []string) {
	s.t.Helper()
	slot := t.Slot(e.Shard)
	if slot == nil {
		return
	}
	c := slot.For(database)
	hops, near := c.Reads, c.ReadsNear
	if write {
		hops, near = c.Writes, len(c.Writes)
	}
	var names []string
	for i, hop := range hops {
		names = append(names, hop.Backend.Name)
		v := e.Backends[i]
		if v.Healthy != hop.Healthy || v.Near != (i < near) || v.CostMS != float64(hop.Cost.Microseconds())/1000 {
			s.t.Errorf("explained %+v, routed %+v (%d near)", v, hop, near)
		}
	}
	if !slices.Equal(names, order) {
		s.t.Errorf("explained %v, routed %v", order, names)
	}
}
