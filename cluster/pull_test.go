package cluster

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// TestOlderTableIsNotApplied: a voter that is ahead of the node it pulls from stays as it is, and so does a follower.
func TestOlderTableIsNotApplied(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b, c, d := w.add("a", "iad"), w.add("b", "fra"), w.add("c", "syd"), w.add("d", "iad")
		w.form(a, b, c, d)
		w.shards(1)
		if _, err := d.pull(a); err != nil {
			t.Fatal(err)
		}
		old := d.ledger.Epoch()
		if _, err := a.ledger.CreateKeyspace(w.ctx(), hashSpec("app.orders", "orders", "shard_1")); err != nil {
			t.Fatal(err)
		}
		if applied, err := a.pull(d); err != nil || applied {
			t.Errorf("the leader took an older table: %v, %v", applied, err)
		}
		if err := a.knows("app.orders"); err != nil {
			t.Error(err)
		}
		if d.ledger.Epoch() != old {
			t.Error("serving a pull changed a table")
		}
	})
}

func TestPullRefusesStrangers(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, z := w.add("a", "iad"), w.add("z", "iad")
		for n, id := range map[*testNode]string{a: "c1", z: "c2"} {
			if err := n.ledger.Bootstrap(id); err != nil {
				t.Fatal(err)
			}
		}
		w.shards(1)
		before := z.ledger.Epoch()
		if _, err := z.pull(a); !errors.Is(err, ErrOtherCluster) || !strings.Contains(err.Error(), "c1") || !strings.Contains(err.Error(), "c2") {
			t.Errorf("%v", err)
		}
		if z.ledger.Epoch() != before || a.ledger.Status().PullsRefused != 1 {
			t.Error("the pull was not refused")
		}
	})
}

// TestPullIsBounded: a side that says nothing, noise, or less than it announced ends in an error in time.
func TestPullIsBounded(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.add("a", "iad"), w.add("b", "iad")
		if err := a.ledger.Bootstrap("c1"); err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			answer string
			want   error
		}{
			"silence":    {"", context.DeadlineExceeded},
			"noise":      {"HTTP/1.1 400 Bad Request\r\n\r\n", ErrPullVersion},
			"empty head": {"RFP1\x00\x00", ErrCorrupt},
			"huge head":  {"RFP1\xff\xff", ErrCorrupt},
			"no json":    {"RFP1\x00\x01x", ErrCorrupt},
			"huge table": {frame(`{"size":9999999999}`), ErrPullTooLarge},
			"bad table":  {frame(`{"size":9}`) + "nonsense!", ErrCorrupt},
			"less":       {frame(`{"size":268435456}`) + "RFO1", context.DeadlineExceeded},
		} {
			listener, err := a.host.Listen(0)
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				conn.Write([]byte(c.answer))
				conn.Read(make([]byte, 4096))
				<-w.t.Context().Done()
				conn.Close()
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			conn, err := b.host.Dial(ctx, "tcp", listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			if applied, err := b.ledger.Pull(ctx, conn); applied || !errors.Is(err, c.want) {
				t.Errorf("%s: %v, %v", name, applied, err)
			}
			if took := time.Since(start); took > 6*time.Second {
				t.Errorf("%s: took %v", name, took)
			}
			cancel()
			conn.Close()
			listener.Close()
		}
		// And the serving side, towards one that never asks.
		conn, err := b.host.Dial(t.Context(), "tcp", a.host.Addr(pullPort))
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("an answer without a question")
		}
		if took := time.Since(start); took > pullPause+time.Second {
			t.Errorf("a silent follower was kept for %v", took)
		}
		conn.Close()
	})
}

func frame(head string) string {
	return magicPull + string([]byte{byte(len(head) >> 8), byte(len(head))}) + head
}
