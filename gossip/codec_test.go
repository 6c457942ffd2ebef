package gossip

import (
	"bytes"
	"encoding/binary"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"rangefinder/rib"
)

func TestDurationsSurviveTheirByte(t *testing.T) {
	for b := range 256 {
		d := unpackDuration(byte(b))
		if got := packDuration(d); got != byte(b) {
			t.Errorf("byte %d is %v, which packs to %d", b, d, got)
		}
	}
	for _, d := range []time.Duration{1, time.Microsecond, 730 * time.Microsecond, 13 * time.Millisecond, 10 * time.Second, 50 * time.Minute} {
		got := unpackDuration(packDuration(d))
		if off := math.Abs(float64(got-d)) / float64(max(d, time.Microsecond)); off > 0.09 && d >= time.Microsecond {
			t.Errorf("%v came back as %v", d, got)
		}
	}
	if got := unpackDuration(packDuration(rib.LagUnknown)); got != rib.LagUnknown {
		t.Errorf("unknown lag came back as %v", got)
	}
	if got := unpackDuration(packDuration(math.MaxInt64)); got < 55*time.Minute {
		t.Errorf("the longest came back as %v", got)
	}
}

func TestSizesSurviveTheirByte(t *testing.T) {
	for _, n := range []int64{0, 1, 17, 1 << 10, 300 << 20, 7 << 40, math.MaxInt64} {
		got := unpackSize(packSize(n))
		if off := math.Abs(float64(got) - float64(n)); off > 0.1*float64(n) && n > 8 {
			t.Errorf("%d came back as %d", n, got)
		}
		if again := unpackSize(packSize(got)); again != got {
			t.Errorf("%d came back as %d the second time", got, again)
		}
	}
	if got := unpackSize(packSize(rib.LagBytesUnknown)); got != rib.LagBytesUnknown {
		t.Errorf("unknown came back as %d", got)
	}
	for b := range 256 { // whatever a peer sends is a size, or unknown
		if got := unpackSize(byte(b)); got < rib.LagBytesUnknown || b < 255 && got < 0 {
			t.Errorf("byte %d is %d", b, got)
		}
	}
}

func TestObservationFitsIn32Bytes(t *testing.T) {
	r := rib.Route{
		State: rib.Withdrawn, Role: rib.Replica, Load: rib.LoadAtLimit, Timeline: maxTimeline,
		Latency: time.Second, Lag: rib.LagUnknown, LagBytes: 5 << 30, Stamp: rib.Stamp{Incarnation: maxIncarnation, Seq: maxSeq},
	}
	b := appendObservation(nil, observationVersion, math.MaxUint64, math.MaxUint64, &r)
	if len(b) > maxObservation {
		t.Fatalf("the largest observation takes %d bytes", len(b))
	}
	r.Stamp, r.Timeline = rib.Stamp{Incarnation: 3, Seq: 1000}, 2
	b = appendObservation(nil, observationVersion, 1, 2, &r)
	if len(b) != 26 {
		t.Errorf("a usual observation takes %d bytes, want 26", len(b))
	}
	d := decoder{buf: b[2:]}
	got := d.observation(observationVersion)
	want := observation{1, 2, quantize(observationVersion, new(rib.Policy), r)}
	if err := d.done(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("came back as %+v, %v; want %+v", got, err, want)
	}
}

func TestMessagesComeBack(t *testing.T) {
	stamp := rib.Stamp{Incarnation: 7, Seq: 123456}
	a := rib.Announcement{
		Backend:  rib.Backend{Name: "pg-1", Shard: "shard_1", Region: "fra", Addr: "[::1]:5432", SystemID: math.MaxUint64},
		Observer: "fra-1", Stamp: stamp, Gone: true,
	}
	d := decoder{buf: appendAnnouncement(nil, &a)[2:]}
	if got := d.announcement(); d.done() != nil || got != a {
		t.Errorf("announcement %+v", got)
	}
	e := epochNews{rib.Epoch{Generation: math.MaxUint32, Index: math.MaxUint64}, "fra-1"}
	d = decoder{buf: appendEpoch(nil, e)[2:]}
	if got := d.epochNews(); d.done() != nil || got != e {
		t.Errorf("epoch %+v", got)
	}
	r := row{observer: 5, stamp: stamp, rtt: map[id]time.Duration{1: 0, 2: 13 * time.Millisecond, 3: 6553500 * time.Microsecond}}
	d = decoder{buf: appendRow(nil, &r)[2:]}
	if got := d.row(); d.done() != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("row %+v", got)
	}
	g := digest{sender: "fra-1", answer: true, epoch: e.epoch, entries: []entry{{1, stamp, 99}, {2, rib.Stamp{}, 0}}}
	d = decoder{buf: appendDigest(nil, &g)[2:]}
	if got := d.digest(); d.done() != nil || !reflect.DeepEqual(got, g) {
		t.Errorf("digest %+v", got)
	}
	p := pull{sender: "fra-1", observers: []id{1, 2, math.MaxUint64}}
	d = decoder{buf: appendPull(nil, &p)[2:]}
	if got := d.pull(); d.done() != nil || !reflect.DeepEqual(got, p) {
		t.Errorf("pull %+v", got)
	}
	k := ack{members: 1, records: 2, epoch: e.epoch}
	if got, err := decodeAck(appendAck(nil, k)); err != nil || got != k {
		t.Errorf("ack %+v, %v", got, err)
	}
}

func TestMalformedIsRefused(t *testing.T) {
	whole := appendAnnouncement(nil, &rib.Announcement{Backend: rib.Backend{Name: "b", Shard: "s", Region: "r"}, Observer: "o"})
	for n := range len(whole) - 2 {
		d := decoder{buf: whole[2 : 2+n]}
		d.announcement()
		if d.done() == nil {
			t.Errorf("the first %d bytes pass", n)
		}
	}
	control := bytes.Replace(whole, []byte("\x01s"), []byte("\x01\x1b"), 1)
	long := appendAnnouncement(nil, &rib.Announcement{Backend: rib.Backend{Name: strings.Repeat("b", maxName+1), Shard: "s", Region: "r"}, Observer: "o"})
	for what, b := range map[string][]byte{"a byte too many": append(bytes.Clone(whole), 0), "an escape in a name": control, "a long name": long} {
		d := decoder{buf: b[2:]}
		d.announcement()
		if d.done() == nil {
			t.Errorf("%s passes", what)
		}
	}
	// A header that claims a million entries must not be believed before they are there.
	claim := binary.AppendUvarint([]byte{0, 1, 'x', 0, 0}, maxDigest)
	allocs := testing.AllocsPerRun(10, func() {
		d := decoder{buf: claim}
		if d.digest(); d.done() == nil {
			t.Error("a digest without entries passes")
		}
	})
	if allocs > 5 {
		t.Errorf("%v allocations for a claim", allocs)
	}
}

// FuzzRecord feeds any bytes as one message to a speaker that is not open: it must not panic, must not hold more than its
// bounds, and whatever it takes for a record must be the same after another round on the wire.
func FuzzRecord(f *testing.F) {
	r := up("b")
	r.Stamp = rib.Stamp{Incarnation: 1, Seq: 1}
	f.Add(appendObservation(nil, observationVersion, idOf("b"), idOf("n"), &r))
	f.Add(appendAnnouncement(nil, &rib.Announcement{Backend: rib.Backend{Name: "b", Shard: "s", Region: "r"}, Observer: "n"}))
	f.Add(appendEpoch(nil, epochNews{rib.Epoch{Generation: 1, Index: 2}, "n"}))
	f.Add(appendRow(nil, &row{observer: 1, rtt: map[id]time.Duration{2: 3}}))
	f.Add(appendDigest(nil, &digest{sender: "n", entries: []entry{{observer: 1}}}))
	f.Add(appendPull(nil, &pull{sender: "n", observers: []id{1}}))
	f.Add(appendBatched(appendNames(nil, []string{"b", "n"}), []byte{kindNames, version, 1, 1, 'x'}))
	f.Add(appendBatched(nil, appendNames(nil, []string{"b", "n"})))
	f.Add([]byte{kindBatch, version, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Add(appendDrain(nil, &rib.Drain{Target: rib.DrainTarget{Kind: rib.DrainRegion, Name: "r"}, Number: 1, Author: "n", By: "x", Since: 1 << 31}))
	f.Add(appendRecheck(nil, idOf("b")))
	f.Add([]byte{kindObservation, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		s := New(Config{Self: rib.Member{Name: "self", Region: "fra"}, ClusterID: "c", Health: rib.NewTable(rib.Member{Name: "self"}).Health()})
		s.inbox.put(b)
		s.work()
		st := s.Stats()
		if st.Backends > len(b) || st.Records > len(b) || st.Pending > len(b) {
			t.Fatalf("%d bytes made %+v", len(b), st)
		}
		if len(b) > 2 && b[0] == kindObservation && b[1] == observationVersion {
			d := decoder{buf: b[2:]}
			o := d.observation(observationVersion)
			if d.done() != nil {
				return
			}
			again := appendObservation(nil, observationVersion, o.backend, o.observer, &o.route)
			if len(again) > maxObservation {
				t.Fatalf("an observation of %d bytes passes", len(again))
			}
			d = decoder{buf: again[2:]}
			if o2 := d.observation(observationVersion); d.done() != nil || o2 != o {
				t.Fatalf("%+v came back as %+v", o, o2)
			}
		}
	})
}

// FuzzIdentity feeds any bytes as what comes beside messages: a node's metadata, and what rides on the answer to a ping. They must not panic,
// and whatever they are taken for must be the same after another round.
func FuzzIdentity(f *testing.F) {
	m := rib.Member{Name: "n", Region: "fra", Incarnation: 3}
	f.Add(appendMeta(nil, &m, idOf("c"), level))
	f.Add(appendMeta(nil, &m, idOf("c"), 1))
	f.Add(appendAck(nil, ack{1, 2, rib.Epoch{Generation: 3, Index: 4}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, reads, err := memberOf(&memberlist.Node{Name: "n", Meta: b}, idOf("c")); err == nil {
			again := appendMeta(nil, &m, idOf("c"), reads)
			m2, reads2, err := memberOf(&memberlist.Node{Name: "n", Meta: again}, idOf("c"))
			if err != nil || m2 != m || reads2 != reads || m.Name != "n" || !validName(m.Region) {
				t.Fatalf("%+v (%d) came back as %+v (%d), %v", m, reads, m2, reads2, err)
			}
		}
		if a, err := decodeAck(b); err == nil {
			if a2, err := decodeAck(appendAck(nil, a)); err != nil || a2 != a {
				t.Fatalf("%+v came back as %+v, %v", a, a2, err)
			}
		}
		s := New(Config{Self: rib.Member{Name: "self", Region: "fra"}, ClusterID: "c", Health: rib.NewTable(rib.Member{Name: "self"}).Health()})
		delegate{s}.NotifyPingComplete(&memberlist.Node{Name: "n"}, 0, b)
		s.work()
	})
}
