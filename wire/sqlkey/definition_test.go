package sqlkey

import "testing"

// What is made on all shards is taken from all that have it, and what is made on one shard from that one.
func TestMadeAndDroppedAlike(t *testing.T) {
	c, p := testCatalog(t), NewPlanner(PlannerConfig{})
	for _, kind := range []struct {
		everywhere bool
		texts      []string
	}{
		{true, []string{"create type z as enum ('a')", "drop type z", "alter type z rename to y", "comment on type z is 'x'", "alter type z owner to bob", "alter type z set schema s"}},
		{true, []string{"create domain z as int", "drop domain z", "alter domain z set not null", "alter domain z rename to y", "comment on domain z is 'x'"}},
		{true, []string{"create function z() returns int language sql as 'select 1'", "drop function z()", "alter function z() strict", "alter function z() rename to y", "comment on function z() is 'x'"}},
		{true, []string{"create procedure z() language sql as ''", "drop procedure z()", "drop routine z()"}},
		{true, []string{"create aggregate z(int) (sfunc = int4pl, stype = int)", "drop aggregate z(int)"}},
		{true, []string{"create operator === (leftarg = int, rightarg = int, function = int4eq)", "drop operator === (int, int)", "alter operator === (int, int) owner to bob"}},
		{true, []string{"create operator class z for type int using btree as operator 1 <", "drop operator class z using btree", "alter operator class z using btree rename to y"}},
		{true, []string{"create operator family z using btree", "drop operator family z using btree", "alter operator family z using btree rename to y"}},
		{true, []string{"create cast (int as text) with inout", "drop cast (int as text)", "comment on cast (int as text) is 'x'"}},
		{true, []string{"create collation z (locale = 'C')", "drop collation z", "alter collation z rename to y"}},
		{true, []string{"create conversion z for 'UTF8' to 'LATIN1' from utf8_to_iso8859_1", "drop conversion z"}},
		{true, []string{"create transform for int language sql (from sql with function f(internal))", "drop transform for int language sql"}},
		{true, []string{"create text search configuration z (copy = simple)", "drop text search configuration z", "alter text search configuration z drop mapping for word"}},
		{true, []string{"create text search dictionary z (template = simple)", "drop text search dictionary z", "alter text search dictionary z (stopwords = 'english')"}},
		{true, []string{"create text search parser z (start = a, gettoken = b, end = c, lextypes = d)", "drop text search parser z"}},
		{true, []string{"create text search template z (lexize = a)", "drop text search template z"}},
		{true, []string{"create extension hstore", "drop extension hstore", "alter extension hstore update", "comment on extension hstore is 'x'"}},
		{true, []string{"create language z", "drop language z", "alter language z rename to y"}},
		{true, []string{"create event trigger z on ddl_command_end execute function f()", "drop event trigger z", "alter event trigger z disable"}},
		{true, []string{"create access method z type table handler h", "drop access method z", "comment on access method z is 'x'"}},
		{true, []string{"create schema z", "drop schema z", "alter schema z rename to y", "comment on schema z is 'x'"}},
		{true, []string{"create sequence z", "drop sequence z", "alter sequence z increment 5", "alter sequence z rename to y", "alter sequence z set schema s"}},
		{true, []string{"create role z", "drop role z", "alter role z nologin", "alter role z rename to y", "comment on role z is 'x'"}},
		{true, []string{"create publication z for table orders", "create publication z", "create publication z for all tables", "create publication z for tables in schema app", "drop publication z", "alter publication z set (publish = 'insert')",
			"alter publication z rename to y", "alter publication z owner to bob", "comment on publication z is 'x'"}},
		{true, []string{"create statistics z on customer_id, id from orders", "drop statistics z", "alter statistics z set statistics 5", "alter statistics z rename to y", "alter statistics z set schema s",
			"alter statistics z owner to bob", "comment on statistics z is 'x'"}},
		{true, []string{"create index z on orders (id)", "drop index z", "alter index z rename to y", "comment on index z is 'x'"}},
		{true, []string{"create view z as select id from orders", "drop view z", "alter view z rename to y", "comment on view z is 'x'"}},
		{true, []string{"create trigger z before insert on orders for each row execute function f()", "drop trigger z on orders", "comment on trigger z on orders is 'x'", "alter trigger z on orders rename to y"}},
		{true, []string{"create rule z as on insert to orders do nothing", "drop rule z on orders", "comment on rule z on orders is 'x'", "alter rule z on orders rename to y"}},
		{true, []string{"create policy z on orders", "drop policy z on orders", "comment on policy z on orders is 'x'", "alter policy z on orders rename to y"}},
		{false, []string{"create foreign data wrapper z", "drop foreign data wrapper z"}},
		{false, []string{"create server z foreign data wrapper w", "drop server z", "create user mapping for bob server z", "drop user mapping for bob server z", "alter server z rename to y"}},
		{false, []string{"create foreign table z (a int) server s", "drop foreign table z"}},
		{false, []string{"create subscription z connection '' publication p", "drop subscription z", "alter subscription z disable"}},
		{false, []string{"create tablespace z location '/x'", "drop tablespace z", "alter tablespace z rename to y"}},
		{false, []string{"create database z", "drop database z"}},
		{false, []string{"create table z (a int)", "drop table z"}},
		{false, []string{"create publication z for table plain"}},
		{false, []string{"create statistics z on a, b from plain"}},
	} {
		for _, sql := range kind.texts {
			env := *appEnv
			plan := p.Plan(c, &env, sql)
			if everywhere := plan.Target == Many && plan.Fan.Everywhere; everywhere != kind.everywhere || plan.Target == None {
				t.Errorf("%s: on all shards: %v, want %v\n%s", sql, everywhere, kind.everywhere, tell(plan))
			}
		}
	}
}
