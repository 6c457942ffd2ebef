package sqlkey

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"
	"unsafe"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"github.com/pganalyze/pg_query_go/v6/parser"

	"rangefinder/wire/pg"
)

// PlannerConfig bounds a Planner. Zero fields take their defaults.
type PlannerConfig struct {
	MaxBytes     int64 // of cached plans with their texts, as reckoned; default 64 MiB
	MaxStatement int   // bytes of a text that is parsed, long strings in it not counted; longer ones are not planned; default 1 MiB
}

// The defaults of PlannerConfig.
const (
	DefaultMaxBytes     = 64 << 20
	DefaultMaxStatement = 1 << 20
)

// large is the length from which texts are parsed one at a time: a parse tree takes some hundred times its text.
const large = 64 << 10

// Planner makes plans and caches them. It is safe for concurrent use.
type Planner struct {
	// constant
	maxStatement int
	cache        *cache
	known        *builtins
	byText       *Plan         // in the cache under a normal form: its texts are planned each by itself
	usages       *usages       // their own guard
	slots        chan struct{} // one for each text that may be parsed at a time: the parser is C, and holds a thread

	// atomic
	misses atomic.Uint64

	// their own guard
	normals sync.Pool // of *normal
	lent    lent
	large   sync.Mutex // held while a large text is parsed
}

// NewPlanner makes a Planner with an empty cache.
func NewPlanner(config PlannerConfig) *Planner {
	if config.MaxBytes <= 0 {
		config.MaxBytes = DefaultMaxBytes
	}
	if config.MaxStatement <= 0 {
		config.MaxStatement = DefaultMaxStatement
	}
	return &Planner{
		maxStatement: config.MaxStatement,
		cache:        newCache(config.MaxBytes),
		known:        loadBuiltins(),
		byText:       &Plan{Reason: "planned by its text"},
		usages:       newUsages(),
		slots:        make(chan struct{}, 2*runtime.GOMAXPROCS(0)),
		normals:      sync.Pool{New: func() any { return newNormal() }},
	}
}

// Plan returns the plan of a text. It never returns nil. A hit takes no lock and allocates nothing.
func (p *Planner) Plan(c *Catalog, env *Env, sql string) *Plan {
	hash := p.cache.hash(sql)
	if plan := p.cache.get(hash, false, &c.id, env, sql); plan != nil {
		return plan
	}
	if plan := p.lent.get(hash, &c.id, env, sql); plan != nil {
		return plan
	}
	p.misses.Add(1)
	return p.keep(hash, c, env, sql, p.compile(c.find(env.Database), env, sql))
}

// PlanTyped is Plan for a text whose parameters are declared with these types: OIDs as those of Args. What is compared with a key of another type
// may be any shard's, as a constant of that type may.
func (p *Planner) PlanTyped(c *Catalog, env *Env, sql string, types []uint32) *Plan {
	plan := p.Plan(c, env, sql)
	foreign := plan.foreignTo(types)
	if foreign == 0 {
		return plan
	}
	under := *env
	under.Foreign = foreign
	if other := p.Plan(c, &under, sql); other.Target != None {
		return other
	}
	return plan // its keys say what is wrong
}

// foreignTo are the parameters whose types are not the key's, as Env.Foreign has them, of a plan with one key, or with one for each of its rows.
func (p *Plan) foreignTo(types []uint32) (list uint64) {
	keys := p.Keys
	switch {
	case len(types) == 0:
		return 0
	case p.Target == Many && p.Fan.Split != nil:
		keys = p.Fan.Split.Rows
	case p.Target != Keyed:
		return 0
	}
	for i := range keys {
		keys[i].eachPart(func(k *KeyRef) {
			if k.Param < 1 || k.Param > min(len(types), 64) {
				return
			}
			if _, ok := k.reads(types[k.Param-1]); !ok {
				list |= 1 << (k.Param - 1)
			}
		})
	}
	return list
}

// keep puts a text's own plan into the cache. hash is the text's.
func (p *Planner) keep(hash uint64, c *Catalog, env *Env, sql string, plan *Plan) *Plan {
	plan.SQL, plan.foreign = sql, env.Foreign
	p.count(plan, env, sql, nil)
	plan, kept := p.cache.put(hash, false, &c.id, env, sql, plan)
	if !kept {
		p.lent.put(hash, &c.id, env, plan)
	}
	return plan
}

// PlanOnce is Plan for a text that will not come again: it is not kept.
func (p *Planner) PlanOnce(c *Catalog, env *Env, sql string) *Plan {
	p.misses.Add(1)
	plan := p.compile(c.find(env.Database), env, sql)
	plan.SQL = sql
	return plan
}

// PlanBytes is Plan for a text in a buffer. It copies the text on a miss only; the buffer stays the caller's.
func (p *Planner) PlanBytes(c *Catalog, env *Env, sql []byte) *Plan {
	text := unsafe.String(unsafe.SliceData(sql), len(sql)) // not kept beyond this call
	if plan := p.cache.get(p.cache.hash(text), false, &c.id, env, text); plan != nil {
		return plan
	}
	return p.Plan(c, env, strings.Clone(text))
}

// PlanQuery is PlanBytes for the text of a Query message, which holds its values as constants: texts that differ in nothing
// else may share a plan, whose keys AppendKey makes of k. k must not be nil; what it held before is gone. A hit takes no
// lock and allocates nothing.
func (p *Planner) PlanQuery(c *Catalog, env *Env, sql []byte, k *Constants) *Plan {
	k.plan = nil
	if len(sql) <= p.maxStatement {
		n := p.normals.Get().(*normal)
		plan := p.planNormal(c, env, unsafe.String(unsafe.SliceData(sql), len(sql)), n, k)
		p.normals.Put(n)
		if plan != nil {
			return plan
		}
	}
	return p.PlanBytes(c, env, sql)
}

// planNormal plans by the normal form. It returns nil if the text is to be planned by itself.
func (p *Planner) planNormal(c *Catalog, env *Env, sql string, n *normal, k *Constants) *Plan {
	if !n.of(sql, env) || len(n.constants) == 0 {
		return nil
	}
	form := unsafe.String(unsafe.SliceData(n.text), len(n.text)) // not kept beyond this call
	hash := p.cache.hash(form)
	plan := p.cache.get(hash, true, &c.id, env, form)
	if plan == nil {
		return p.missNormal(hash, c, env, sql, n, k)
	}
	if plan == p.byText || !k.take(plan, n, sql) {
		return nil
	}
	return plan
}

// missNormal plans a text whose normal form is not in the cache. hash is the normal form's.
func (p *Planner) missNormal(hash uint64, c *Catalog, env *Env, sql string, n *normal, k *Constants) *Plan {
	ownHash := p.cache.hash(sql)
	if plan := p.cache.get(ownHash, false, &c.id, env, sql); plan != nil {
		return plan
	}
	if plan := p.lent.get(ownHash, &c.id, env, sql); plan != nil {
		return plan
	}
	p.misses.Add(1)
	sql = strings.Clone(sql)
	own, shared, lasting := p.compileNormal(c.find(env.Database), env, sql, n)
	if shared == nil && lasting {
		shared = p.byText
	}
	if shared != nil && shared != p.byText {
		p.count(shared, env, sql, n)
	}
	if shared != nil {
		shared, _ = p.cache.put(hash, true, &c.id, env, string(n.text), shared)
	}
	if shared != nil && shared != p.byText && k.take(shared, n, sql) {
		return shared
	}
	return p.keep(ownHash, c, env, sql, own)
}

// Stats are a Planner's counters.
type Stats struct {
	Misses uint64 // texts that were planned because they were not in the cache, or not any more
	Plans  int    // in the cache
	Bytes  int64  // that they take, as reckoned
}

// Stats walks the cache: it is for a debug page, not for every statement.
func (p *Planner) Stats() Stats {
	plans, bytes := p.cache.stats()
	return Stats{Misses: p.misses.Load(), Plans: plans, Bytes: bytes}
}

// compile makes the plan of a text that is not in the cache.
func (p *Planner) compile(db *database, env *Env, sql string) *Plan {
	if len(sql) > p.maxStatement {
		return p.compileLong(db, env, sql)
	}
	if plan := p.compileFolded(db, env, sql); plan != nil {
		return plan
	}
	c, tree, plan := p.read(db, env, sql)
	if plan == nil {
		plan = c.plan(tree)
		plan.place(tree, sql)
		plan.keepsLeave()
	}
	return plan
}

// compileNormal makes a text's own plan and the one that it shares with all texts of its normal form: see compiler.share.
func (p *Planner) compileNormal(db *database, env *Env, sql string, n *normal) (own, shared *Plan, lasting bool) {
	c, tree, own := p.read(db, env, sql)
	if own != nil { // that it cannot be read may be due to a constant
		return own, nil, false
	}
	own = c.plan(tree)
	own.place(tree, sql)
	own.keepsLeave()
	shared, lasting = c.share(tree, sql, n, own)
	return own, shared, lasting
}

// read parses a text. The plan is not nil if there is no tree to be planned.
func (p *Planner) read(db *database, env *Env, sql string) (*compiler, *pgquery.ParseResult, *Plan) {
	c := &compiler{db: db, env: env, known: p.known}
	path, ok := parsePath(env.SearchPath, env.User)
	if !ok {
		return c, nil, c.unread(pg.NewError(pg.CodeInvalidParameterValue, "the search path cannot be read").WithDetail("search_path is " + clip(env.SearchPath) + "."))
	}
	path.foreign, path.domains, path.immutable = env.Foreign, db.domains, db.immutable
	c.path = &path
	if e := unreadable(env, sql); e != nil {
		return c, nil, c.unread(e)
	}
	var problem *pg.Error
	if c.hint, problem = findHint(sql); problem != nil {
		return c, nil, &Plan{Statements: 1, Target: None, Err: problem, Intent: Write, WhyWrite: "not routed", Reason: problem.Message}
	}
	tree, err := p.parse(sql)
	var syntax *parser.Error
	switch {
	case errors.As(err, &syntax):
		return c, nil, &Plan{Target: Any, Syntax: true, Statements: 1, Reason: "PostgreSQL's parser says: " + syntax.Message}
	case err != nil: // errTooDeep, or the tree was too deep to be handed over
		return c, nil, c.unread(tooComplex)
	}
	if c.hint == nil && env.HintShard == "" && !env.HintKey {
		path.tree = tree
	}
	return c, tree, c.uniqueIDs(tree, sql)
}

// plan plans the statements of a text.
func (c *compiler) plan(tree *pgquery.ParseResult) *Plan {
	stmts := tree.GetStmts()
	parts := make([]*Plan, 0, len(stmts))
	for _, s := range stmts {
		parts = append(parts, c.statement(s.GetStmt()))
	}
	switch len(parts) {
	case 0:
		return &Plan{Target: Any, Reason: "an empty query"}
	case 1:
		parts[0].Statements = 1
		return parts[0]
	}
	return combine(parts, c.sharded())
}

var errTooDeep = errors.New("the parse tree may be too deep")

// parse runs PostgreSQL's parser, on texts that it can stand.
func (p *Planner) parse(sql string) (*pgquery.ParseResult, error) {
	if len(sql) > large {
		p.large.Lock()
		defer p.large.Unlock()
	}
	p.slots <- struct{}{}
	defer func() { <-p.slots }()
	if tooDeep(sql) {
		return nil, errTooDeep
	}
	return pgquery.Parse(sql)
}

var tooComplex = pg.NewError(pg.CodeStatementTooComplex, "the statement is too complex to be routed").
	WithDetail(fmt.Sprintf("Its expressions or joins may be nested more than %d levels deep, or it has more than %d signs in a row.", maxDepth, maxSigns)).
	WithHint("Split it, or put lists in an array parameter.")

// unreadable tells why a text of whatever length must not be parsed, if it must not.
func unreadable(env *Env, sql string) *pg.Error {
	switch {
	case strings.IndexByte(sql, 0) >= 0:
		return pg.NewError(pg.CodeCharacterNotInRepertoire, "the statement holds a NUL byte")
	case env.Backslashes && strings.IndexByte(sql, '\\') >= 0:
		return pg.NewError(pg.CodeFeatureNotSupported, "the statement holds a backslash while standard_conforming_strings is off").
			WithDetail("What it means cannot be told.").
			WithHint("SET standard_conforming_strings = on.")
	case IsASCII(sql):
		return nil
	case env.Encoding != "" && !IsUTF8(env.Encoding):
		return pg.NewError(pg.CodeFeatureNotSupported, "statements beyond ASCII can be routed with client_encoding UTF8 only").
			WithDetail("client_encoding is " + clip(env.Encoding) + ".").
			WithHint("SET client_encoding = 'UTF8', or send such text as parameters.")
	case !utf8.ValidString(sql):
		return pg.NewError(pg.CodeCharacterNotInRepertoire, "invalid byte sequence for encoding \"UTF8\"")
	}
	return nil
}

// unread is the plan of a text that was not parsed. Where there is nothing but one shard to go to, it goes there, on the
// assumption that it may do anything.
func (c *compiler) unread(e *pg.Error) *Plan {
	if !c.sharded() && c.db.home != "" {
		return &Plan{Statements: 1, Target: Unsharded, Shard: c.db.home, Intent: Write, WhyWrite: "not read", Session: SessPin,
			Remains: RemainForever, WhyPin: "a statement that was not read", Reason: "not read: " + e.Message}
	}
	return &Plan{Statements: 1, Target: None, Err: e, Intent: Write, WhyWrite: "not read", Reason: e.Message}
}
