package sqloracle

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// protocol is how a statement is sent.
type protocol int

const (
	simple   protocol = iota // Query, with constants in the text
	extended                 // Parse, Bind, Describe, Execute: parameters and results as text
	binaries                 // the same in binary, parameters with their types
	prepared                 // Parse and Describe of a named statement first; parameters as text, results in binary
	pipeline                 // several statements of the extended protocol with one Sync
)

func (p protocol) String() string {
	return [...]string{"simple", "extended", "binary", "prepared", "pipeline"}[p]
}

// arg is a parameter's value.
type arg struct {
	oid  uint32
	text string // in PostgreSQL's text form
	null bool
}

// order says what of the order of a statement's rows is defined.
type order struct {
	kind orderKind
	keys []int // with byKeys and byKeysCut: the columns that the rows are ordered by, from 0
}

type orderKind int

const (
	bag       orderKind = iota // none
	exact                      // all of it
	byKeys                     // that of some columns; rows that are alike in these come in any order
	byKeysCut                  // the same, and LIMIT cuts: which of alike rows are there is open at the cuts
	counted                    // LIMIT alone: only how many rows there are
)

// statement is one that is asked of both.
type statement struct {
	sql   string
	args  []arg
	how   protocol
	order order
	parts []*statement // of several in one: in one text, or in a pipeline
}

func (s *statement) String() string {
	text := s.sql
	if s.how == pipeline {
		for _, p := range s.parts {
			text += "\n    " + p.String()
		}
	}
	for i, a := range s.args {
		value := a.text
		if a.null {
			value = "NULL"
		}
		text += fmt.Sprintf("  $%d=%q", i+1, value)
	}
	return fmt.Sprintf("[%s] %s", s.how, text)
}

// answer is what came back: the results, and then perhaps an error.
type answer struct {
	params  []string // prepared: the types of the parameters
	results []result
	err     *pgconn.PgError
	lost    error // of the connection
}

type result struct {
	fields []field
	rows   [][][]byte
	tag    string
}

type field struct {
	name     string
	typ      string
	oid      uint32
	modifier int32
	format   int16
}

func (f field) String() string {
	return fmt.Sprintf("%s %s(%d) format %d", f.name, f.typ, f.modifier, f.format)
}

// ask sends the statement to the plain server or to the router, and reads all of the answer.
func (c *clients) ask(side int, s *statement) (a answer) {
	ctx, conn, p := c.ctx, c.conns[side], reader{c.p.types[side]}
	var err error
	switch s.how {
	case pipeline:
		err = p.pipeline(ctx, conn, s, &a)
	case simple:
		all := conn.Exec(ctx, s.sql)
		for all.NextResult() {
			r, e := p.read(all.ResultReader())
			if e == nil {
				a.results = append(a.results, r)
			}
		}
		err = all.Close()
	default:
		values, oids, formats, wanted := s.bind()
		if s.how != prepared {
			var r result
			if r, err = p.read(conn.ExecParams(ctx, s.sql, values, oids, formats, wanted)); err == nil {
				a.results = append(a.results, r)
			}
			break
		}
		var d *pgconn.StatementDescription
		if d, err = conn.Prepare(ctx, "s", s.sql, oids); err != nil {
			break
		}
		for _, oid := range d.ParamOIDs {
			a.params = append(a.params, p.typeName(oid))
		}
		var r result
		if r, err = p.read(conn.ExecPrepared(ctx, "s", values, formats, wanted)); err == nil {
			a.results = append(a.results, r)
			if described := p.fields(d.Fields, true); fmt.Sprint(described) != fmt.Sprint(unformatted(r.fields)) {
				err = fmt.Errorf("the description of the statement, %v, is not that of the portal, %v", described, r.fields)
			}
		}
		// A failed transaction still lets statements be closed.
		if e := conn.Deallocate(ctx, "s"); err == nil {
			err = e
		}
	}
	if err != nil && !errors.As(err, &a.err) {
		a.lost = err
	}
	return a
}

// pipeline sends all parts of s before it reads the first answer.
func (p reader) pipeline(ctx context.Context, conn *pgconn.PgConn, s *statement, a *answer) error {
	pipe := conn.StartPipeline(ctx)
	for _, part := range s.parts {
		values, oids, formats, wanted := part.bind()
		pipe.SendQueryParams(part.sql, values, oids, formats, wanted)
	}
	err := pipe.Sync()
	for err == nil {
		var got any
		if got, err = pipe.GetResults(); err != nil {
			break
		}
		r, ok := got.(*pgconn.ResultReader)
		if !ok {
			break
		}
		var one result
		if one, err = p.read(r); err == nil {
			a.results = append(a.results, one)
		}
	}
	if e := pipe.Close(); err == nil {
		err = e
	}
	return err
}

// bind returns the parameters of the extended protocol.
func (s *statement) bind() (values [][]byte, oids []uint32, formats, wanted []int16) {
	types := pgtype.NewMap()
	for _, g := range s.args {
		oid, format, value := uint32(0), int16(pgtype.TextFormatCode), []byte(g.text)
		if s.how == binaries {
			oid = g.oid
			if b, ok := inBinary(types, g); ok {
				format, value = pgtype.BinaryFormatCode, b
			}
		}
		if g.null {
			value = nil
		}
		values, oids, formats = append(values, value), append(oids, oid), append(formats, format)
	}
	if s.how == binaries || s.how == prepared {
		wanted = []int16{pgtype.BinaryFormatCode}
	}
	return values, oids, formats, wanted
}

// inBinary turns a value from text into its type's binary form.
func inBinary(types *pgtype.Map, g arg) ([]byte, bool) {
	t, ok := types.TypeForOID(g.oid)
	if !ok || g.null {
		return nil, false
	}
	v, err := t.Codec.DecodeValue(types, g.oid, pgtype.TextFormatCode, []byte(g.text))
	if err != nil {
		return nil, false
	}
	b, err := types.Encode(g.oid, pgtype.BinaryFormatCode, v, []byte{})
	return b, err == nil
}

// reader knows the types of one side.
type reader struct{ types map[uint32]string }

func (p reader) read(r *pgconn.ResultReader) (result, error) {
	fields := p.fields(r.FieldDescriptions(), false)
	read := r.Read()
	return result{fields, read.Rows, read.CommandTag.String()}, read.Err
}

func (p reader) fields(all []pgconn.FieldDescription, statement bool) (out []field) {
	for _, f := range all {
		format := f.Format
		if statement {
			format = 0
		}
		out = append(out, field{f.Name, p.typeName(f.DataTypeOID), f.DataTypeOID, f.TypeModifier, format})
	}
	return out
}

func unformatted(all []field) (out []field) {
	for _, f := range all {
		f.format = 0
		out = append(out, f)
	}
	return out
}

// typeName is the same for a type on every server.
func (p reader) typeName(oid uint32) string {
	if name := p.types[oid]; name != "" {
		return name
	}
	return strconv.Itoa(int(oid))
}

// differ says how got is not what want is, as far as the order is defined; "": they are alike.
func differ(want, got *answer, s *statement) string {
	switch {
	case want.lost != nil || got.lost != nil:
		return fmt.Sprintf("the connection is lost: PostgreSQL %v, router %v", want.lost, got.lost)
	case want.err != nil && got.err != nil:
		if want.err.Code != got.err.Code {
			return fmt.Sprintf("PostgreSQL fails with %s %s\n  router with %s", want.err.Code, want.err.Message, inFull(got.err))
		}
	case want.err != nil:
		return fmt.Sprintf("PostgreSQL fails with %s %s\n  router does not", want.err.Code, want.err.Message)
	case got.err != nil:
		return "router fails with " + inFull(got.err)
	}
	if len(want.results) != len(got.results) {
		return fmt.Sprintf("%d results, want %d", len(got.results), len(want.results))
	}
	if !slices.Equal(want.params, got.params) {
		return fmt.Sprintf("types of parameters %v, want %v", got.params, want.params)
	}
	for i := range want.results {
		one := s
		if len(s.parts) > i {
			one = s.parts[i]
		}
		if d := want.results[i].differ(&got.results[i], one.order, oneOfEquals.MatchString(one.sql)); d != "" {
			return d
		}
	}
	return ""
}

func inFull(e *pgconn.PgError) string {
	return strings.TrimSpace(fmt.Sprintf("%s %s; %s; %s", e.Code, e.Message, e.Detail, e.Hint))
}

// oneOfEquals is what has one of several values that are equal stand for all, or puts them side by side. Which of 0.5 and 0.50 that is, or comes first, nothing says.
var oneOfEquals = regexp.MustCompile(`GROUP BY|DISTINCT|UNION|EXCEPT|INTERSECT|min\(|max\(|array_agg\(.* ORDER BY`)

// differ says how got differs. loose: numbers are compared by value.
func (r *result) differ(got *result, o order, loose bool) string {
	if len(r.fields) != len(got.fields) {
		return fmt.Sprintf("columns %v\n  want    %v", got.fields, r.fields)
	}
	for i := range r.fields {
		a, b := r.fields[i], got.fields[i]
		if a.oid, b.oid = 0, 0; a != b {
			return fmt.Sprintf("column %d is %v, want %v", i+1, b, a)
		}
	}
	if r.tag != got.tag {
		return fmt.Sprintf("command tag %q, want %q%s", got.tag, r.tag, r.show(got))
	}
	if len(r.rows) != len(got.rows) {
		return fmt.Sprintf("%d rows, want %d%s", len(got.rows), len(r.rows), r.show(got))
	}
	a, b := r.canonical(nil, loose), got.canonical(nil, loose)
	switch o.kind {
	case counted:
		return ""
	case byKeys, byKeysCut:
		for i, x := range r.canonical(o.keys, true) {
			if y := got.canonical(o.keys, true)[i]; x != y {
				return fmt.Sprintf("row %d comes in another order: %s, want %s%s", i+1, y, x, r.show(got))
			}
		}
		if o.kind == byKeysCut {
			return ""
		}
		slices.Sort(a)
		slices.Sort(b)
	case bag:
		slices.Sort(a)
		slices.Sort(b)
	}
	for i := range a {
		if a[i] != b[i] {
			return fmt.Sprintf("row %s, want %s%s", b[i], a[i], r.show(got))
		}
	}
	return ""
}

// show is some rows of both, for people.
func (r *result) show(got *result) string {
	short := func(all []string) string {
		if len(all) > 12 {
			all = append(all[:12:12], fmt.Sprintf("and %d more", len(all)-12))
		}
		return strings.Join(all, "  ")
	}
	return "\n  PostgreSQL: " + short(r.canonical(nil, false)) + "\n  router:     " + short(got.canonical(nil, false))
}

// canonical are the rows, each as text that is the same for values that count as equal. keys are the columns, nil: all. loose: numbers
// are their values.
func (r *result) canonical(keys []int, loose bool) []string {
	out := make([]string, len(r.rows))
	for i, row := range r.rows {
		var b strings.Builder
		b.WriteByte('(')
		for c, v := range row {
			if keys != nil && !slices.Contains(keys, c) {
				continue
			}
			if b.Len() > 1 {
				b.WriteString(", ")
			}
			text := r.fields[c].canonical(v)
			switch {
			case loose && r.fields[c].oid == pgtype.NumericOID:
				text = r.fields[c].number(v)
			case loose && r.fields[c].oid == pgtype.NumericArrayOID:
				text = r.fields[c].numbers(v)
			}
			b.WriteString(text)
		}
		b.WriteByte(')')
		out[i] = b.String()
	}
	return out
}

// The types of floats.
const (
	float4 = pgtype.Float4OID
	float8 = pgtype.Float8OID
)

// nudge moves numbers off the border between two of nine digits, where those that are made of binary fractions like to be: in another order of the same rows they are by
// the last bit smaller, and would read otherwise.
const nudge = 1e-12

func (f *field) canonical(v []byte) string {
	switch {
	case v == nil:
		return "NULL"
	case f.oid == float4 || f.oid == float8:
		x, err := strconv.ParseFloat(string(v), 64)
		if f.format == pgtype.BinaryFormatCode {
			err = nil
			if len(v) == 8 {
				x = math.Float64frombits(binary.BigEndian.Uint64(v))
			} else {
				x = float64(math.Float32frombits(binary.BigEndian.Uint32(v)))
			}
		}
		if err == nil {
			if math.Abs(x) < 1e-9 {
				x = 0
			}
			return strconv.FormatFloat(x*(1+nudge), 'g', 9, 64)
		}
	case f.format == pgtype.BinaryFormatCode && !printable(v):
		return fmt.Sprintf("%x", v)
	}
	return string(v)
}

// number is a numeric without zeros at its end: as a value to order by, 0.50 is 0.500.
func (f *field) number(v []byte) string {
	var n pgtype.Numeric
	if v == nil || pgtype.NewMap().Scan(f.oid, f.format, v, &n) != nil || n.Int == nil {
		return f.canonical(v)
	}
	return shortest(n)
}

// numbers is the same for an array of them.
func (f *field) numbers(v []byte) string {
	var list []pgtype.Numeric
	if v == nil || pgtype.NewMap().Scan(f.oid, f.format, v, &list) != nil {
		return f.canonical(v)
	}
	var b strings.Builder
	for _, n := range list {
		if n.Int == nil { // NULL, NaN or infinite
			fmt.Fprintf(&b, "%t %t %v,", n.Valid, n.NaN, n.InfinityModifier)
			continue
		}
		b.WriteString(shortest(n) + ",")
	}
	return "{" + b.String() + "}"
}

// shortest is a number that has an n.Int.
func shortest(n pgtype.Numeric) string {
	ten, rest := big.NewInt(10), new(big.Int)
	for n.Int.Sign() != 0 {
		q, r := new(big.Int).QuoRem(n.Int, ten, rest)
		if r.Sign() != 0 {
			break
		}
		n.Int = q
		n.Exp++
	}
	if n.Int.Sign() == 0 {
		n.Exp = 0
	}
	return fmt.Sprintf("%se%d", n.Int, n.Exp)
}

func printable(v []byte) bool {
	return len(v) > 0 && bytes.IndexFunc(v, func(r rune) bool { return r < ' ' || r == 0xfffd }) < 0
}

// Numbers that are equal come in an array in no order that anything says, although they look different; others do not.
// TestFloatsThatDifferByTheLastBit: they are alike, also on the border between two of nine digits.
func TestFloatsThatDifferByTheLastBit(t *testing.T) {
	f := field{oid: float8}
	for _, x := range []float64{10.23890625, -10.23890625, 1.0234375 / 1024, 123456789.5, 0.1} {
		texts := map[string]bool{}
		for _, y := range []float64{math.Nextafter(x, 0), x, math.Nextafter(x, 2*x)} {
			texts[f.canonical(strconv.AppendFloat(nil, y, 'g', -1, 64))] = true
		}
		if len(texts) != 1 {
			t.Errorf("%v and its neighbours read %v", x, texts)
		}
	}
}

func TestEqualNumbersOfAnArray(t *testing.T) {
	const sql = "SELECT array_agg(coalesce(amount, 1) ORDER BY coalesce(amount, 1)) FROM order_lines"
	answerOf := func(value string) *answer {
		return &answer{results: []result{{tag: "SELECT 1", fields: []field{{oid: pgtype.NumericArrayOID}}, rows: [][][]byte{{[]byte(value)}}}}}
	}
	for got, same := range map[string]bool{"{0.5,1,1.000,NULL}": true, "{0.5,1.000,1,NULL}": true, "{0.5,1,1,NULL}": true, "{1,0.5,1.000,NULL}": false, "{0.5,1,1.001,NULL}": false, "{0.5,1,1.000,NaN}": false} {
		d := differ(answerOf("{0.5,1.000,1,NULL}"), answerOf(got), &statement{sql: sql})
		if (d == "") != same {
			t.Errorf("%s: %q", got, d)
		}
	}
}
