package scatter

import (
	"encoding/binary"
	"math"
	"strconv"
	"time"

	"rangefinder/wire/oids"
	"rangefinder/wire/pg"
)

// The text of some types is not the whole value, as a session may have set it: numbers lose digits with extra_float_digits below 1, and with a DateStyle that is
// not ISO a time bears the name of its zone, which is read as another zone's (CST, IST). Where rows are gathered to be read anew these come in binary
// form, and are written here as every server reads them.

// isExact tells whether a type's values come in binary form to be gathered.
func isExact(oid uint32) bool {
	switch oid {
	case oidFloat4, oidFloat8, oidDate, oidTimestamp, oidTimestamptz:
		return true
	}
	return false
}

// isLossy tells whether a type may hold values of such types: arrays, ranges and shapes that do, and types that somebody has made.
func isLossy(oid uint32) bool {
	switch oid {
	case 1021, 1022, 1185: // arrays of numbers and times
		return true
	case 600, 601, 602, 603, 604, 628, 629, 718, 719, 1017, 1018, 1019, 1020, 1027: // shapes, and arrays of these
		return true
	case 3910, 3911, 4534, 6153: // ranges of timestamptz
		return true
	}
	return oid >= oids.First
}

// whollyTold asks whether the text of values of some such types is all of them. Enums, and base types of extensions, write no such values.
const whollyTold = `pg_catalog.current_setting('extra_float_digits')::int OPERATOR(pg_catalog.>) 0 AND pg_catalog.current_setting('DateStyle') OPERATOR(pg_catalog.~~) 'ISO%'
 OR NOT EXISTS (SELECT FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_type e ON e.oid OPERATOR(pg_catalog.=) t.typelem WHERE t.oid OPERATOR(pg_catalog.=) ANY ('{{types}}') AND
 (t.oid OPERATOR(pg_catalog.<) 16384 OR coalesce(e.typtype, t.typtype) IN ('c', 'r', 'm', 'd')))`

// formats are the formats in which columns come to be gathered.
func formats(desc []byte, ends []int) []int16 {
	list := make([]int16, len(ends))
	for i, end := range ends {
		if isExact(typeAt(desc, end)) {
			list[i] = pg.FormatBinary
		}
	}
	return list
}

// exactTypes are the types of the columns that have come in binary form; 0: text.
func exactTypes(desc []byte, ends []int) []uint32 {
	list := make([]uint32, len(ends))
	for i, end := range ends {
		if int16(binary.BigEndian.Uint16(desc[end-2:])) == pg.FormatBinary {
			list[i] = typeAt(desc, end)
		}
	}
	return list
}

// appendExact appends a value in binary form as text that means it under all settings. What is not of its type's form is left as it is, and refused by who reads it.
func appendExact(dst []byte, oid uint32, v []byte) []byte {
	switch {
	case oid == oidFloat4 && len(v) == 4:
		return appendFloat(dst, float64(math.Float32frombits(binary.BigEndian.Uint32(v))), 32)
	case oid == oidFloat8 && len(v) == 8:
		return appendFloat(dst, math.Float64frombits(binary.BigEndian.Uint64(v)), 64)
	case oid == oidDate && len(v) == 4:
		switch days := int32(binary.BigEndian.Uint32(v)); days {
		case math.MaxInt32:
			return append(dst, "infinity"...)
		case math.MinInt32:
			return append(dst, "-infinity"...)
		default:
			return appendTime(dst, epochOfServers.AddDate(0, 0, int(days)), "")
		}
	case (oid == oidTimestamp || oid == oidTimestamptz) && len(v) == 8:
		layout := " 15:04:05.000000"
		if oid == oidTimestamptz {
			layout += "+00"
		}
		switch us := int64(binary.BigEndian.Uint64(v)); us {
		case math.MaxInt64:
			return append(dst, "infinity"...)
		case math.MinInt64:
			return append(dst, "-infinity"...)
		default:
			const day = int64(24 * time.Hour / time.Microsecond)
			days := us / day
			if us%day < 0 {
				days--
			}
			return appendTime(dst, epochOfServers.AddDate(0, 0, int(days)).Add(time.Duration(us-days*day)*time.Microsecond), layout)
		}
	}
	return append(dst, v...)
}

// epochOfServers is from when on PostgreSQL counts time.
var epochOfServers = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func appendFloat(dst []byte, f float64, bits int) []byte {
	switch {
	case math.IsInf(f, 1):
		return append(dst, "Infinity"...)
	case math.IsInf(f, -1):
		return append(dst, "-Infinity"...)
	}
	return strconv.AppendFloat(dst, f, 'g', -1, bits)
}

// appendTime appends a day, year first, and what a layout says of its time.
func appendTime(dst []byte, t time.Time, layout string) []byte {
	year, before := t.Year(), ""
	if year <= 0 {
		year, before = 1-year, " BC"
	}
	for n := 1000; n > max(year, 1); n /= 10 { // four digits tell that it is the year
		dst = append(dst, '0')
	}
	dst = strconv.AppendInt(dst, int64(year), 10)
	return append(t.AppendFormat(dst, "-01-02"+layout), before...)
}

// gathers makes what the part's shard is sent if its rows are gathered. In which formats depends on what columns they have: the first time the shard is asked.
func (p *part) gathers() ([]byte, *pg.Error) {
	f, b := p.f, p.b
	list := f.c.cfg.Shared.formats(f.fan)
	if list == nil {
		_, types := f.x.typed(p.sql, 0)
		b.send = pg.AppendParse(b.send, "", p.sql, types)
		b.send = pg.AppendSync(pg.AppendDescribe(b.send, pg.KindStatement, ""))
		if e := b.flush(); e != nil {
			return nil, e
		}
		list = []int16{}
		e := b.receive(func(typ byte, size int) *pg.Error {
			frame, err := b.frame(size)
			if err != nil {
				return b.lost(err)
			}
			switch typ {
			case pg.TypeRowDescription:
				desc := frame[pg.HeaderSize:]
				ends, ok := columnsOf(desc)
				if !ok {
					return malformed()
				}
				list = formats(desc, ends)
			case pg.TypeParameterStatus:
				b.parameter(frame)
			}
			return nil
		})
		if e != nil {
			return nil, e
		}
		f.c.cfg.Shared.learnFormats(f.fan, list)
	}
	return pg.AppendSync(f.x.appendAsk(nil, p.sql, nil, list)), nil
}
