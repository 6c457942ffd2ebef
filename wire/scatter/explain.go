package scatter

import (
	"cmp"
	"strconv"
	"strings"

	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// explain asks all shards that a statement needs for their plans of it, and puts them together: by lines that name the shards, or as an array of
// JSON. plan and sql are the statement's, x has its arguments.
func (c *Coordinator) explain(x *execution, of *sqlkey.Explain, plan *sqlkey.Plan, sql string) *pg.Error {
	if of.Format != "text" && of.Format != "json" {
		return pg.NewError(pg.CodeFeatureNotSupported, "EXPLAIN over several shards has no format "+of.Format).WithHint("Use FORMAT TEXT or JSON.")
	}
	if plan.Target == sqlkey.Many && !sqlkey.Explainable(plan) {
		return c.cannot(x, nil)
	}
	shares, e := c.explainers(x, plan)
	if e != nil {
		return e
	}
	if of.Analyze {
		if plan.Fan != nil {
			if e := c.cfg.Host.Scatter(plan, sql, len(shares)); e != nil {
				return e
			}
		}
		if e := c.mayWrite(plan, shares); e != nil {
			return e
		}
	}
	list := make([]*errand, len(shares))
	lines := make([][]string, len(shares))
	h := &ration{of: &c.cfg.Shared.Memory}
	defer h.drop()
	for i, s := range shares {
		b, e := c.branch(s.Slot, c.writeFor(plan))
		if e != nil {
			return e
		}
		list[i] = &errand{b: b, writes: of.Analyze && writes(plan), memory: h}
		switch fan := plan.Fan; {
		case fan != nil && fan.Split != nil:
			list[i].send = x.rowsOf(fan.Split, s.Rows, of.Prefix)
		case fan != nil:
			list[i].send = x.appendAsk(nil, of.Prefix+cmp.Or(s.SQL, fan.SQL, sql), nil, []int16{})
		default:
			list[i].send = x.appendAsk(nil, of.Prefix+sql, nil, []int16{})
		}
		list[i].row = func(frame []byte) *pg.Error {
			row, err := pg.DecodeDataRow(frame[pg.HeaderSize:])
			if err != nil || len(row) != 1 {
				return malformed()
			}
			lines[i] = append(lines[i], string(row[0]))
			return nil
		}
	}
	if e := c.lost(c.ctx); e != nil {
		return e
	}
	if e := c.errands(x, list); e != nil {
		return e
	}
	c.taken(x.stmt)
	if x.columns {
		c.out = explainColumns(c.out, of)
	}
	var rows []string
	if of.Format == "json" {
		docs := make([]string, len(shares))
		for i, s := range shares {
			docs[i] = `{"Shard": ` + strconv.Quote(s.Slot.Shard()) + `, "Plans": ` + strings.Join(lines[i], "\n") + "}"
		}
		rows = []string{"[" + strings.Join(docs, ",\n") + "]"}
	} else {
		for i, s := range shares {
			rows = append(rows, "Shard "+s.Slot.Shard())
			for _, line := range lines[i] {
				rows = append(rows, "  "+line)
			}
		}
		if plan.Fan != nil {
			rows = append(rows, "Together: "+plan.Reason)
		}
	}
	to := &sink{c: c, x: x}
	defer to.drop()
	for _, row := range rows {
		if e := to.take(pg.AppendDataRow(nil, [][]byte{[]byte(row)})); e != nil {
			return e
		}
	}
	to.end("EXPLAIN")
	return nil
}

// explainers are the shards that are asked.
func (c *Coordinator) explainers(x *execution, plan *sqlkey.Plan) ([]Share, *pg.Error) {
	if plan.Target == sqlkey.Many {
		return c.shares(plan, x)
	}
	b, e := c.branchFor(plan, x.args())
	if e != nil {
		return nil, e
	}
	return []Share{{Slot: b.slot}}, nil
}

const oidJSON = 114

// explainColumns appends the description of EXPLAIN's column.
func explainColumns(dst []byte, of *sqlkey.Explain) []byte {
	oid := pg.OIDText
	if of.Format == "json" {
		oid = oidJSON
	}
	return pg.AppendRowDescription(dst, []pg.Field{{Name: "QUERY PLAN", OID: oid, Size: -1}})
}
