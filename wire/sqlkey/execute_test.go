package sqlkey

import "testing"

// What EXECUTE gives with a type of its own comes to a parameter of another type as the server writes it: our text is not that.
func TestExecuteArgumentsHaveTypes(t *testing.T) {
	plan := NewPlanner(PlannerConfig{}).Plan(testCatalog(t), appEnv, "EXECUTE p ('A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'::uuid, 'abc'::bytea, date '20200102', '2020-01-01 10:00+00'::timestamptz, 'x', 'x'::text, 7)")
	u := plan.Names[0]
	if u.Ask == "" {
		t.Error("the server is not asked for what they are")
	}
	for i, own := range []uint32{oidUUID, oidBytea, oidDate, oidTimestamptz, 0, 0, 0} {
		for _, declared := range []uint32{0, oidText, oidUUID, oidBytea, oidDate, oidTimestamptz} {
			types := make([]uint32, len(u.Args))
			types[i] = declared
			want := declared
			switch {
			case own != 0 && declared == 0:
				want = own
			case own != 0 && declared != own:
				want = OtherType
			}
			if _, _, oid, _, ok := u.Arg(i+1, types); !ok || oid != want {
				t.Errorf("argument %d of a parameter of type %d: read as one of %d, want %d", i+1, declared, oid, want)
			}
		}
	}
}

// What a parameter is used for is looked through in time, however often that is.
func TestManyFormulasOfOneParameter(t *testing.T) {
	all := make(uses)
	for i := range 10_000 {
		all.add(1, &use{text: itoa(i)})
		all.add(2, &use{text: "the same"})
	}
	if len(all[1]) != 1 || all[1][0] != nil || len(all[2]) != 1 || all[2][0] == nil {
		t.Errorf("%d places are kept of what has too many, and %d of what is the same in all", len(all[1]), len(all[2]))
	}
}
