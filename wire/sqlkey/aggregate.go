package sqlkey

import (
	"slices"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// aggregates are those of pg_catalog.
var aggregates = func() map[string]bool {
	m := make(map[string]bool)
	for _, name := range strings.Fields(`count sum avg min max bool_and bool_or every bit_and bit_or bit_xor any_value array_agg string_agg
		json_agg jsonb_agg json_agg_strict jsonb_agg_strict json_object_agg jsonb_object_agg json_object_agg_strict jsonb_object_agg_strict
		json_object_agg_unique jsonb_object_agg_unique json_object_agg_unique_strict jsonb_object_agg_unique_strict
		range_agg range_intersect_agg xmlagg corr covar_pop covar_samp regr_avgx regr_avgy regr_count regr_intercept regr_r2
		regr_slope regr_sxx regr_sxy regr_syy stddev stddev_pop stddev_samp variance var_pop var_samp mode percentile_cont
		percentile_disc`) {
		m[name] = true
	}
	return m
}()

// isAggregate tells whether a function makes one value of many rows. All functions here are pg_catalog's.
func isAggregate(f *pgquery.FuncCall) bool {
	return f.GetOver() == nil && (f.GetAggWithinGroup() || aggregates[funcName(f)])
}

func funcName(f *pgquery.FuncCall) string {
	names := f.GetFuncname()
	if len(names) == 0 {
		return ""
	}
	return names[len(names)-1].GetString_().GetSval()
}

// shape is what a query level consists of beside its rows.
type levelShape struct {
	grouped bool // it has aggregates, GROUP BY or HAVING
	partial bool // all of its aggregates can be made of those of parts of the rows
	windows []*pgquery.WindowDef
	sets    bool // GROUPING SETS and their like
	stars   []int
	odd     *issue // what cannot be taken apart
}

func shapeOf(s *pgquery.SelectStmt) *levelShape {
	sh := &levelShape{grouped: len(s.GetGroupClause()) > 0 || s.GetHavingClause() != nil, partial: true}
	for i, t := range s.GetTargetList() {
		if isStar(t.GetResTarget().GetVal()) {
			sh.stars = append(sh.stars, i)
		}
	}
	named := make(map[string]*pgquery.WindowDef)
	for _, w := range s.GetWindowClause() {
		named[w.GetWindowDef().GetName()] = w.GetWindowDef()
	}
	visit := func(n any) bool {
		switch n := n.(type) {
		case *pgquery.SubLink:
			sh.sublink(n)
			walk(n.GetTestexpr(), func(x any) bool {
				if f, ok := x.(*pgquery.FuncCall); ok && (isAggregate(f) || f.GetOver() != nil) {
					sh.odd = issuef("a subquery is compared with an aggregate over several shards")
				}
				return true
			})
			return false
		case *pgquery.FuncCall:
			if over := n.GetOver(); over != nil {
				for over.GetName() != "" && len(over.GetPartitionClause()) == 0 && named[over.GetName()] != nil && named[over.GetName()] != over {
					over = named[over.GetName()]
				}
				if ref := over.GetRefname(); ref != "" && named[ref] != nil {
					over = named[ref]
				}
				sh.windows = append(sh.windows, over)
			}
			if isAggregate(n) {
				sh.grouped = true
				sh.partial = sh.partial && decomposes(n)
			}
		case *pgquery.GroupingFunc:
			sh.partial = false
		case *pgquery.GroupingSet:
			sh.sets, sh.partial = true, false
		case *pgquery.JsonObjectAgg, *pgquery.JsonArrayAgg:
			sh.grouped, sh.partial = true, false
		}
		return true
	}
	walkList(s.GetTargetList(), visit)
	walkList(s.GetGroupClause(), visit)
	walkList(s.GetSortClause(), visit)
	walkList(s.GetDistinctClause(), visit)
	walkList(s.GetWindowClause(), visit)
	walk(s.GetHavingClause(), visit)
	return sh
}

// sublink finds what a subquery may do to the level around it.
func (sh *levelShape) sublink(l *pgquery.SubLink) {
	walk(l.GetSubselect(), func(n any) bool {
		s, ok := n.(*pgquery.SelectStmt)
		if !ok || len(s.GetFromClause()) > 0 {
			return true
		}
		walkList(s.GetTargetList(), func(x any) bool {
			if f, ok := x.(*pgquery.FuncCall); ok && isAggregate(f) {
				sh.odd = issuef("a subquery without FROM has an aggregate of the rows around it")
			}
			return true
		})
		return true
	})
}

// decomposes tells whether an aggregate of all rows can be made of those of parts of them.
func decomposes(f *pgquery.FuncCall) bool {
	if f.GetAggDistinct() || f.GetAggWithinGroup() || f.GetFuncVariadic() || len(f.GetAggOrder()) > 0 {
		return false
	}
	name := funcName(f)
	if name == "count" {
		return f.GetAggStar() || len(f.GetArgs()) == 1
	}
	return len(f.GetArgs()) == 1 && isOneOf(name, "sum", "avg", "min", "max", "bool_and", "bool_or", "every", "bit_and", "bit_or", "bit_xor")
}

// combined puts the parts of an aggregate among the columns that shards are asked for, and is what makes one value of theirs.
func (g *gather) combined(f *pgquery.FuncCall) *pgquery.Node {
	name := funcName(f)
	part := func(name string, arg *pgquery.Node) *pgquery.Node {
		p := cloned(f)
		p.Funcname = []*pgquery.Node{pgquery.MakeStrNode(name)}
		if arg != nil {
			p.Args = []*pgquery.Node{arg}
		}
		return &pgquery.Node{Node: &pgquery.Node_FuncCall{FuncCall: p}}
	}
	switch name {
	case "count":
		return castNode(call("sum", g.column(part(name, nil))), "pg_catalog", "int8")
	case "sum":
		i := g.index(part(name, nil))
		return castNode(call("sum", g.name(i)), FinalType+itoa(i+1)+"}")
	case "avg":
		// The sum of real numbers is a real number, and an average of them one of double precision: times 1 they are that, and
		// all other types stay what they are. Of some there is a sum and no average.
		if avg := part(name, nil); !slices.ContainsFunc(g.unmade, func(o *pgquery.Node) bool { return proto.Equal(o, avg) }) {
			g.unmade = append(g.unmade, avg)
		}
		sum := part("sum", operation("*", cloned(f.GetArgs()[0]), pgquery.MakeAConstIntNode(1, 0)))
		return operation("/", call("sum", g.column(sum)), nullIf(call("sum", g.column(part("count", nil))), pgquery.MakeAConstIntNode(0, 0)))
	}
	return call(name, g.column(part(name, nil)))
}

// checks is a condition that holds, for HAVING: by it a server looks whether there are the aggregates that are made of others.
// Its planner leaves them out.
func (g *gather) checks() *pgquery.Node {
	if len(g.unmade) == 0 {
		return nil
	}
	terms := []*pgquery.Node{boolNode(true)}
	for _, f := range g.unmade {
		terms = append(terms, &pgquery.Node{Node: &pgquery.Node_NullTest{NullTest: &pgquery.NullTest{Arg: f, Nulltesttype: pgquery.NullTestType_IS_NULL}}})
	}
	return pgquery.MakeBoolExprNode(pgquery.BoolExprType_OR_EXPR, terms, 0)
}
