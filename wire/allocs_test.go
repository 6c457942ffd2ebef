package wire

import (
	"fmt"
	"testing"
	"time"

	"rangefinder/wire/pg"
	"rangefinder/wire/pool"
	"rangefinder/wire/sqlkey"
)

// A statement's way allocates nothing in the session, however it is sent.
func TestCoreAllocatesNothing(t *testing.T) {
	const (
		parsed = "1\x00\x00\x00\x04"
		bound  = "2\x00\x00\x00\x04"
		row    = "T\x00\x00\x00\x1d\x00\x01item\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\xff\xff\xff\x00\x00" + "D\x00\x00\x00\x0b\x00\x01\x00\x00\x00\x01x" + "C\x00\x00\x00\x0dSELECT 1\x00"
		ready  = "Z\x00\x00\x00\x05I"
	)
	e := testEnv(t)
	sql := fmt.Sprintf("SELECT item FROM orders WHERE customer_id = %d", keyOf(t, e, "shard_1"))
	run := pg.AppendSync(pg.AppendExecute(pg.AppendDescribe(nil, 'P', ""), "", 0))
	for name, c := range map[string]struct {
		first, firstAnswer []byte
		then, answer       []byte
		hint               bool
	}{
		"hinted":   {then: query("SELECT item FROM orders WHERE id = 1"), answer: []byte(row + ready), hint: true},
		"simple":   {then: query(sql), answer: []byte(row + ready)},
		"extended": {then: ext("", sql), answer: []byte(parsed + bound + row + ready)},
		"prepared": {first: pg.AppendSync(pg.AppendParse(nil, "p", sql, nil)), firstAnswer: []byte(parsed + ready), then: append(bindFrame("", "p"), run...), answer: []byte(bound + row + ready)},
	} {
		t.Run(name, func(t *testing.T) {
			core := newCore(e, "app", "app")
			core.params.set("client_encoding", "UTF8")
			if c.hint {
				core.settings = core.settings.withHint(sqlkey.HintKeySetting, "42", false)
			}
			conn := &pool.Conn{Params: make(map[string]string)}
			answered := 0
			once := func(request, answer []byte) {
				for {
					switch core.next() {
					case readClient:
						core.written()
						if len(request) == 0 {
							return
						}
						n := copy(core.clientSpace(), request)
						core.clientRead(n)
						request = request[n:]
					case acquire:
						conn.Backend = core.hop.Backend
						core.acquired(conn)
					case readServer:
						core.sent()
						answered++
						if err := core.serverRead(answer); err != nil {
							t.Fatal(err)
						}
					case releaseServer:
						core.returned()
					default:
						t.Fatal("the session asks for something else")
					}
				}
			}
			if c.first != nil {
				once(c.first, c.firstAnswer)
			}
			once(c.then, c.answer)
			before, calls := answered, 0
			if n := allocations(func() {
				calls++
				once(c.then, c.answer)
			}); n != 0 {
				t.Errorf("%v allocations a request", n)
			}
			if answered != before+calls {
				t.Errorf("%d of %d requests reached the server", answered-before, calls)
			}
		})
	}
}

// Memory is given back when many sessions have gone to sleep and the rest stays awake, and not so often that it costs more than 2 %.
func TestReliefIsSeldom(t *testing.T) {
	now := time.Unix(1000, 0)
	r := relief{}
	for _, step := range []struct {
		dozed int64
		after time.Duration
		want  bool
	}{
		{100, 0, false},
		{100, time.Second, false}, // not worth it
		{400, time.Second, false}, // more of them just now
		{400, time.Second, true},  // settled
		{400, time.Second, false}, // done
		{3000, time.Second, true}, // very many: at once
		{3300, time.Second, false},
		{3300, time.Second, true},
		{3600, 0, false},
		{3600, 0, false}, // too soon
		{3600, time.Second, true},
	} {
		now = now.Add(step.after)
		if got := r.due(step.dozed, now); got != step.want {
			t.Fatalf("%+v: %v", step, got)
		}
		if step.want {
			r.served, r.next = r.seen, now.Add(time.Second) // as give does
		}
	}
}

// allocations is how many a call makes. What other goroutines of the process allocate meanwhile is counted too, so it is looked several times: what the call makes is there
// each time.
func allocations(call func()) float64 {
	least := testing.AllocsPerRun(100, call)
	for range 5 {
		if least > 0 {
			least = min(least, testing.AllocsPerRun(100, call))
		}
	}
	return least
}
