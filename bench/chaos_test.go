package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// honest is a history of two clients with a key each, and what is there after it.
func honest() (writes []chaosWrite, ends []shardEnd) {
	w := func(client int, seq int64, kind string, fate outcome) {
		writes = append(writes, chaosWrite{client: client, seq: seq, kind: kind, key: client, fate: fate})
	}
	w(0, 1, writeInsert, fateAcked)
	w(0, 2, writeInsert, fateUnknown) // not there
	w(0, 3, writeInsert, fateUnknown) // there
	w(0, 4, writeInsert, fateRefused)
	w(0, 5, writeRegister, fateAcked)
	w(0, 6, writeRegister, fateUnknown) // there
	w(0, 7, writeRegister, fateRefused)
	w(0, 8, writeRegister, fateAcked)
	writes[len(writes)-1].over = 6
	w(0, 9, writeRegister, fateAcked)
	writes[len(writes)-1].over = 8
	w(0, 10, writeRegister, fateRefused)
	w(1, 1, writeTransfer, fateAcked)
	w(1, 2, writeTransfer, fateUnknown) // not there
	w(1, 3, writeTransfer, fateUnknown) // there
	w(1, 4, writeTransfer, fateRefused)
	w(1, 5, writeRegister, fateAcked)
	w(1, 6, writeRegister, fateUnknown) // not there
	w(1, 7, writeAcross, fateAcked)
	w(1, 8, writeAcross, fateUnknown) // there
	w(1, 9, writeAcross, fateUnknown) // not there
	w(1, 10, writeAcross, fateRefused)
	there := amount(7) + amount(8)
	moved := amount(1) + amount(3) + there
	return writes, []shardEnd{
		{
			shard: "shard_1", ledger: []ledgerRow{{0, 0, 1, 0}, {0, 0, 3, 0}, {0, 1, 7, -amount(7)}, {0, 1, 8, -amount(8)}}, registers: map[int]int64{0: 9},
			accounts: map[int][2]int64{0: {there, -there}},
		}, {
			shard: "shard_2", ledger: []ledgerRow{{1, 1, 1, amount(1)}, {1, 1, 3, amount(3)}, {1, 1, 7, amount(7)}, {1, 1, 8, amount(8)}}, registers: map[int]int64{1: 5},
			accounts: map[int][2]int64{1: {-moved, moved}},
		},
	}
}

func TestJudgeHistory(t *testing.T) {
	if found := judgeHistory(first(honest()), second(honest()), 2); len(found) != 0 {
		t.Errorf("an honest history: %v", found)
	}
	for _, c := range []struct {
		what  string
		spoil func(writes []chaosWrite, ends []shardEnd)
		want  []string
	}{
		{"an acknowledged insert is not there", func(_ []chaosWrite, e []shardEnd) { e[0].ledger = e[0].ledger[1:] }, []string{foundLost}},
		{"an acknowledged register is old", func(_ []chaosWrite, e []shardEnd) { e[1].registers[1] = 0 }, []string{foundLost}},
		{"a refused insert is there", func(_ []chaosWrite, e []shardEnd) { e[0].ledger = append(e[0].ledger, ledgerRow{0, 0, 4, 0}) }, []string{foundPhantom}},
		{"a refused register is there", func(_ []chaosWrite, e []shardEnd) { e[0].registers[0] = 10 }, []string{foundPhantom}},
		{"a register nobody wrote", func(_ []chaosWrite, e []shardEnd) { e[0].registers[0] = 99 }, []string{foundPhantom}},
		{"a row nobody wrote", func(_ []chaosWrite, e []shardEnd) { e[0].ledger = append(e[0].ledger, ledgerRow{0, 5, 1, 0}) }, []string{foundPhantom}},
		{"a row with another key", func(_ []chaosWrite, e []shardEnd) { e[0].ledger[0].key = 1 }, []string{foundPhantom}},
		{"a write done twice", func(_ []chaosWrite, e []shardEnd) { e[0].ledger = append(e[0].ledger, e[0].ledger[0]) }, []string{foundTwice}},
		{"an unknown write done twice", func(_ []chaosWrite, e []shardEnd) { e[0].ledger = append(e[0].ledger, e[0].ledger[1]) }, []string{foundTwice}},
		{"a write done on both shards", func(_ []chaosWrite, e []shardEnd) { e[1].ledger = append(e[1].ledger, e[0].ledger[0]) }, []string{foundTwice}},
		{"half a transaction: the row is missing", func(_ []chaosWrite, e []shardEnd) { e[1].ledger = slices.Delete(e[1].ledger, 1, 2) }, []string{foundTorn}},
		{"half a transaction: an account is", func(_ []chaosWrite, e []shardEnd) { e[1].accounts[1] = [2]int64{-amount(1), amount(1) + amount(3)} }, []string{foundTorn}},
		{"a transaction of two shards on one of them", func(_ []chaosWrite, e []shardEnd) {
			e[0].ledger = e[0].ledger[:3]
			e[0].accounts[0] = [2]int64{amount(7), -amount(7)}
		}, []string{foundTorn}},
		{"one that was refused on one of them", func(_ []chaosWrite, e []shardEnd) {
			e[0].ledger = append(e[0].ledger, ledgerRow{0, 1, 10, -amount(10)})
			e[0].accounts[0] = [2]int64{amount(7) + amount(8) + amount(10), -amount(7) - amount(8) - amount(10)}
		}, []string{foundPhantom}},
		{"one that was acknowledged on neither", func(_ []chaosWrite, e []shardEnd) {
			e[0].ledger, e[1].ledger = slices.Delete(e[0].ledger, 2, 3), slices.Delete(e[1].ledger, 2, 3)
			e[0].accounts[0] = [2]int64{amount(8), -amount(8)}
			e[1].accounts[1] = [2]int64{-amount(1) - amount(3) - amount(8), amount(1) + amount(3) + amount(8)}
		}, []string{foundLost}},
		{"one twice on one of them, not on the other", func(_ []chaosWrite, e []shardEnd) {
			e[0].ledger[3] = ledgerRow{0, 1, 7, -amount(7)}
		}, []string{foundTwice, foundTorn, foundTorn}},
		{"a row on a shard that does not own it", func(_ []chaosWrite, e []shardEnd) { e[1].misplaced = []string{"ledger (0,0,1,0)"} }, []string{foundWrong}},
		{"a register on both shards", func(_ []chaosWrite, e []shardEnd) { e[1].registers[0] = 9 }, []string{foundWrong}},
		{"no register", func(_ []chaosWrite, e []shardEnd) { delete(e[0].registers, 0) }, []string{foundWrong}},
		{"no accounts", func(_ []chaosWrite, e []shardEnd) { delete(e[0].accounts, 0) }, []string{foundWrong}},
		{"an acknowledged register was lost, and is overwritten", func(w []chaosWrite, _ []shardEnd) { overwrote(w, 9, 6) }, []string{foundLost}},
		{"a refused register was there, and is overwritten", func(w []chaosWrite, _ []shardEnd) { overwrote(w, 8, 7) }, []string{foundPhantom}},
		{"one that nobody wrote is overwritten", func(w []chaosWrite, _ []shardEnd) { overwrote(w, 8, 99) }, []string{foundPhantom}},
		{"all registers were lost, and are overwritten", func(w []chaosWrite, _ []shardEnd) { overwrote(w, 8, 0) }, []string{foundLost}},
		{"two at a time", func(w []chaosWrite, _ []shardEnd) {
			w[1].fate = fateAcked // it was not there
			w[2].fate = fateRefused
		}, []string{foundLost, foundPhantom}},
	} {
		writes, ends := honest()
		c.spoil(writes, ends)
		var kinds []string
		for _, f := range judgeHistory(writes, ends, 2) {
			kinds = append(kinds, f.kind)
		}
		if !reflect.DeepEqual(kinds, c.want) {
			t.Errorf("%s: found %v, want %v", c.what, kinds, c.want)
		}
	}
}

// overwrote has client 0's write of that number bring back another one.
func overwrote(writes []chaosWrite, seq, over int64) {
	for i := range writes {
		if writes[i].client == 0 && writes[i].seq == seq {
			writes[i].over = over
		}
	}
}

func first[A, B any](a A, _ B) A  { return a }
func second[A, B any](_ A, b B) B { return b }

// Only an error that says so leaves open what became of a write.
func TestOutcomeOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		want outcome
		code string
	}{
		{nil, fateAcked, ""},
		{&pgconn.PgError{Code: "08007"}, fateUnknown, "08007"},
		{&pgconn.PgError{Code: "40003"}, fateUnknown, "40003"},
		{&pgconn.PgError{Code: "08006"}, fateRefused, "08006"},
		{fmt.Errorf("wrapped: %w", &pgconn.PgError{Code: "57P03"}), fateRefused, "57P03"},
		{pgx.ErrTxCommitRollback, fateRefused, "rolled back"},
		{fmt.Errorf("%w: refused", errNoConnection), fateRefused, "no connection"},
		{fmt.Errorf("%w: %w", errNoConnection, &pgconn.PgError{Code: "57P03"}), fateRefused, "57P03"},
		{context.DeadlineExceeded, fateUnknown, "connection"},
		{errors.New("connection reset by peer"), fateUnknown, "connection"},
	} {
		if got, code := outcomeOf(c.err); got != c.want || code != c.code {
			t.Errorf("%v: %v %q, want %v %q", c.err, got, code, c.want, c.code)
		}
	}
}

func TestChaosPlan(t *testing.T) {
	long := 10 * time.Minute
	plan := chaosPlan(5, long)
	if !reflect.DeepEqual(plan, chaosPlan(5, long)) {
		t.Error("one seed, two schedules")
	}
	if reflect.DeepEqual(plan, chaosPlan(6, long)) {
		t.Error("two seeds, one schedule")
	}
	for _, track := range chaosTracks {
		counts, end := map[string]int{}, time.Duration(0)
		for _, p := range plan[track.name] {
			if p.at < end || p.hold <= 0 || p.at+p.hold > long {
				t.Errorf("%s: %v, and the one before ends at %v", track.name, p, end)
			}
			end = p.at + p.hold
			counts[p.kind]++
		}
		for _, kind := range track.kinds {
			if counts[kind] < 3 {
				t.Errorf("%s comes %d times in ten minutes", kind, counts[kind])
			}
		}
		if len(chaosPlan(5, 20*time.Second)[track.name]) == 0 {
			t.Errorf("%s: nothing happens in 20 s", track.name)
		}
	}
}

func TestNetNames(t *testing.T) {
	for name, want := range map[string]int{netPrefix + "123-hub": 123, netPrefix + "7-fra": 7, netPrefix + "fra": 0, netPrefix + "12": 0, netPrefix + "-5-x": 0, "other-12-hub": 0, "": 0} {
		got, ok := parseNet(name)
		if ok != (want > 0) || ok && got.pid != want {
			t.Errorf("%q: %v, %v", name, got, ok)
		}
	}
}

// All rules stand in one configuration, in the order in which they came, and go with who made them.
func TestRuleset(t *testing.T) {
	a, b := &region{number: 1, name: "fra", port: "to-fra"}, &region{number: 2, name: "iad", port: "to-iad"}
	n := &chaosNet{rules: map[int]string{}}
	const head = "add table bridge chaos\nadd chain bridge chaos forward { type filter hook forward priority 0; policy accept; }\nflush chain bridge chaos forward\n"
	if got := n.ruleset(); got != head {
		t.Errorf("without a fault:\n%s", got)
	}
	n.rules[10] = ruleLoss(b, 25)[1]
	n.rules[9] = ruleCut(a)[0] + "\n" + ruleCut(a)[1]
	n.rules[11] = ruleOneWay(a, b)[0]
	const add = "add rule bridge chaos forward "
	want := head + add + "iifname \"to-fra\" drop\n" + add + "oifname \"to-fra\" drop\n" + add + "oifname \"to-iad\" numgen random mod 100 < 25 drop\n" + add + "iifname \"to-fra\" oifname \"to-iad\" drop\n"
	if got := n.ruleset(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// Namespaces are there while they are wanted, carry what they should, and those of a process that died are removed by the next.
func TestChaosNet(t *testing.T) {
	ctx := t.Context()
	if os.Geteuid() != 0 {
		if _, err := newChaosNet(ctx, []string{"fra"}, []int{1}); !errors.Is(err, errChaosNet) {
			t.Errorf("without root: %v", err)
		}
		return
	}
	const nobody = 1 << 29 // beyond the kernel's largest process id
	left := fmt.Sprintf("%s%d-%d", netPrefix, nobody, os.Getpid())
	if err := command(ctx, "", "ip", "netns", "add", left); err != nil {
		t.Fatal(err)
	}
	n, err := newChaosNet(ctx, []string{"fra", "iad"}, []int{1})
	if errors.Is(err, errChaosNet) {
		_ = command(ctx, "", "ip", "netns", "del", left)
		t.Logf("not tried: %v", err) // a container that may not, or without nft
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.close(); err != nil {
			t.Error(err)
		}
		all, err := chaosNets()
		for _, ns := range all {
			if ns.pid == os.Getpid() || ns.name == left {
				t.Errorf("%s is left, %v", ns.name, err)
			}
		}
	}()
	// Nobody listens there: who gets through is refused at once, who does not waits.
	reach := func() error {
		dial, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		_, err := n.regions[0].Dial(dial, "tcp", n.regions[1].host(1, 5432))
		return err
	}
	open := func(when string, want bool) {
		t.Helper()
		var err error
		for range 20 { // the bridge and its neighbours have to find each other first
			if err = reach(); want == errors.Is(err, syscall.ECONNREFUSED) {
				return
			}
		}
		t.Errorf("%s: %v", when, err)
	}
	open("at first", true)
	for what, fault := range map[string]func() (func() error, error){
		"cut":             func() (func() error, error) { return n.drop(ctx, ruleCut(n.regions[1])...) },
		"one way":         func() (func() error, error) { return n.drop(ctx, ruleOneWay(n.regions[0], n.regions[1])...) },
		"other way":       func() (func() error, error) { return n.drop(ctx, ruleOneWay(n.regions[1], n.regions[0])...) },
		"nearly all lost": func() (func() error, error) { return n.drop(ctx, ruleLoss(n.regions[0], 99)...) },
		"no cable there":  func() (func() error, error) { return n.unplug(ctx, n.regions[1]) },
	} {
		heal, err := fault()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		open(what, false)
		if err := heal(); err != nil {
			t.Fatal(err)
		}
		open("after "+what, true)
	}
}
