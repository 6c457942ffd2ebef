package sqlkey

import (
	"slices"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"rangefinder/wire/pg"
)

// survey is what a whole statement holds, wherever it stands in it.
type survey struct {
	path  *path
	known *builtins

	write    string  // why it is no plain read
	pin      Remains // what it leaves in the server's session
	why      string  // the same for people
	frees    bool    // it may take away what others have left there
	home     string  // what in it concerns something that one shard alone has
	homeTied bool    // and not just a notification
	notifies bool
	channel  string // that NOTIFY names
	payload  string
	foreign  bool     // it calls functions that are not PostgreSQL's own
	channels bool     // it asks which channels the session listens to
	opaque   *issue   // what may read tables that no parser sees
	schemas  []string // that functions and types are named with
	unlike   string   // what in it may come out otherwise on another server
	params   int      // the highest $n
	times    []int    // those that are cast to a date or time
	volatile string   // a function that must not be called on several shards
	changes  int      // how many INSERTs, UPDATEs, DELETEs and MERGEs it holds
	current  bool     // WHERE CURRENT OF
	alters   bool     // it writes, and not just by locking rows
	unique   bool     // it names rangefinder.unique_id()
	placed   string   // the column by which it looks for rows where, or by whom, they are stored: see ofRow; "": none
	tables   int      // how often it tells numbers that are others on each shard: by tableoid, or a cast of regclass and its like
	marks    bool     // it holds what would be taken for a mark of Fan.Final
	numbers  bool     // it turns names into the numbers of the catalogs, or back, or asks for its snapshot

	configs []config                     // calls of set_config
	named   map[*pgquery.FuncCall]string // those of them whose parameter a condition names: see settingOf
}

// config is a call of set_config.
type config struct {
	name, value       string
	nameKnown, known  bool // of literals
	local, localKnown bool
}

func (s *survey) take(m proto.Message) { walk(m, s.visit) }

func (s *survey) differs(why string) {
	if s.unlike == "" {
		s.unlike = why
	}
}

func (s *survey) writes(why string) {
	s.alters = true
	if s.write == "" {
		s.write = why
	}
}

func (s *survey) remains(what Remains, why string) {
	s.pin |= what
	if s.why == "" {
		s.why = why
	}
}

// temporary notes a temporary table. One that goes with its transaction needs its connection no longer than that does.
func (s *survey) temporary(onCommit pgquery.OnCommitAction) {
	if onCommit != pgquery.OnCommitAction_ONCOMMIT_DROP {
		s.remains(RemainTemp, "a temporary table")
	}
}

func (s *survey) visit(n any) bool {
	switch n := n.(type) {
	case *pgquery.FuncCall:
		s.function(n)
	case *pgquery.TypeName:
		names := n.GetNames()
		if len(names) == 2 {
			s.schemas = append(s.schemas, names[0].GetString_().GetSval())
		}
		s.numbers = s.numbers || isNumber(lastOf(n))
	case *pgquery.TypeCast:
		arg := n.GetArg()
		for arg.GetTypeCast() != nil {
			arg = arg.GetTypeCast().GetArg()
		}
		switch {
		case tellsNumber(n):
			s.tables++
		case lastName(n.GetArg()) == tableoid && isRegclass(n.GetTypeName()):
			s.tables--
		}
		if p := arg.GetParamRef(); p != nil && isOneOf(lastOf(n.GetTypeName()), "date", "time", "timetz", "timestamp", "timestamptz", "daterange", "tsrange",
			"tstzrange", "datemultirange", "tsmultirange", "tstzmultirange") {
			s.times = append(s.times, int(p.GetNumber()))
		}
	case *pgquery.ParamRef:
		s.params = max(s.params, int(n.GetNumber()))
	case *pgquery.LockingClause:
		alters := s.alters
		s.writes(lockName(n.GetStrength()))
		s.alters = alters
		if n.GetWaitPolicy() != pgquery.LockWaitPolicy_LockWaitBlock {
			s.differs("SKIP LOCKED or NOWAIT")
		}
	case *pgquery.IntoClause:
		s.writes("SELECT INTO")
		if s.path.temporary(n.GetRel()) {
			s.temporary(n.GetOnCommit())
		}
	case *pgquery.RangeVar:
		s.marks = s.marks || holdsMark(n.GetRelname()) || holdsMark(n.GetSchemaname())
	case *pgquery.ResTarget:
		s.marks = s.marks || holdsMark(n.GetName())
	case *pgquery.Alias:
		s.marks = s.marks || holdsMark(n.GetAliasname())
	case *pgquery.String:
		s.marks = s.marks || holdsMark(n.GetSval())
		if n.GetSval() == "pg_temp" { // the schema: of a function, say
			s.remains(RemainTemp, "a temporary object")
		}
	case *pgquery.InsertStmt:
		s.changes++
		s.writes("INSERT")
		if n.GetOnConflictClause().GetAction() == pgquery.OnConflictAction_ONCONFLICT_NOTHING && n.GetSelectStmt() != nil && len(n.GetSelectStmt().GetSelectStmt().GetValuesLists()) == 0 {
			s.differs("which of several rows is the first, which ON CONFLICT DO NOTHING keeps,")
		}
	case *pgquery.UpdateStmt:
		s.changes++
		s.writes("UPDATE")
		if r := n.GetRelation(); r.GetRelname() == "pg_settings" && (r.GetSchemaname() == "" || r.GetSchemaname() == "pg_catalog") {
			s.foreign = true // it is another SET, of whatever its rows are
			s.opaque = &issue{pg.CodeFeatureNotSupported, "an UPDATE of pg_settings may change what names mean", "Use SET or set_config."}
		}
		if len(n.GetFromClause()) > 0 {
			s.differs("UPDATE ... FROM, if several rows match one,")
		}
	case *pgquery.DeleteStmt:
		s.changes++
		s.writes("DELETE")
	case *pgquery.MergeStmt:
		s.changes++
		s.writes("MERGE")
	case *pgquery.A_Expr:
		if k := n.GetKind(); k == pgquery.A_Expr_Kind_AEXPR_OP || k == pgquery.A_Expr_Kind_AEXPR_OP_ANY || k == pgquery.A_Expr_Kind_AEXPR_OP_ALL {
			s.operator(n.GetName())
		}
		for _, pair := range [][2]*pgquery.Node{{n.GetLexpr(), n.GetRexpr()}, {n.GetRexpr(), n.GetLexpr()}} {
			if name := lastName(uncast(pair[0])); ofRow(name) && !namesColumns(pair[1]) {
				s.placed = name
			}
			if pair[0].GetColumnRef() == nil || !isOneOf(operator(n.GetName()), "=", "<>") || !tellsTables(pair[1]) {
				continue
			}
			if lastName(pair[0]) == tableoid {
				s.tables--
			}
			walk(pair[1], func(x any) bool {
				if cast, ok := x.(*pgquery.TypeCast); ok && tellsNumber(cast) {
					s.tables--
				}
				return true
			})
		}
	case *pgquery.ColumnRef:
		if fields := n.GetFields(); len(fields) > 0 {
			name := fields[len(fields)-1].GetString_().GetSval()
			if ofRow(name) || name == tableoid {
				s.differs("column " + name + ", which is where and by whom a row is stored,")
			}
			if name == tableoid {
				s.tables++
			}
		}
	case *pgquery.CurrentOfExpr:
		s.current = true
	case *pgquery.SQLValueFunction:
		s.differs("a function of the server's clock or session, " + valueFunction(n.GetOp()))
	case *pgquery.A_Const: // whatever it becomes: a time, if that is what its column holds
		if word := n.GetSval().GetSval(); TellsNow(word) {
			s.differs("the constant '" + clip(word) + "', if it is a time,")
		}
		return false // what it holds is no name
	case *pgquery.SelectStmt:
		if setting := settingOf(n); setting != "" {
			for _, t := range n.GetTargetList() {
				if f := t.GetResTarget().GetVal().GetFuncCall(); f != nil && isSetConfig(f) && lastName(f.GetArgs()[0]) == "name" {
					s.named = map[*pgquery.FuncCall]string{f: setting}
				}
			}
		}
		if n.GetLimitCount() != nil || n.GetLimitOffset() != nil {
			s.differs("LIMIT or OFFSET")
		}
		if d := n.GetDistinctClause(); len(d) > 0 && d[0].GetNode() != nil {
			s.differs("DISTINCT ON")
		}
	case *pgquery.SortBy:
		s.operator(n.GetUseOp())
	case *pgquery.SubLink:
		s.operator(n.GetOperName())
		if n.GetSubLinkType() == pgquery.SubLinkType_ARRAY_SUBLINK && len(n.GetSubselect().GetSelectStmt().GetSortClause()) == 0 {
			s.differs("ARRAY (SELECT ...) without an order")
		}
	case *pgquery.JsonArrayAgg:
		if len(n.GetConstructor().GetAggOrder()) == 0 {
			s.differs("JSON_ARRAYAGG without an order")
		}
	case *pgquery.JsonArrayQueryConstructor:
		s.differs("JSON_ARRAY (SELECT ...)")
	case *pgquery.JsonObjectAgg:
		s.differs("JSON_OBJECTAGG")
	case *pgquery.RangeTableSample:
		s.differs("TABLESAMPLE")
		if m := n.GetMethod(); len(m) != 1 || !isOneOf(m[0].GetString_().GetSval(), "system", "bernoulli") {
			s.writes("a TABLESAMPLE method that may be volatile")
		}
	}
	return true
}

// namesColumns tells whether there is a column or a query in an expression.
func namesColumns(n *pgquery.Node) (found bool) {
	walk(n, func(x any) bool {
		switch x.(type) {
		case *pgquery.ColumnRef, *pgquery.SelectStmt:
			found = true
		}
		return !found
	})
	return found
}

// ofRow tells whether a name is that of a column that says where, or by whom, a row is stored. Its values mean something else on each shard.
func ofRow(name string) bool { return isOneOf(name, "ctid", "xmin", "xmax", "cmin", "cmax") }

// tableoid is the column that holds the number of the table in which a row is. Each shard has given its tables numbers of its own.
const tableoid = "tableoid"

// tellsTables tells whether an expression has tables' numbers as the shard has them on which it is evaluated.
func tellsTables(n *pgquery.Node) bool {
	switch cast := n.GetTypeCast(); {
	case n.GetColumnRef() != nil:
		return true
	case n.GetList() != nil:
		return !slices.ContainsFunc(n.GetList().GetItems(), func(item *pgquery.Node) bool { return !tellsTables(item) })
	case cast == nil:
		return false
	case lastOf(cast.GetTypeName()) == "oid" || cast.GetArg().GetTypeCast() != nil:
		return tellsTables(cast.GetArg())
	case isRegclass(cast.GetTypeName()):
		text := cast.GetArg().GetAConst().GetSval().GetSval()
		return text != "" && strings.Trim(text, "0123456789") != ""
	}
	return false
}

// tellsNumber tells whether a cast makes a number of what has a name.
func tellsNumber(n *pgquery.TypeCast) bool {
	if !isOneOf(lastOf(n.GetTypeName()), "oid", "int8", "int4") {
		return false
	}
	if f := n.GetArg().GetFuncCall(); f != nil {
		return isNumber(funcName(f)) || funcName(f) == "pg_typeof"
	}
	return isNumber(lastOf(n.GetArg().GetTypeCast().GetTypeName()))
}

func isRegclass(t *pgquery.TypeName) bool {
	return lastOf(t) == "regclass" && len(t.GetArrayBounds()) == 0
}

// lastOf is the name of a type without its schema.
func lastOf(t *pgquery.TypeName) string {
	names := t.GetNames()
	if len(names) == 0 {
		return ""
	}
	return names[len(names)-1].GetString_().GetSval()
}

func lockName(l pgquery.LockClauseStrength) string {
	switch l {
	case pgquery.LockClauseStrength_LCS_FORKEYSHARE:
		return "FOR KEY SHARE"
	case pgquery.LockClauseStrength_LCS_FORSHARE:
		return "FOR SHARE"
	case pgquery.LockClauseStrength_LCS_FORNOKEYUPDATE:
		return "FOR NO KEY UPDATE"
	}
	return "FOR UPDATE"
}

// isNumber tells whether a type, or a function, turns names into the numbers of the catalogs, or back.
func isNumber(name string) bool {
	return isOneOf(name, "regtype", "regclass", "regproc", "regprocedure", "regoper", "regoperator", "regconfig", "regdictionary", "regcollation",
		"to_regtype", "to_regclass", "to_regproc", "to_regprocedure", "to_regoper", "to_regoperator", "to_regcollation", "format_type")
}

func (s *survey) function(f *pgquery.FuncCall) {
	var names []string
	for _, n := range f.GetFuncname() {
		names = append(names, n.GetString_().GetSval())
	}
	if len(names) == 0 {
		return
	}
	name := names[len(names)-1]
	full := strings.Join(names, ".")
	s.numbers = s.numbers || isNumber(name) || isOneOf(name, "pg_current_snapshot", "txid_current_snapshot") // which each server has of its own
	s.unique = s.unique || isUnique(f)
	if len(names) == 2 {
		s.schemas = append(s.schemas, names[0])
	}
	builtin := len(names) == 1 && s.path.builtinsFirst || len(names) == 2 && names[0] == "pg_catalog"
	harmless, known := s.known.functions[name]
	switch {
	case !builtin || !s.known.immutable[name]:
		s.differs("function " + full)
	case f.GetOver() != nil:
		s.differs("window function " + full)
	case aggregates[name] && !f.GetAggWithinGroup() && len(f.GetAggOrder()) == 0 && !orderless(name):
		s.differs("aggregate " + full + " of rows in no order")
	}
	switch {
	case !builtin || !known:
		if len(names) > 1 && builtin || !s.path.immutable[name] {
			s.writes("function " + full + " may be volatile")
			s.volatile = full
		}
		s.foreign = true
		s.home, s.homeTied = "function "+full+", which is not PostgreSQL's own,", true
	case !harmless:
		s.writes("function " + full + " may be volatile")
		if !isOneOf(name, "random", "random_normal", "gen_random_uuid", "uuidv4", "uuidv7", "clock_timestamp", "timeofday", "pg_sleep") {
			s.volatile = full
		}
	}
	// By name alone, for a function that cannot be told from PostgreSQL's own is better taken for it here.
	if len(names) > 1 && !builtin {
		return
	}
	if left := pinning[name]; left != 0 {
		s.remains(left, "function "+name)
	}
	s.frees = s.frees || strings.HasPrefix(name, "pg_advisory_unlock")
	if homeBound(name) {
		s.home = "function " + full
		s.homeTied = s.homeTied || name != "pg_notify"
	}
	s.notifies = s.notifies || name == "pg_notify"
	s.channels = s.channels || name == "pg_listening_channels"
	if readsText(name, len(f.GetArgs())) && s.opaque == nil {
		s.opaque = &issue{pg.CodeFeatureNotSupported, "function " + full + " may read tables that cannot be seen in the statement", "Run it on each shard, connected to the shard itself."}
	}
	if name == "set_config" {
		s.setConfig(f.GetArgs(), s.named[f])
	}
}

// operator notes an operator that is not PostgreSQL's own: nobody sees what its function sets.
func (s *survey) operator(names []*pgquery.Node) {
	s.foreign = s.foreign || len(names) > 0 && !s.known.operators[operator(names)]
}

// settingOf is the parameter of SELECT ... FROM pg_settings WHERE name = 'parameter'; "" of every other query.
func settingOf(n *pgquery.SelectStmt) string {
	if len(n.GetFromClause()) != 1 || len(n.GetFromClause()) == 1 && n.GetFromClause()[0].GetRangeVar().GetRelname() != "pg_settings" {
		return ""
	}
	e := n.GetWhereClause().GetAExpr()
	if e.GetKind() != pgquery.A_Expr_Kind_AEXPR_OP || operator(e.GetName()) != "=" || lastName(e.GetLexpr()) != "name" {
		return ""
	}
	return strings.ToLower(e.GetRexpr().GetAConst().GetSval().GetSval())
}

// setConfig notes a call. setting is the parameter if it is known from elsewhere than its arguments.
func (s *survey) setConfig(args []*pgquery.Node, setting string) {
	c := config{name: setting, nameKnown: setting != ""}
	if len(args) == 3 {
		if v, ok := args[0].GetAConst().GetVal().(*pgquery.A_Const_Sval); ok {
			c.name, c.nameKnown = strings.ToLower(v.Sval.GetSval()), true
		}
		if v, ok := args[1].GetAConst().GetVal().(*pgquery.A_Const_Sval); ok {
			c.value, c.known = v.Sval.GetSval(), true
		}
		if v, ok := args[2].GetAConst().GetVal().(*pgquery.A_Const_Boolval); ok {
			c.local, c.localKnown = v.Boolval.GetBoolval(), true
		}
	}
	s.configs = append(s.configs, c)
}

// configsHarmless tells whether all that calls of set_config set is what pg_dump restricts itself by, where a server knows that: nothing of the
// session depends on it.
func (s *survey) configsHarmless() bool {
	for _, c := range s.configs {
		if !c.nameKnown || c.name != "restrict_nonsystem_relation_kind" {
			return false
		}
	}
	return len(s.configs) > 0
}

// configsLocal tells whether all calls of set_config are for the transaction alone.
func (s *survey) configsLocal() bool {
	for _, c := range s.configs {
		if !c.local {
			return false
		}
	}
	return true
}

// movesPath tells whether a parameter changes what unqualified names mean.
func movesPath(setting string) bool {
	return isOneOf(setting, "search_path", "role", "session_authorization")
}

// hiddenPath is the issue with calls of set_config after which it could not be told what unqualified names mean.
func (s *survey) hiddenPath() *issue {
	for _, c := range s.configs {
		if c.nameKnown && !movesPath(c.name) || c.nameKnown && c.known && c.localKnown && !c.local && len(s.configs) == 1 {
			continue
		}
		return &issue{pg.CodeFeatureNotSupported, "set_config may change the search path in a way that cannot be followed",
			"Use SET or SET LOCAL as a statement of its own, or give set_config constants, one call a statement."}
	}
	return nil
}

// orderless tells whether an aggregate is the same in whatever order its rows come. A sum of floating-point numbers is not.
func orderless(aggregate string) bool {
	return isOneOf(aggregate, "count", "min", "max", "bool_and", "bool_or", "every", "bit_and", "bit_or", "bit_xor", "range_agg", "range_intersect_agg", "regr_count")
}

// TellsNow tells whether a text, where a time is read of it, may be another one each time: it holds now, today, tomorrow or yesterday, with whatever
// stands between words. No text is a time that is longer than PostgreSQL's limit, but for a list of times.
func TellsNow(text string) bool {
	const limit = 160 // letters: PostgreSQL takes 153
	if len(text) > limit && len(strings.Join(strings.Fields(text), "")) > limit && !isOneOf(trimSpace(text)[:1], "{", "[", "(") {
		return false
	}
	for begin := 0; begin < len(text); begin++ {
		end := begin
		for end < len(text) && ('a' <= text[end]|0x20 && text[end]|0x20 <= 'z') {
			end++
		}
		if n := end - begin; n >= len("now") && n <= len("yesterday") && isOneOf(strings.ToLower(text[begin:end]), "now", "today", "tomorrow", "yesterday") {
			return true
		}
		begin = end
	}
	return false
}

func isOneOf(s string, list ...string) bool {
	for _, x := range list {
		if s == x {
			return true
		}
	}
	return false
}
