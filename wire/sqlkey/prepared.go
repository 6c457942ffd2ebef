package sqlkey

import (
	"strconv"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"rangefinder/wire/pg"
)

// NameOp is what a text does with a prepared statement of the session.
type NameOp uint8

// The operations.
const (
	NamePrepare    NameOp = iota // PREPARE name AS ...
	NameExecute                  // EXECUTE name, also in EXPLAIN and CREATE TABLE AS
	NameDeallocate               // DEALLOCATE name, or ALL
)

// NameUse is one place where a text names a statement that the session has prepared, or prepares one. The session knows what
// the name stands for; the plan of the text does not.
type NameUse struct {
	Op         NameOp
	Name       string // "" is DEALLOCATE ALL
	Start, End int    // where in the text the name stands, as it is written there; equal for DEALLOCATE ALL
	Statement  int    // in which of the text's statements, from 0

	// Tail is what follows the name in a PREPARE: the types of its parameters, AS, and the statement, which is Inner.
	Tail, Inner string
	// Types are the declared types' OIDs, as Args gives them: 0 is left open, OtherType one that no key can have.
	Types []uint32

	TypeNames []string // the same as they are written

	// Args are what EXECUTE gives for the parameters.
	Args []Argument
	// Ask is a query that has PostgreSQL evaluate all of them; "": they are constants that any type takes as they are written.
	Ask string
	// Home is the shard that EXECUTE's arguments need, unless its statement needs one; "" if they need none.
	Home string
	// Explained: EXPLAIN without ANALYZE, so nothing is executed.
	Explained bool
	// Creates: the result becomes a table, which no keyspace holds.
	Creates bool
}

// OtherType stands for the OID of a type that no sharding key can have.
const OtherType = ^uint32(0)

// Argument is one of EXECUTE's.
type Argument struct {
	Text  string // the constant, as text
	Null  bool
	oid   uint32 // of its own type, which makes of Text what the parameter gets; 0: any type takes it as it is written
	issue *issue // why its value is known to the server alone
}

// Known tells whether an argument is a constant.
func (a *Argument) Known() bool { return a.issue == nil }

// Arg gives EXECUTE's arguments as those of a Bind, see Args. One that is no constant is not there: what it is may be any shard's.
func (u *NameUse) Arg(i int, types []uint32) (val []byte, format int16, oid uint32, null, ok bool) {
	if i < 1 || i > len(u.Args) || !u.Args[i-1].Known() {
		return nil, 0, 0, false, false
	}
	a := &u.Args[i-1]
	if i <= len(types) {
		oid = types[i-1]
	}
	switch {
	case a.oid == 0:
	case oid == 0:
		oid = a.oid
	case oid != a.oid: // the server writes it out as its own type does, and reads that
		oid = OtherType
	}
	return bytesOf(a.Text), 0, oid, a.Null, true
}

// Refused tells why EXECUTE of a statement with that plan cannot be routed by u's arguments, whatever their values.
func (u *NameUse) Refused(inner *Plan) *pg.Error {
	if u.Creates && (inner.Target == Keyed || inner.Target == Many) {
		return pg.NewError(pg.CodeFeatureNotSupported, "the statement cannot be routed").
			WithDetail("It makes a table, which no keyspace holds, of a statement that names a sharded one.").
			WithHint("Make the table first, and insert what a SELECT returns.")
	}
	var refusal *pg.Error
	keys := inner.Keys
	if inner.Fan != nil && inner.Fan.Split != nil {
		keys = inner.Fan.Split.Rows
	}
	for i := range keys {
		keys[i].eachPart(func(k *KeyRef) {
			k.eachParam(func(param int) {
				if param > len(u.Args) || u.Args[param-1].issue == nil || refusal != nil {
					return
				}
				refusal = pg.Errorf(pg.CodeFeatureNotSupported, "argument %d of EXECUTE %s is the sharding key, and no constant", param, quoteName(u.Name)).
					WithDetail("The statement's sharding key is " + k.Text + "; of the argument: " + u.Args[param-1].issue.reason + ".").
					WithHint("Give EXECUTE a constant of type " + k.Type.String() + " there, or NULL, with or without a cast.")
			})
		})
	}
	return refusal
}

// Executing is the plan of a text, p, that executes a statement with the plan inner: what it may do to the server and to the
// session, and where. It has no keys: they are inner's.
func (p *Plan) Executing(u *NameUse, inner *Plan) *Plan {
	q := *p
	q.Unchanging = q.Unchanging && inner.Intent == Read
	if q.Intent == Read {
		q.Intent, q.WhyWrite = inner.Intent, inner.WhyWrite
	}
	if !u.Explained {
		q.leaves(inner.Remains, inner.WhyPin)
		if inner.Session == SessSet {
			q.leaves(RemainUnknown, "set_config by EXECUTE")
		}
		q.Opaque = q.Opaque || inner.Opaque
		q.Frees = q.Frees || inner.Frees
	}
	if q.Target == Any {
		q.Target, q.Shard, q.Reason, q.Fan = inner.Target, inner.Shard, inner.Reason, inner.Fan
	}
	q.Catalogs, q.OfPrimary = q.Catalogs || inner.Catalogs, q.OfPrimary || inner.OfPrimary
	q.Tables = append(q.Tables[:len(q.Tables):len(q.Tables)], inner.Tables...)
	return &q
}

// prepare plans SQL's PREPARE. Nothing of the statement is executed, so it needs a server that has its tables and no more.
func (c *compiler) prepare(s *pgquery.PrepareStmt) *Plan {
	inner := c.statement(s.GetQuery())
	if inner.Target == None {
		return inner
	}
	u := NameUse{Op: NamePrepare, Name: s.GetName()}
	for _, t := range s.GetArgtypes() {
		u.Types = append(u.Types, declaredType(t.GetTypeName(), c.path))
		u.TypeNames = append(u.TypeNames, writtenType(t.GetTypeName()))
	}
	return &Plan{Target: Any, Reason: "PREPARE is checked by any server that has the tables", Tables: inner.Tables, Names: []NameUse{u}}
}

// writtenType is a type's name as it may be written; "" if it cannot.
func writtenType(t *pgquery.TypeName) string {
	const before = "SELECT NULL::"
	null := &pgquery.Node{Node: &pgquery.Node_AConst{AConst: &pgquery.A_Const{Isnull: true}}}
	cast := &pgquery.Node{Node: &pgquery.Node_TypeCast{TypeCast: &pgquery.TypeCast{Arg: null, TypeName: t}}}
	text, err := deparse(selectNode(&pgquery.SelectStmt{TargetList: []*pgquery.Node{target("", cast)}, Op: pgquery.SetOperation_SETOP_NONE, LimitOption: pgquery.LimitOption_LIMIT_OPTION_DEFAULT}))
	if err != nil || !strings.HasPrefix(text, before) {
		return ""
	}
	return text[len(before):]
}

// declaredType is a parameter's type as Args gives it.
func declaredType(t *pgquery.TypeName, p *path) uint32 {
	switch baseTypeName(t, p) {
	case "unknown":
		return 0
	case "int2", "smallint":
		return oidInt2
	case "int4":
		return oidInt4
	case "int8":
		return oidInt8
	case "text":
		return oidText
	case "varchar":
		return oidVarchar
	case "uuid":
		return oidUUID
	case "bytea":
		return oidBytea
	case "date":
		return oidDate
	case "timestamptz":
		return oidTimestamptz
	}
	return OtherType
}

// execute plans EXECUTE by itself: what its arguments may do.
func (c *compiler) execute(s *pgquery.ExecuteStmt) *Plan {
	a, sv := c.analysis(), c.survey()
	sv.take(s)
	a.subqueries(place{}, s.GetParams()...)
	p := c.unlessSet(func() *Plan { return c.route(s, a, sv) })
	if p.Target == None {
		return p
	}
	u := NameUse{Op: NameExecute, Name: s.GetName()}
	if len(a.tables) == 0 { // where it goes is the prepared statement's business
		if sv.home != "" {
			u.Home = p.Shard
		}
		p.Target, p.Shard, p.Reason = Any, "", "EXECUTE goes where its statement belongs"
	}
	p.NumParams = 0
	ask := false
	list := make([]*pgquery.Node, 0, len(s.GetParams()))
	for _, n := range s.GetParams() {
		u.Args = append(u.Args, argument(n, c.path))
		last := &u.Args[len(u.Args)-1]
		ask = ask || last.issue != nil || last.oid != 0
		list = append(list, target("", n))
	}
	if ask {
		u.Ask, _ = deparse(selectNode(&pgquery.SelectStmt{TargetList: list, Op: pgquery.SetOperation_SETOP_NONE, LimitOption: pgquery.LimitOption_LIMIT_OPTION_DEFAULT}))
	}
	p.Names = []NameUse{u}
	return p
}

func argument(n *pgquery.Node, p *path) Argument {
	v, problem := written(n, p) // what is computed may have another type than the parameter: the server is asked for that
	switch {
	case problem != nil:
		return Argument{issue: problem}
	case v.param > 0:
		return Argument{issue: errNotConstant}
	case v.null:
		return Argument{Null: true}
	case v.family == integers:
		return Argument{Text: strconv.FormatInt(v.number, 10)}
	}
	a := Argument{Text: v.str}
	switch v.family {
	case uuids:
		a.oid = oidUUID
	case byteas:
		a.oid = oidBytea
	case dates:
		a.oid = oidDate
	case instants:
		a.oid = oidTimestamptz
	}
	return a
}

func (c *compiler) deallocate(s *pgquery.DeallocateStmt) *Plan {
	return &Plan{
		Target: Any, Reason: "a session statement", Deallocate: true, Statement: s.GetName(),
		Names: []NameUse{{Op: NameDeallocate, Name: s.GetName()}},
	}
}

// place finds where in its text p's parts stand, and the names. If one cannot be found the text is taken for one that leaves state behind.
func (p *Plan) place(tree *pgquery.ParseResult, sql string) {
	for i, part := range p.Parts {
		from := int(tree.GetStmts()[i].GetStmtLocation())
		to := from + int(tree.GetStmts()[i].GetStmtLen())
		if to == from {
			to = len(sql)
		}
		part.SQL = strings.TrimSpace(sql[from:to])
	}
	if len(p.Names) == 0 || p.Target == None {
		p.Names = nil
		return
	}
	scan, err := pgquery.Scan(sql)
	if err == nil {
		words := tokens{sql: sql}
		for _, t := range scan.GetTokens() {
			if t.GetToken() != pgquery.Token_SQL_COMMENT && t.GetToken() != pgquery.Token_C_COMMENT {
				words.list = append(words.list, t)
			}
		}
		found := true
		for i := range p.Names {
			found = found && words.place(&p.Names[i], tree.GetStmts()[p.Names[i].Statement])
		}
		if found {
			return
		}
	}
	p.Names, p.Deallocate = nil, false
	p.Intent, p.WhyWrite = Write, "a prepared statement whose name cannot be found in the text"
	p.leaves(RemainUnknown, p.WhyWrite)
}

// tokens are a text's, without its comments.
type tokens struct {
	sql  string
	list []*pgquery.ScanToken
}

func (t *tokens) place(u *NameUse, s *pgquery.RawStmt) bool {
	start, end := int(s.GetStmtLocation()), len(t.sql)
	if n := int(s.GetStmtLen()); n > 0 {
		end = start + n
	}
	var words []*pgquery.ScanToken
	for _, w := range t.list {
		if int(w.GetStart()) >= start && int(w.GetEnd()) <= end && w.GetToken() != pgquery.Token_ASCII_59 {
			words = append(words, w)
		}
	}
	at := -1 // of the word before the name
	switch u.Op {
	case NameDeallocate:
		if u.Name == "" {
			return true
		}
		at = 0
		if len(words) > 2 && words[1].GetToken() == pgquery.Token_PREPARE {
			at = 1
		}
	case NamePrepare:
		at = 0
	case NameExecute:
		at = executes(words)
	}
	if at < 0 || at+1 >= len(words) {
		return false
	}
	u.Start, u.End = int(words[at+1].GetStart()), int(words[at+1].GetEnd())
	next := at + 2
	if words[at+1].GetToken() == pgquery.Token_UIDENT && next+1 < len(words) && words[next].GetToken() == pgquery.Token_UESCAPE {
		u.End = int(words[next+1].GetEnd())
		next += 2
	}
	if u.Op != NamePrepare {
		return true
	}
	if next < len(words) && words[next].GetToken() == pgquery.Token_ASCII_40 {
		for depth := 0; next < len(words); next++ {
			switch words[next].GetToken() {
			case pgquery.Token_ASCII_40:
				depth++
			case pgquery.Token_ASCII_41:
				depth--
			}
			if depth == 0 {
				next++
				break
			}
		}
	}
	if next+1 >= len(words) || words[next].GetToken() != pgquery.Token_AS {
		return false
	}
	u.Tail = strings.Clone(t.sql[u.End:end])
	u.Inner = u.Tail[int(words[next+1].GetStart())-u.End:]
	return true
}

// executes finds the word EXECUTE that is the statement's own: tables may be called so too.
func executes(words []*pgquery.ScanToken) int {
	depth, first := 0, -1
	for i, w := range words {
		switch w.GetToken() {
		case pgquery.Token_ASCII_40:
			depth++
		case pgquery.Token_ASCII_41:
			depth--
		case pgquery.Token_EXECUTE:
			switch {
			case depth > 0:
			case i > 0 && words[i-1].GetToken() == pgquery.Token_AS:
				return i
			case first < 0:
				first = i
			}
		}
	}
	return first
}
