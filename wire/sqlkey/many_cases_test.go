package sqlkey

import (
	"fmt"
	"strings"
)

// byHand are statements over several shards, one for each thing that matters.
var byHand = []string{
	"select * from orders",
	"select id, x from orders where x > 1",
	"select * from orders order by customer_id, id",
	"select * from orders order by id desc, customer_id",
	"select id from orders order by x nulls first, customer_id, id",
	"select id as name from orders order by name, customer_id",
	"select lower(name) as name, customer_id from orders order by name, customer_id, id",
	"select name, customer_id from orders order by lower(name) desc, customer_id, id",
	"select name, customer_id from orders order by name collate \"C\", customer_id, id",
	"select *, x as y from orders order by y desc, customer_id, id",
	"select customer_id, id from orders order by 2, 1 limit 5",
	"select customer_id, id from orders order by 2, 1 limit 5 offset 7",
	"select customer_id, id from orders order by 2, 1 offset 30",
	"select customer_id, id from orders order by 2, 1 limit all offset 30",
	"select customer_id, id from orders order by 2, 1 limit 2 + 3 offset 1",
	"select customer_id, id from orders order by 2, 1 limit null",
	"select customer_id, id from orders order by 2, 1 limit 9223372036854775807 offset 3",
	"select id from orders order by id fetch first 3 rows with ties",
	"select id from orders order by id offset 2 fetch next 3 rows with ties",
	"select id from orders order by customer_id, id fetch first row only",
	"select customer_id, id from orders order by customer_id using >, id using <",
	"select o.id, i.x from orders o join items i on i.customer_id = o.customer_id and i.id = o.id",
	"select o.id, i.x from orders o left join items i on i.customer_id = o.customer_id and i.id = o.id order by o.customer_id, o.id, i.id",
	"select o.id, n.x from orders o, notes n where o.customer_id = n.cust and o.x = n.x",
	"select id from orders o where exists (select 1 from items i where i.customer_id = o.customer_id and i.id = o.id)",
	"select id from orders o where not exists (select 1 from notes n where n.cust = o.customer_id)",
	"select id, (select count(*) from items i where i.customer_id = o.customer_id) from orders o",
	"select id, (select count(*) from items i where i.customer_id = o.customer_id) as n from orders o order by n, customer_id, id",
	"select o.id, x.n from orders o, lateral (select count(*) n from items i where i.customer_id = o.customer_id) x",
	"select count(*) from orders",
	"select count(x), count(*) as n, sum(x), sum(big), sum(price), min(name), max(at), avg(x), avg(price), avg(f), avg(r), avg(gap), sum(gap), bool_and(flag), bool_or(flag), every(x > 0), bit_and(x), bit_or(id) from orders",
	"select sum(f), sum(r), avg(big), min(gap), max(price) from orders",
	"select count(*) filter (where x > 1), sum(x) filter (where flag), avg(x) filter (where x > 100) from orders",
	"select count(*) + 1, sum(x) * 2 + max(id) from orders",
	"select sum(x) from orders where false",
	"select count(*) from orders having count(*) > 3",
	"select count(*) from orders having count(*) > 300",
	"select x, count(*) from orders group by x",
	"select x, count(*) from orders group by 1 order by 2 desc, 1",
	"select x as y, count(*) as n from orders group by y order by n desc, y",
	"select x + 1 as y, count(*) from orders group by y order by y",
	"select x + 1, count(*) from orders group by x + 1 order by x + 1",
	"select x % 2, sum(id) from orders group by x order by x",
	"select lower(name) as name, count(*) from orders group by name order by 1, 2",
	"select x % 2 as id, count(*) from orders group by id, x order by 1, 2",
	"select 1 as id, count(*) from orders group by id order by 2",
	"select count(*) as id from orders group by id order by 1",
	"select x as id, count(*) from orders group by id, x order by id, 2",
	"select id as x, count(*) from orders group by x, id order by x + 1, 1, 2",
	"select o.x as r, count(*) from orders o group by r, o.x order by r, 2",
	"select customer_id as c, x as id, count(*) from orders group by c, id order by 1, 2, 3",
	"select x as id, count(*) from (select * from orders) sub group by id, x order by 1, 2",
	"select x as id, count(*) from (select customer_id, x from orders) sub group by id order by 1, 2",
	"with w as (select * from orders) select x as id, count(*) from w group by id, x order by 1, 2",
	"select o.x as name, count(*) from orders o join notes n on n.cust = o.customer_id group by name, o.x order by 1, 2",
	"select x as price from orders group by price, x having max(price) > 2 order by 1",
	"select x + 1 as y, count(*) from orders group by rollup (y) order by y, 2",
	"select x + 1 as c1, flag as c2, count(*) from orders group by grouping sets ((c1, c2), cube (flag, c2), ()) order by 1, 2, 3",
	"select x as y, count(*) from orders group by y, y, rollup (y) order by 1, 2",
	"select x % 2 as id, count(*) from orders group by rollup ((id, x)) order by 1, 2",
	"select x % 2 as id, x, grouping(x), count(*) from orders group by grouping sets ((id, x), x) order by 1, 2, 3, 4",
	"select date_trunc('day', at) as day, avg(price) from orders group by day order by day",
	"select x, count(*) from orders group by x having sum(id) > 5 order by x",
	"select x, flag, count(*) from orders group by x, flag order by x, flag limit 3 offset 1",
	"select x from orders group by x order by x",
	"select count(*) from orders group by x order by count(*), max(id)",
	"select distinct count(*) from orders group by x",
	"select customer_id, count(*) from orders group by customer_id order by 1",
	"select customer_id, string_agg(name, ',' order by id) from orders group by customer_id order by 1",
	"select o.customer_id, max(i.x) from orders o join items i on i.customer_id = o.customer_id group by o.customer_id having count(*) > 2 order by 1 limit 3",
	"select x, string_agg(name, ',' order by customer_id, id) from orders group by x order by x",
	"select array_agg(id order by customer_id, id) from orders",
	"select json_agg(x order by customer_id, id) from orders where id = 1",
	"select count(distinct x), sum(distinct x) from orders",
	"select count(distinct name) from orders group by x order by x",
	"select stddev(x), variance(price), corr(f, x) from orders",
	"select percentile_cont(0.5) within group (order by x), mode() within group (order by x) from orders",
	"select x, flag, count(*) from orders group by rollup (x, flag) order by x, flag, 3",
	"select x, grouping(x), count(*) from orders group by grouping sets ((x), ()) order by x, 2",
	"select customer_id, id, row_number() over (order by customer_id, id) from orders order by 1, 2",
	"select customer_id, id, row_number() over (partition by customer_id order by id) from orders order by 1, 2 limit 7",
	"select id, rank() over w from orders window w as (partition by x order by customer_id, id) order by customer_id, id",
	"select *, sum(x) over (order by customer_id, id) from orders order by customer_id, id",
	"select x, sum(count(*)) over (order by x) from orders group by x order by x",
	"select distinct x from orders",
	"select distinct x from orders order by x desc nulls last limit 2",
	"select distinct x, flag from orders order by flag, x offset 2",
	"select distinct name from orders order by name",
	"select distinct customer_id, x from orders order by 1, 2",
	"select distinct on (x) x, customer_id, id from orders order by x, customer_id desc, id",
	"select distinct on (x) name from orders order by x, customer_id, id limit 3",
	"select distinct on (customer_id) customer_id, id from orders order by customer_id, id desc",
	"select distinct * from items",
	"select distinct * from items order by customer_id, id, x",
	"select now() is not null, coalesce(x, 0), case when x > 1 then 'a' else name end, id::text, array[x], greatest(x, 1), nullif(x, 1), true, 1 from orders",
	"select case when count(*) > 1 then 'many' else 'few' end, coalesce(sum(x), 0), sum(x)::text, (array_agg(id))[1] is null, extract(hour from max(at)), current_date is null from orders",
	"select id from orders for update",
	"select id from orders order by customer_id, id limit 3 for share",
	"with c as (select 2 as v) select id from orders where x > (select v from c) order by customer_id, id",
	"select o.id, v.a from orders o join (values (1, 10), (2, 20)) v(id, a) on v.id = o.id order by o.customer_id, v.a",
	"select g, count(*) from orders o, generate_series(1, o.id) g group by g order by g",
	"select count(*) from orders o left join items i on i.customer_id = o.customer_id and i.x is null",
	"select id, x from orders union all select id, x from items",
	"select id, x from orders where customer_id in (1, 2) union all select id, x from items where x = 1 order by 1, 2 limit 7 offset 2",
	"select id, x as y from orders union all select id, x from items order by y desc nulls last, id",
	"select id, x from orders union select id, x from items",
	"select id, x from orders union all select id, x from items union select cust, x from notes order by 2, 1 limit 5",
	"select customer_id, x from orders union select customer_id, x from items order by 1, 2",
	"select customer_id, x from orders except select customer_id, x from items",
	"select customer_id, x from orders intersect all select customer_id, x from items order by 1, 2",
	"select x from orders except select x from items where x > 1",
	"select x, id from orders intersect select x, id from items order by 2, x desc limit 4",
	"select x from orders intersect all select x from items order by 1",
	"select name as n from orders except all select 'a' from items order by n offset 1",
	"select * from items except select * from notes order by 1, 2, 3",
	"select count(*) from (select x from orders except select id from items) s",
	"select x, null from orders except select id, 'a' from notes",
	"select name from orders union select 'x' from items order by 1",
	"select x from orders except select id from items except select x from notes where x > 1",
	"(select x, id from orders union select id, x from items) union all select x, x from notes order by 1, 2",
	"select x from orders union all (select id from items intersect all select x from notes order by 1 limit 3) order by 1 desc limit 9",
	"select * from (select * from orders where x > 1) s where s.id = 3",
	"select s.id, i.x from (select * from orders) s join items i on i.customer_id = s.customer_id and i.id = s.id order by 1, 2, s.customer_id",
	"select i.x, s.n from items i left join (select customer_id as k, count(*) as n from orders group by customer_id) s on s.k = i.customer_id",
	"select s.k, s.n from (select customer_id as k, count(*) as n from orders group by customer_id having count(*) > 1) s order by k desc limit 3",
	"select n, count(*) from (select customer_id, x, count(*) as n from orders group by customer_id, x) s group by n order by n",
	"select s.customer_id, sum(s.x) from (select distinct customer_id, x from orders) s group by s.customer_id order by 1",
	"with a as (select * from orders where x > 0), b as (select * from items) select a.id, count(*) from a join b using (customer_id) group by a.id order by 1",
	"with a as (select customer_id, max(x) m from orders group by customer_id) select o.id from orders o join a on a.customer_id = o.customer_id and a.m = o.x",
	"select count(*) from (select o.customer_id, i.x from orders o left join items i on i.customer_id = o.customer_id) s where s.x is null",
	"select o.id from orders o where exists (select 1 from (select * from items) i where i.customer_id = o.customer_id)",
	"select s.customer_id from (select o.customer_id, n.x from orders o join notes n on n.cust = o.customer_id) s where s.customer_id in (2, 8)",
	"select avg(n) from (select count(*) n from orders group by x) s",
	"select s.x, s.n + 1 as m from (select x, count(*) as n from orders group by x order by n desc, x limit 3) s where s.n > 2 order by m, x",
	"select count(*) from (select distinct x, name from orders) s",
	"select count(*), sum(id) from (select id, customer_id from orders order by customer_id, id limit 5 offset 2) s",
	"select count(*) from (select id from orders order by customer_id, id limit 5) s, generate_series(1, 3) g",
	"with c as (select x, count(*) n from orders group by x) select a.x, b.n from c a join c b on b.n = a.n order by a.x, b.x, b.n",
	"with c as (select x, sum(id) n from orders group by x), d as (select max(n) m from c) select c.x from c, d where c.n = d.m order by c.x",
	"with c as (select * from items order by customer_id, id, x limit 4) select * from c order by x, id, customer_id",
	"select * from (select *, row_number() over (order by customer_id, id) nr from orders) s where nr between 3 and 5 order by nr",
	"select (select count(*) from orders)",
	"select exists (select 1 from orders where x = 2), exists (select 2 where false)",
	"select coalesce((select max(x) from orders where id > 100), -1) as top",
	"select count(*) from (select id from orders union all select id from items) u",
	"select * from (select x, count(*) from orders group by x) s order by count, x nulls first",
	"select id from orders where customer_id in (1, 2)",
	"select id from orders where customer_id in (1, 4, null)",
	"select id from orders where customer_id = any (array[1, 5])",
	"select id from orders where customer_id = any ('{1, 5, null, 7}')",
	"select id from orders where customer_id = any ('{}'::int[])",
	"select id from orders where customer_id = any (array[3, 5]::bigint[])",
	"select count(*) from orders where customer_id = any ('{}')",
	"select id from orders where customer_id = 1 or customer_id = 9",
	"select id from orders where customer_id = 1 or (customer_id in (5, 6) and x = 1) or customer_id > 8",
	"select id from orders where customer_id = 1 or x = 1",
	"select id from orders where customer_id between 2 and 4 order by customer_id, id",
	"select id from orders where customer_id >= 4 and customer_id < 7",
	"select id from orders where customer_id > 3 and 6 >= customer_id",
	"select id from orders where customer_id > 6",
	"select id from orders where customer_id < 4 and customer_id in (3, 9)",
	"select id from orders where customer_id between 9 and 1",
	"select id from orders where customer_id > 2147483647",
	"select id from orders where customer_id in (3000000000, 1)",
	"select id from orders where customer_id between 3 and null",
	"select o.id from orders o join items i on i.customer_id = o.customer_id where i.customer_id in (2, 3)",
	"select o.id from orders o left join items i on i.customer_id = o.customer_id and i.customer_id in (2, 3)",
	"select o.id from orders o left join items i on i.customer_id = o.customer_id where i.customer_id in (2, 7)",
	"select id from orders where customer_id in (select customer_id from items where x = 1)",
	"select id from orders where customer_id not in (select cust from notes where x = 1)",
	"select id from orders where (customer_id, id) in (select customer_id, id from items)",
	"select id from orders where (customer_id, x) not in (select customer_id, max(id) from items group by customer_id having count(*) > 1)",
	"select id from orders where customer_id = any (select cust from notes)",
	"select count(*) from orders where customer_id in (select customer_id from items) and customer_id not in (8, 9)",
	"select i.id, count(*) from orders o left join items i using (customer_id) group by i.id order by 1",
}

// renaming are statements of the same kind that cannot leave out what is another shard's.
var renaming = []string{
	"select x as b, count(*) from orders as o (c, b, x) group by b, x order by 1, 2",
	"select x as id, count(*) from orders as o (c, b, x) group by id order by 1, 2",
}

// manyGenerator makes statements over all shards.
type manyGenerator struct{ generator }

func (g *manyGenerator) statement() string {
	g.next = 0
	from, sources := g.joined()
	where := ""
	if g.chance(40) {
		where = " where " + g.condition(sources)
	}
	s := sources[g.r.IntN(len(sources))]
	col := func() string {
		o := sources[g.r.IntN(len(sources))]
		return o.alias + "." + g.oneOf("id", "x", "x", o.key)
	}
	expr := func() string {
		switch g.r.IntN(5) {
		case 0:
			return col() + " + " + col()
		case 1:
			return "coalesce(" + col() + ", 0)"
		case 2:
			return "case when " + col() + " > 1 then " + col() + " end"
		}
		return col()
	}
	agg := func() string {
		filter := ""
		if g.chance(15) {
			filter = " filter (where " + g.condition(sources) + ")"
		}
		switch g.r.IntN(8) {
		case 0:
			return "count(*)" + filter
		case 1:
			return "count(distinct " + expr() + ")" + filter
		case 2:
			return "array_agg(" + expr() + " order by " + s.alias + ".id, 1)" + " is null"
		}
		return g.oneOf("count", "sum", "min", "max", "avg") + "(" + expr() + ")" + filter
	}
	list := func(n int, f func() string) (out []string) {
		for i := range n {
			text := f()
			if g.chance(30) {
				text += fmt.Sprintf(" as a%d", i)
			}
			out = append(out, text)
		}
		return out
	}
	limit := ""
	if g.chance(30) {
		limit = fmt.Sprintf(" limit %d", g.r.IntN(12))
	}
	if g.chance(20) {
		limit += fmt.Sprintf(" offset %d", g.r.IntN(6))
	}
	order := func(n int) string { // by all columns, so that there are no ties
		var terms []string
		for _, i := range g.r.Perm(n) {
			terms = append(terms, fmt.Sprint(i+1)+g.oneOf("", "", " desc", " nulls first", " desc nulls last"))
		}
		return " order by " + strings.Join(terms, ", ")
	}
	n := 1 + g.r.IntN(3)
	switch g.r.IntN(6) {
	case 0:
		return "select " + strings.Join(list(n, agg), ", ") + from + where + g.oneOf("", " having count(*) > 2")
	case 1, 2:
		keys := list(1+g.r.IntN(2), expr)
		targets := append(keys, list(n, agg)...)
		var by []string
		for i := range keys {
			by = append(by, fmt.Sprint(i+1))
		}
		return "select " + strings.Join(targets, ", ") + from + where + " group by " + strings.Join(by, ", ") +
			g.oneOf("", "", " having count(*) > 1", " having "+agg()+" is not null") + order(len(targets)) + limit
	case 3:
		targets := list(n, expr)
		return "select distinct " + strings.Join(targets, ", ") + from + where + order(len(targets)) + limit
	case 4:
		targets := append(list(n, expr), g.oneOf("count(*)", "sum("+col()+")")+" over (partition by "+expr()+")")
		return "select " + strings.Join(targets, ", ") + from + where + order(len(targets)) + limit
	}
	targets := list(n, expr)
	if g.chance(20) {
		targets = append(targets, fmt.Sprintf("(select count(*) from items q where q.customer_id = %s.%s)", s.alias, s.key))
	}
	return "select " + strings.Join(targets, ", ") + from + where + order(len(targets)) + limit
}

// joined is a FROM clause of tables joined on their keys, mostly.
func (g *manyGenerator) joined() (string, []source) {
	text, first := g.table()
	sources := []source{first}
	for range g.r.IntN(3) {
		more, s := g.table()
		l := sources[g.r.IntN(len(sources))]
		on := fmt.Sprintf("%s.%s = %s.%s", l.alias, l.key, s.alias, s.key)
		if g.chance(40) {
			on += fmt.Sprintf(" and %s.%s = %s.%s", l.alias, g.oneOf("id", "x"), s.alias, g.oneOf("id", "x"))
		}
		text += " " + g.oneOf("join", "join", "left join", "right join", "full join") + " " + more + " on " + on
		sources = append(sources, s)
	}
	return " from " + text, sources
}

func (g *manyGenerator) condition(sources []source) string {
	s := sources[g.r.IntN(len(sources))]
	switch g.r.IntN(10) {
	case 7:
		return fmt.Sprintf("%s.%s %s (select q.%s from items q where q.x %s)", s.alias, s.key, g.oneOf("in", "not in"), g.oneOf("customer_id", "customer_id", "id"), g.oneOf("= 1", "> 0", "is not null"))
	case 8:
		return fmt.Sprintf("(%s.%s %s %d or %s.%s in (%d, %d))", s.alias, s.key, g.oneOf("=", ">", "<="), 1+g.r.IntN(9), s.alias, s.key, 1+g.r.IntN(9), 1+g.r.IntN(9))
	case 9:
		return fmt.Sprintf("%s.%s %s %d and %s.%s %s %d", s.alias, s.key, g.oneOf(">", ">="), 1+g.r.IntN(9), s.alias, s.key, g.oneOf("<", "<="), 1+g.r.IntN(9))
	case 0:
		return s.alias + ".x is null"
	case 1:
		return fmt.Sprintf("%s.%s in (%d, %d)", s.alias, s.key, 1+g.r.IntN(9), 1+g.r.IntN(9))
	case 2:
		return fmt.Sprintf("exists (select 1 from notes q where q.cust = %s.%s and q.x = %s.x)", s.alias, s.key, s.alias)
	case 3:
		return fmt.Sprintf("%s.%s between %d and %d", s.alias, s.key, 1+g.r.IntN(9), 1+g.r.IntN(9))
	}
	return fmt.Sprintf("%s.%s %s %d", s.alias, g.oneOf("id", "x"), g.oneOf("=", ">", "<", "<>"), g.r.IntN(5))
}
