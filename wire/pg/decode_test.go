package pg

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// TestAppend holds what we write against another implementation's encoding of the same message.
func TestAppend(t *testing.T) {
	encode := func(m pgproto3.Message) []byte {
		out, err := m.Encode([]byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	dst := func() []byte { return []byte("x") }
	for name, c := range map[string]struct{ got, want []byte }{
		"Ready":           {AppendReady(dst(), StatusInTx), encode(&pgproto3.ReadyForQuery{TxStatus: 'T'})},
		"CommandComplete": {AppendCommandComplete(dst(), "BEGIN"), encode(&pgproto3.CommandComplete{CommandTag: []byte("BEGIN")})},
		"ParameterStatus": {AppendParameterStatus(dst(), "a", "b"), encode(&pgproto3.ParameterStatus{Name: "a", Value: "b"})},
		"KeyData":         {AppendBackendKeyData(dst(), 7, []byte{1, 2, 3, 4}), encode(&pgproto3.BackendKeyData{ProcessID: 7, SecretKey: []byte{1, 2, 3, 4}})},
		"NoData":          {AppendNoData(dst()), encode(&pgproto3.NoData{})},
		"ParseComplete":   {AppendParseComplete(dst()), encode(&pgproto3.ParseComplete{})},
		"BindComplete":    {AppendBindComplete(dst()), encode(&pgproto3.BindComplete{})},
		"CloseComplete":   {AppendCloseComplete(dst()), encode(&pgproto3.CloseComplete{})},
		"EmptyQuery":      {AppendEmptyQuery(dst()), encode(&pgproto3.EmptyQueryResponse{})},
		"Sync":            {AppendSync(dst()), encode(&pgproto3.Sync{})},
		"Flush":           {AppendFlush(dst()), encode(&pgproto3.Flush{})},
		"Terminate":       {AppendTerminate(dst()), encode(&pgproto3.Terminate{})},
		"Query":           {AppendQuery(dst(), "select 1"), encode(&pgproto3.Query{String: "select 1"})},
		"Parse":           {AppendParse(dst(), "n", "q", []uint32{20, 0}), encode(&pgproto3.Parse{Name: "n", Query: "q", ParameterOIDs: []uint32{20, 0}})},
		"Describe":        {AppendDescribe(dst(), KindPortal, "p"), encode(&pgproto3.Describe{ObjectType: 'P', Name: "p"})},
		"Close":           {AppendClose(dst(), KindStatement, "s"), encode(&pgproto3.Close{ObjectType: 'S', Name: "s"})},
		"Execute":         {AppendExecute(dst(), "p", 9), encode(&pgproto3.Execute{Portal: "p", MaxRows: 9})},
		"SSLRequest":      {AppendSSLRequest(dst()), encode(&pgproto3.SSLRequest{})},
		"CancelRequest":   {AppendCancelRequest(dst(), 7, []byte{0, 0, 0, 9}), encode(&pgproto3.CancelRequest{ProcessID: 7, SecretKey: []byte{0, 0, 0, 9}})},
		"Startup":         {AppendStartup(dst(), []Param{{"user", "u"}}), encode(&pgproto3.StartupMessage{ProtocolVersion: 196608, Parameters: map[string]string{"user": "u"}})},
	} {
		if !bytes.Equal(c.got, c.want) {
			t.Errorf("%s is\n%x, want\n%x", name, c.got, c.want)
		}
	}
}

func body(frame []byte) []byte { return frame[HeaderSize:] }

func TestDecode(t *testing.T) {
	for name, c := range map[string]struct {
		got  func() (any, error)
		want any
	}{
		"Parse": {func() (any, error) { return decodeParse(body(AppendParse(nil, "n", "select $1", []uint32{20, 0}))) },
			Parse{"n", "select $1", []uint32{20, 0}}},
		"Parse without types": {func() (any, error) { return decodeParse(body(AppendParse(nil, "", "", nil))) }, Parse{}},
		"Describe":            {func() (any, error) { return DecodeDescribe(body(AppendDescribe(nil, 'S', "s"))) }, Describe{'S', []byte("s")}},
		"Close":               {func() (any, error) { return DecodeClose(body(AppendClose(nil, 'P', ""))) }, Close{'P', []byte{}}},
		"Execute":             {func() (any, error) { return DecodeExecute(body(AppendExecute(nil, "p", 5))) }, Execute{[]byte("p"), 5}},
		"Query":               {func() (any, error) { return DecodeQuery(body(AppendQuery(nil, "select 1"))) }, []byte("select 1")},
		"Ready":               {func() (any, error) { return DecodeReady(body(AppendReady(nil, 'E'))) }, byte('E')},
		"ParameterStatus": {func() (any, error) {
			k, v, err := DecodeParameterStatus(body(AppendParameterStatus(nil, "TimeZone", "UTC")))
			return k + "=" + v, err
		}, "TimeZone=UTC"},
		"BackendKeyData": {func() (any, error) {
			pid, secret, err := DecodeBackendKeyData(body(AppendBackendKeyData(nil, 9, []byte("0123456789"))))
			return fmt.Sprint(pid, string(secret)), err
		}, fmt.Sprint(9, "0123456789")},
		"CommandTag":          {func() (any, error) { return CommandTag([]byte("UPDATE 1\x00")), nil }, []byte("UPDATE 1")},
		"CommandTag, unended": {func() (any, error) { return CommandTag([]byte("UPDATE 1")), nil }, []byte("UPDATE 1")},
		"TagRows":             {func() (any, error) { return TagRows([]byte("INSERT 0 507")), nil }, uint64(507)},
		"TagRows, none":       {func() (any, error) { return TagRows([]byte("CREATE TABLE")) + TagRows([]byte("7")) + TagRows(nil), nil }, uint64(0)},
		"CommandTag, nothing": {func() (any, error) { return CommandTag(nil), nil }, []byte(nil)},
		"Parse of 65535 types": {func() (any, error) {
			p, err := decodeParse(body(AppendParse(nil, "", "", make([]uint32, 65535))))
			return len(p.OIDs), err
		}, 65535},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.got()
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Fatalf("got %#v, %v; want %#v", got, err, c.want)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	parse := func(b []byte) error { _, err := decodeParse(b); return err }
	describe := func(b []byte) error { _, err := DecodeDescribe(b); return err }
	closing := func(b []byte) error { _, err := DecodeClose(b); return err }
	execute := func(b []byte) error { _, err := DecodeExecute(b); return err }
	query := func(b []byte) error { _, err := DecodeQuery(b); return err }
	ready := func(b []byte) error { _, err := DecodeReady(b); return err }
	status := func(b []byte) error { _, _, err := DecodeParameterStatus(b); return err }
	key := func(b []byte) error { _, _, err := DecodeBackendKeyData(b); return err }
	for _, c := range []struct {
		name    string
		decode  func([]byte) error
		body    string
		message string
	}{
		{"Parse, nothing", parse, "", "invalid string in message"},
		{"Parse, text not ended", parse, "n\x00q", "invalid string in message"},
		{"Parse, no count", parse, "n\x00q\x00", "insufficient data left in message"},
		{"Parse, types claimed", parse, "n\x00q\x00\xff\xff\x00\x00\x00\x01", "insufficient data left in message"},
		{"Parse, a byte too many", parse, "n\x00q\x00\x00\x00\x00", "invalid message format"},
		{"Describe, nothing", describe, "", "insufficient data left in message"},
		{"Describe, kind alone", describe, "S", "invalid string in message"},
		{"Describe, odd kind", describe, "Xs\x00", "invalid DESCRIBE message subtype 88"},
		{"Describe, a byte too many", describe, "Ss\x00\x00", "invalid message format"},
		{"Close, odd kind", closing, "\x00s\x00", "invalid CLOSE message subtype 0"},
		{"Execute, no limit", execute, "p\x00\x00", "insufficient data left in message"},
		{"Execute, a byte too many", execute, "p\x00\x00\x00\x00\x00\x00", "invalid message format"},
		{"Query, not ended", query, "select 1", "invalid string in message"},
		{"Query, NUL inside", query, "select\x001\x00", "invalid message format"},
		{"Ready, nothing", ready, "", "malformed ReadyForQuery"},
		{"Ready, odd status", ready, "X", "malformed ReadyForQuery"},
		{"ParameterStatus, no value", status, "a\x00", "invalid string in message"},
		{"KeyData, short", key, "\x00\x00\x00\x01abc", "malformed BackendKeyData"},
		{"KeyData, long", key, string(make([]byte, 4+MaxSecret+1)), "malformed BackendKeyData"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if e := wantCode(t, c.decode([]byte(c.body)), "08P01"); e.Message != c.message {
				t.Fatalf("message %q, want %q", e.Message, c.message)
			}
		})
	}
}

// FuzzParse: no decoder panics, and what decodes encodes again to the same bytes.
func FuzzParse(f *testing.F) {
	f.Add(body(AppendParse(nil, "s", "select $1", []uint32{20, 25})))
	f.Add(body(AppendDescribe(nil, 'S', "s")))
	f.Add(body(AppendExecute(nil, "p", 10)))
	f.Add(body(AppendQuery(nil, "select 1")))
	f.Add(body(AppendParameterStatus(nil, "a", "b")))
	f.Add(body(AppendError(nil, NewError("XX000", "no").WithDetail("d").WithPosition(3))))
	f.Add([]byte("n\x00q\x00\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		same := func(what string, frame []byte) {
			if !bytes.Equal(body(frame), b) {
				t.Fatalf("%s encoded again:\n%x, was\n%x", what, body(frame), b)
			}
		}
		if p, err := decodeParse(b); err == nil {
			same("Parse", AppendParse(nil, p.Name, p.SQL, p.OIDs))
		} else {
			wantCode(t, err, "08P01")
		}
		if d, err := DecodeDescribe(b); err == nil {
			same("Describe", AppendDescribe(nil, d.Kind, string(d.Name)))
		}
		if c, err := DecodeClose(b); err == nil {
			same("Close", AppendClose(nil, c.Kind, string(c.Name)))
		}
		if e, err := DecodeExecute(b); err == nil {
			same("Execute", AppendExecute(nil, string(e.Portal), e.MaxRows))
		}
		if q, err := DecodeQuery(b); err == nil {
			same("Query", AppendQuery(nil, string(q)))
		}
		if k, v, err := DecodeParameterStatus(b); err == nil {
			same("ParameterStatus", AppendParameterStatus(nil, k, v))
		}
		if pid, secret, err := DecodeBackendKeyData(b); err == nil {
			same("BackendKeyData", AppendBackendKeyData(nil, pid, secret))
		}
		if e, err := DecodeError(b); err == nil {
			again, err := DecodeError(body(AppendError(nil, e)))
			if err != nil || *again != *e {
				t.Fatalf("error %#v came back as %#v, %v", e, again, err)
			}
		}
		_, _ = DecodeReady(b)
		_ = CommandTag(b)
	})
}

func BenchmarkDecodeParseView(b *testing.B) {
	frame := body(AppendParse(nil, "s", "select * from orders where customer_id = $1", []uint32{20}))
	b.ReportAllocs()
	for b.Loop() {
		if v, err := DecodeParseView(frame); err != nil || v.NumOIDs() != 1 {
			b.Fatal(err)
		}
	}
}

func decodeParse(body []byte) (Parse, error) {
	v, err := DecodeParseView(body)
	if err != nil {
		return Parse{}, err
	}
	return v.Copy(), nil
}
