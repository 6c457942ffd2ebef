package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// A link carries both ways; once cut it takes connections and bytes, and nothing arrives, nor does it end anything.
func TestLink(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	l, err := newLink(ctx, echo.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", l.addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		return c
	}
	old := dial()
	if _, err := io.ReadFull(old, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	l.cut()
	if _, err := old.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{old, dial()} {
		c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if n, err := c.Read(make([]byte, 5)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
	cancel()
	old.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := old.Read(make([]byte, 5)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("it does not end with its context: %v", err)
	}
}

// What a crowd has seen, from what its clients noted.
func TestCrowdSums(t *testing.T) {
	c := &faultCrowd{
		readers: []*faultClient{{gap: time.Second, errors: map[string]int{"08006": 1}}, {gap: 2 * time.Second}, {gap: 9 * time.Second}},
		writers: []*faultClient{{gap: 4 * time.Second, acked: []entry{{"x", 0, 1}, {"x", 0, 2}}, stale: 2, errors: map[string]int{"08006": 1, "08007": 1}}},
	}
	if p50, most := c.gaps(false); p50 != 2000 || most != 9000 {
		t.Errorf("reads: %v, %v", p50, most)
	}
	if p50, most := c.gaps(true); p50 != 4000 || most != 4000 {
		t.Errorf("writes: %v, %v", p50, most)
	}
	if n := c.lost(map[entry]bool{{"x", 0, 1}: true, {"y", 0, 2}: true}); n != 1 {
		t.Errorf("%d lost", n)
	}
	if e := c.errors(); e["08006"] != 2 || e["08007"] != 1 || c.stale() != 2 {
		t.Errorf("%v, %d stale", e, c.stale())
	}
}

// Rounds in one line: the median of the medians, the worst of all else.
func TestSumUpRounds(t *testing.T) {
	got := sumUp([]faultResult{
		{Fault: "x", GapP50: 1, GapMax: 10, HAProxyGapMax: 100, Refused: 7, Errors: map[string]int{"08007": 1}, Lost: 1},
		{Fault: "x", GapP50: 5, GapMax: 30, HAProxyGapMax: 90, Refused: 9, Errors: map[string]int{"08007": 2, "08006": 1}, Stale: 2},
		{Fault: "x", GapP50: 3, GapMax: 20, HAProxyGapMax: 80, Refused: 8, Errors: map[string]int{}},
	})
	want := faultResult{Fault: "x", GapP50: 3, GapMax: 30, HAProxyGapMax: 100, Refused: 9, Errors: map[string]int{"08007": 3, "08006": 1}, Lost: 1, Stale: 2}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	// The first reader's next answer came 4 ms later, the other's 9.
	at := time.Unix(100, 0)
	after := func(ms ...int) *faultClient {
		f := new(faultClient)
		for _, n := range ms {
			f.answered = append(f.answered, at.Add(time.Duration(n)*time.Millisecond))
		}
		return f
	}
	if took := (&faultCrowd{readers: []*faultClient{after(-5, 0, 4, 30), after(-2, 9)}}).answeredSince(at); took != 9 {
		t.Errorf("answered after %v ms, want 9", took)
	}
}

// A write that is lost or a read that is stale is an error; what only takes too long is told.
func TestFailoverJudges(t *testing.T) {
	slow := []faultResult{{Fault: faultReplicaKill, Refused: 50.1, GapMax: 9000}, {Fault: faultFreeze, GapMax: 3501}, {Fault: faultCut, GapMax: 3500}, {Fault: faultPrimaryKill, GapMax: 9000}}
	if err := wrong(slow); err != nil {
		t.Errorf("it is wrong to be slow: %v", err)
	}
	for i, missed := range []bool{true, true, false, false} {
		if strings.Contains(slow[i].must(), "MISSED") != missed {
			t.Errorf("%+v: %q", slow[i], slow[i].must())
		}
	}
	for _, bad := range []faultResult{{Fault: faultPrimaryKill, Lost: 1}, {Fault: faultCut, Stale: 1}} {
		if err := wrong(append(slow, bad)); err == nil || !strings.Contains(err.Error(), bad.Fault) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
