package auth

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rangefinder/wire/pg"
)

// backend is what a backend keeps, and how it is asked.
type backend struct {
	mu     sync.Mutex
	stored map[string]string // by user@database
	fails  error
	takes  time.Duration
	asked  atomic.Int64
	at     atomic.Int64 // now
	most   atomic.Int64 // at a time
}

func (b *backend) ask(ctx context.Context, _ *Query, database, user string) (string, bool, error) {
	b.asked.Add(1)
	if n := b.at.Add(1); n > b.most.Load() {
		b.most.Store(n)
	}
	defer b.at.Add(-1)
	if b.takes > 0 {
		select {
		case <-time.After(b.takes):
		case <-ctx.Done():
			return "", false, ctx.Err()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.stored[user+"@"+database]
	return s, ok, b.fails
}

func (b *backend) set(who, stored string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stored[who] = stored
}

const hashA, hashB = "md5" + "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "md5" + "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

func shadow(t testing.TB, text string) pg.Shadow {
	t.Helper()
	s, err := pg.ParseShadow(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func hashed(t testing.TB, text string) pg.Credential {
	s := shadow(t, text)
	return s.Hashed()
}

func asking(b *backend) *Guard {
	q := &Query{User: "q", Credential: pg.Password("q"), SQL: "x", Databases: []string{"shop", "more"}, Lifetime: 30 * time.Second, Timeout: 3 * time.Second}
	return NewGuard(&Policy{Query: q}, b.ask)
}

func peer(user, database string) *pg.Peer { return &pg.Peer{User: user, Database: database} }

func TestAnswersHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{stored: map[string]string{"ann@shop": hashA}}
		g := asking(b)
		look := func(user string, want pg.Shadow, asked int64) {
			t.Helper()
			got, err := g.Lookup(t.Context(), peer(user, "shop"))
			if want.Set() != (err == nil) || err == nil && got != want || err != nil && !errors.Is(err, pg.ErrUnknownUser) {
				t.Errorf("%s: %v, %v", user, got, err)
			}
			if n := b.asked.Swap(0); n != asked {
				t.Errorf("%s: asked %d times, want %d", user, n, asked)
			}
		}
		for _, user := range []string{"ann", "eve"} { // what holds for one holds for the other
			first := pg.Shadow{}
			if user == "ann" {
				first = shadow(t, hashA)
			}
			look(user, first, 1)
			look(user, first, 0)
			g.Wrong(peer(user, "shop"))
			look(user, first, 0) // too soon
			pause(doubtAfter)
			look(user, first, 1)
			pause(doubtAfter)
			look(user, first, 0)
			pause(30 * time.Second)
			look(user, first, 1)
		}
		look("ann", shadow(t, hashA), 1)
		b.set("ann@shop", hashB)
		look("ann", shadow(t, hashA), 0)
		g.Forget("ann")
		look("ann", shadow(t, hashB), 1)
		b.set("eve@shop", hashA)
		g.Wrong(peer("eve", "shop"))
		pause(doubtAfter)
		look("eve", shadow(t, hashA), 1)
		b.set("eve@shop", "plain text")
		pause(30 * time.Second)
		look("eve", pg.Shadow{}, 1)
		look(strings.Repeat("x", 64), pg.Shadow{}, 0)
	})
}

func TestAnyDatabaseIsOneOfFew(t *testing.T) {
	b := &backend{stored: map[string]string{"ann@shop": hashA, "ann@more": hashB}}
	g := asking(b)
	for i := range 100 {
		if s, err := g.Lookup(t.Context(), peer("ann", fmt.Sprint("nowhere", i))); err != nil || s != shadow(t, hashA) {
			t.Fatal(s, err)
		}
	}
	if s, err := g.Lookup(t.Context(), peer("ann", "more")); err != nil || s != shadow(t, hashB) {
		t.Fatal(s, err)
	}
	if n := b.asked.Load(); n != 2 {
		t.Errorf("asked %d times", n)
	}
}

func TestOneQuestionForMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{stored: map[string]string{"ann@shop": hashA}, takes: time.Second}
		g := asking(b)
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				if i == 0 {
					cancel() // who asks first goes away: that is no reason for the others not to get an answer
				}
				defer cancel()
				if s, err := g.Lookup(ctx, peer("ann", "shop")); i > 0 && (err != nil || s != shadow(t, hashA)) {
					t.Errorf("%v, %v", s, err)
				}
			})
			if i == 0 {
				synctest.Wait()
			}
		}
		wg.Wait()
		if n := b.asked.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
	})
}

// TestFlood: thirty thousand unknown names in three seconds cost a backend some fifteen hundred questions, four at a time; who was found
// before comes in all the while, and nobody is told that his name is new.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{stored: map[string]string{"ann@shop": hashA}, takes: time.Millisecond}
		g := asking(b)
		if _, err := g.Lookup(t.Context(), peer("ann", "shop")); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		var slow atomic.Int64
		for i := range 30_000 {
			wg.Go(func() {
				begun := time.Now()
				_, err := g.Lookup(t.Context(), peer(fmt.Sprint("n", i), "shop"))
				var told *pg.Error
				if err == nil || errors.As(err, &told) {
					t.Errorf("n%d: %v", i, err)
				}
				if time.Since(begun) > 3*time.Second {
					slow.Add(1)
				}
			})
			if i%10_000 == 9999 {
				pause(time.Second)
				begun := time.Now()
				g.Forget("ann") // has to be asked for again
				if _, err := g.Lookup(t.Context(), peer("ann", "shop")); err != nil || time.Since(begun) > time.Second {
					t.Errorf("ann after %s: %v", time.Since(begun), err)
				}
			}
		}
		wg.Wait()
		if n := b.asked.Load(); n > newQuestions+8*questionRate || n < newQuestions {
			t.Errorf("asked %d times", n)
		}
		if n := b.most.Load(); n > maxQuestions {
			t.Errorf("asked %d times at once", n)
		}
		if slow.Load() > 0 {
			t.Errorf("%d waited longer than auth.timeout", slow.Load())
		}
		if n := len(g.unknown.byKey); n > maxUsers || n != g.unknown.order.Len() {
			t.Errorf("%d unknown names are remembered", n)
		}
	})
}

// TestFloodOfKnownNames: wrong passwords under five hundred names that are right, for twenty seconds.
func TestFloodOfKnownNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{stored: map[string]string{}}
		g := asking(b)
		for i := range 500 {
			b.set(fmt.Sprintf("n%d@shop", i), hashA)
		}
		for second := range 20 {
			for i := range 500 {
				p := peer(fmt.Sprint("n", i), "shop")
				if s, err := g.Lookup(t.Context(), p); err != nil || s != shadow(t, hashA) {
					t.Fatalf("second %d: %v, %v", second, s, err)
				}
				g.Wrong(p)
			}
			pause(time.Second)
		}
		if n := b.asked.Load(); n > newQuestions+21*questionRate {
			t.Errorf("asked %d times", n)
		}
	})
}

// TestSilentBackend: when nobody answers, everybody who is not listed hears the same, within the time, and those who are come in.
func TestSilentBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{takes: time.Hour}
		g := asking(b)
		p := *g.Policy()
		p.Users = map[string]User{"app": {Shadow: shadow(t, hashA)}}
		g.Set(&p)
		begun := time.Now()
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				_, err := g.Lookup(t.Context(), peer(fmt.Sprint("n", i), "shop"))
				var told *pg.Error
				if !errors.As(err, &told) || told.Code != "57P03" {
					t.Errorf("%v", err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(begun); took > 3*time.Second {
			t.Errorf("it took %s", took)
		}
		if s, err := g.Lookup(t.Context(), peer("app", "shop")); err != nil || s != shadow(t, hashA) {
			t.Errorf("%v, %v", s, err)
		}
		b.takes, b.fails = 0, errors.New("permission denied for table pg_authid")
		_, err := g.Lookup(t.Context(), peer("n1", "shop"))
		if err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("the log would say %v", err)
		}
	})
}

// TestShown follows what logins show through its life.
func TestShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{stored: map[string]string{"ann@shop": hashA}}
		g := asking(b)
		p := *g.Policy()
		p.Users = map[string]User{
			"kept":   {Shadow: shadow(t, hashA)},
			"listed": {Shadow: pg.NewShadow("listed", "secret", nil), Credential: pg.Password("secret")},
		}
		g.Set(&p)
		want := func(user string, want pg.Credential, when string) {
			t.Helper()
			if got := g.Credential(user, "shop"); got != want {
				t.Errorf("%s: %s has %v, want %v", when, user, got, want)
			}
		}
		a, other := hashed(t, hashA), hashed(t, hashB)
		want("ann", pg.Credential{}, "before a login")
		g.Admitted("ann", "shop", a)
		want("ann", pg.Credential{}, "before a lookup")
		if _, err := g.Lookup(t.Context(), peer("ann", "shop")); err != nil {
			t.Fatal(err)
		}
		g.Admitted("ann", "shop", other)
		want("ann", pg.Credential{}, "after a login that is not of this password")
		for _, user := range []string{"ann", "kept", "listed", "eve"} {
			g.Admitted(user, "shop", a)
			g.Admitted(user, "shop", pg.Credential{}) // by trust
		}
		want("ann", a, "after a login")
		want("kept", a, "after a login")
		want("listed", pg.Password("secret"), "after a login")
		want("eve", pg.Credential{}, "after a login that cannot be")
		if got := g.Credential("ann", "more"); got.Set() {
			t.Errorf("in another database ann has %v", got)
		}

		pause(doubtAfter)
		g.Refused(t.Context(), "ann", "shop") // by one shard: the others still keep the same
		want("ann", a, "after a refusal")
		b.set("ann@shop", hashB)
		pause(doubtAfter)
		g.Refused(t.Context(), "ann", "shop")
		want("ann", pg.Credential{}, "after the password has changed")
		g.Admitted("ann", "shop", other)
		want("ann", other, "after another login")

		same := p
		same.Users = map[string]User{"kept": p.Users["kept"], "listed": p.Users["listed"]}
		g.Set(&same)
		want("ann", other, "after a reload")
		want("kept", a, "after a reload")
		changed := p
		changed.Users = map[string]User{"kept": {Shadow: shadow(t, hashB)}}
		g.Set(&changed)
		want("kept", pg.Credential{}, "after a reload with another verifier")
		none := changed
		none.Query = nil
		g.Set(&none)
		want("ann", pg.Credential{}, "after a reload without a query")
		g.Set(&changed)
		want("ann", pg.Credential{}, "after the query has come back")

		b.set("ann@shop", hashA)
		if _, err := g.Lookup(t.Context(), peer("ann", "shop")); err != nil {
			t.Fatal(err)
		}
		g.Admitted("ann", "shop", a)
		b.mu.Lock()
		delete(b.stored, "ann@shop")
		b.mu.Unlock()
		g.Forget("ann")
		if _, err := g.Lookup(t.Context(), peer("ann", "shop")); !errors.Is(err, pg.ErrUnknownUser) {
			t.Error(err)
		}
		want("ann", pg.Credential{}, "after the role was dropped")
	})
}

func TestUnknownLooksLikeMost(t *testing.T) {
	b := &backend{stored: map[string]string{"ann@shop": hashA}}
	g := NewGuard(&Policy{Users: map[string]User{"a": {Shadow: shadow(t, hashA)}, "b": {Shadow: shadow(t, hashB)}, "c": {Shadow: pg.NewShadow("c", "x", nil)}}}, nil)
	if s, err := g.Lookup(t.Context(), peer("eve", "shop")); !errors.Is(err, pg.ErrUnknownUser) || s.String() != "MD5 hash" {
		t.Errorf("%v, %v", s, err)
	}
	g = asking(b)
	if s, err := g.Lookup(t.Context(), peer("ann", "shop")); err != nil || !s.Set() {
		t.Fatal(s, err)
	}
	if s, err := g.Lookup(t.Context(), peer("eve", "shop")); !errors.Is(err, pg.ErrUnknownUser) || s.String() != "MD5 hash" {
		t.Errorf("%v, %v", s, err)
	}
}

// pause lets virtual time pass.
func pause(d time.Duration) { <-time.After(d) }

// A login whose question is under way while the configuration is read again is one: what it shows is kept, and the next one asks again.
func TestReloadWhileAsking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{stored: map[string]string{"ann@shop": hashA}, takes: time.Second}
		g := asking(b)
		answer := make(chan error, 1)
		go func() {
			_, err := g.Lookup(t.Context(), peer("ann", "shop"))
			answer <- err
		}()
		synctest.Wait() // it asks
		again := *g.Policy()
		query := *again.Query
		again.Query = &query
		g.Set(&again)
		if err := <-answer; err != nil {
			t.Fatal(err)
		}
		g.Admitted("ann", "shop", hashed(t, hashA))
		if got := g.Credential("ann", "shop"); got != hashed(t, hashA) {
			t.Errorf("what the login has shown is lost: %v", got)
		}
		if _, err := g.Lookup(t.Context(), peer("ann", "shop")); err != nil || b.asked.Load() != 2 {
			t.Errorf("asked %d times, want 2: %v", b.asked.Load(), err)
		}
	})
}
