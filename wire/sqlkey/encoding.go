package sqlkey

import "strings"

// encodings are those that a client may have where a database is in UTF-8, as PostgreSQL writes them, by the names that it looks them up by:
// pg_encname_tbl of its encnames.c.
var encodings = map[string]string{
	"utf8": "UTF8", "unicode": "UTF8",
	"sqlascii": "SQL_ASCII",
	"latin1":   "LATIN1", "iso88591": "LATIN1",
	"latin2": "LATIN2", "iso88592": "LATIN2",
	"latin3": "LATIN3", "iso88593": "LATIN3",
	"latin4": "LATIN4", "iso88594": "LATIN4",
	"latin5": "LATIN5", "iso88599": "LATIN5",
	"latin6": "LATIN6", "iso885910": "LATIN6",
	"latin7": "LATIN7", "iso885913": "LATIN7",
	"latin8": "LATIN8", "iso885914": "LATIN8",
	"latin9": "LATIN9", "iso885915": "LATIN9",
	"latin10": "LATIN10", "iso885916": "LATIN10",
	"iso88595": "ISO_8859_5",
	"iso88596": "ISO_8859_6",
	"iso88597": "ISO_8859_7",
	"iso88598": "ISO_8859_8",
	"win1250":  "WIN1250", "windows1250": "WIN1250",
	"win1251": "WIN1251", "windows1251": "WIN1251", "win": "WIN1251",
	"win1252": "WIN1252", "windows1252": "WIN1252",
	"win1253": "WIN1253", "windows1253": "WIN1253",
	"win1254": "WIN1254", "windows1254": "WIN1254",
	"win1255": "WIN1255", "windows1255": "WIN1255",
	"win1256": "WIN1256", "windows1256": "WIN1256",
	"win1257": "WIN1257", "windows1257": "WIN1257",
	"win1258": "WIN1258", "windows1258": "WIN1258", "abc": "WIN1258", "tcvn": "WIN1258", "tcvn5712": "WIN1258", "vscii": "WIN1258",
	"win866": "WIN866", "windows866": "WIN866", "alt": "WIN866",
	"win874": "WIN874", "windows874": "WIN874",
	"koi8": "KOI8R", "koi8r": "KOI8R",
	"koi8u": "KOI8U",
	"big5":  "BIG5", "win950": "BIG5", "windows950": "BIG5",
	"gbk": "GBK", "win936": "GBK", "windows936": "GBK",
	"uhc": "UHC", "win949": "UHC", "windows949": "UHC",
	"sjis": "SJIS", "shiftjis": "SJIS", "mskanji": "SJIS", "win932": "SJIS", "windows932": "SJIS",
	"shiftjis2004": "SHIFT_JIS_2004",
	"gb18030":      "GB18030",
	"johab":        "JOHAB",
	"euccn":        "EUC_CN",
	"eucjp":        "EUC_JP",
	"euckr":        "EUC_KR",
	"euctw":        "EUC_TW",
	"eucjis2004":   "EUC_JIS_2004",
}

// EncodingName is PostgreSQL's own name of an encoding. As it does, it looks at letters and digits alone: asyncpg writes 'utf-8', quotes included.
// ok is false if it is none that a client may have.
func EncodingName(name string) (canonical string, ok bool) {
	canonical, ok = encodings[strings.ToLower(strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' {
			return r
		}
		return -1
	}, name))]
	return canonical, ok
}

// IsUTF8 reports whether a name of an encoding means UTF8. Servers report it as UTF8 however it is spelled.
func IsUTF8(encoding string) bool {
	canonical, _ := EncodingName(encoding)
	return canonical == "UTF8"
}

// Splits tells whether data of an encoding can be taken apart without decoding them: no byte of a character beyond ASCII looks like an
// ASCII one. "" is UTF-8.
func Splits(encoding string) bool {
	switch canonical, _ := EncodingName(encoding); canonical {
	case "BIG5", "GB18030", "GBK", "JOHAB", "SJIS", "SHIFT_JIS_2004", "UHC":
		return false
	}
	return true
}
