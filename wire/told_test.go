package wire_test

import (
	"context"
	"strings"
	"testing"

	"rangefinder/wire"
	"rangefinder/wire/sqlkey"
)

// What a node foresees of a parameter's value is what a server makes of it.
func TestForeseenValues(t *testing.T) {
	conn, err := servers(t)[0].primary.ConnTo(ctxOf(t), "postgres", "postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	set := func(name, value string) (shown string, ok bool) {
		err := conn.QueryRow(ctxOf(t), "SELECT set_config($1, $2, false)", name, value).Scan(&shown)
		return shown, err == nil
	}
	for _, name := range strings.Fields(`abc alt big5 euc_cn euc_jis_2004 EUC-JP euckr EUC_TW gb18030 gbk iso-8859-1 iso885910 iso8859-13 iso885914 ISO_8859-15 iso885916 iso88592 iso88593 iso88594
		iso88595 iso88596 iso88597 iso88598 iso88599 johab koi8 koi8-r KOI8U latin1 Latin-10 latin2 latin3 latin4 latin5 latin6 latin7 latin8 latin9 mskanji shift_jis shiftjis2004 sjis sqlascii tcvn
		tcvn5712 uhc unicode utf-8 utf8 vscii win win1250 win1251 win1252 win1253 win1254 win1255 win1256 win1257 win1258 win866 win874 win932 win936 win949 win950 windows1250 windows-1252 windows866
		windows932 windows950 latin11 iso885911 iso8859 iso88590 nosuch windows win1 iso8859-`) {
		shown, ok := set("client_encoding", name)
		set("client_encoding", "UTF8")
		if foreseen, known := sqlkey.EncodingName(name); known != ok || known && foreseen != shown {
			t.Errorf("client_encoding = %s is foreseen as %s (%v), and is %s (%v)", name, foreseen, known, shown, ok)
		}
	}
	styles := []string{"iso", "sql", "postgres", "PostgreSQL", "german", "ymd", "dmy", "mdy", "us", "euro", "European", "NonEuropean", "nosuch", ""}
	now, _ := set("DateStyle", "ISO, MDY")
	for i, a := range styles {
		for _, b := range styles {
			value := a + ", " + b
			if i%2 == 0 {
				value = a + "," + b
			}
			if b == "" {
				value = a
			}
			shown, ok := set("DateStyle", value)
			if foreseen, known := wire.DateStyle(strings.ToLower(value), now); known != ok && !(value == "" && ok) || known && foreseen != shown {
				t.Errorf("DateStyle = %q behind %s is foreseen as %s (%v), and is %s (%v)", value, now, foreseen, known, shown, ok)
			}
			if ok {
				now = shown
			}
		}
	}
	for _, zone := range []string{"UTC", "utc", "Europe/Berlin", "europe/berlin", "Local", "", "EST5EDT", "-8", "nosuch", "../etc", "Europe", "GMT"} {
		if shown, ok := set("TimeZone", zone); wire.IsZone(zone) && (!ok || shown != zone) {
			t.Errorf("TimeZone = %s is foreseen as it is, and is %s (%v)", zone, shown, ok)
		}
	}
	if !wire.IsZone("Europe/Berlin") {
		t.Error("Europe/Berlin is not known")
	}
}
