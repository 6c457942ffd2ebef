package wire

import (
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"

	"rangefinder/wire/pg"
	"rangefinder/wire/sqlkey"
)

// Servers write what they send in each client's encoding. What a node hears once for all its sessions, notifications, it has in UTF-8, and
// writes anew for the sessions that have another one.

// charmapOf is an encoding of one byte a character, by PostgreSQL's name of it; nil: it is none, or not known here.
func charmapOf(encoding string) *charmap.Charmap {
	switch encoding {
	case "LATIN1":
		return charmap.ISO8859_1
	case "LATIN2":
		return charmap.ISO8859_2
	case "LATIN3":
		return charmap.ISO8859_3
	case "LATIN4":
		return charmap.ISO8859_4
	case "ISO_8859_5":
		return charmap.ISO8859_5
	case "ISO_8859_6":
		return charmap.ISO8859_6
	case "ISO_8859_7":
		return charmap.ISO8859_7
	case "ISO_8859_8":
		return charmap.ISO8859_8
	case "LATIN5":
		return charmap.ISO8859_9
	case "LATIN6":
		return charmap.ISO8859_10
	case "LATIN7":
		return charmap.ISO8859_13
	case "LATIN8":
		return charmap.ISO8859_14
	case "LATIN9":
		return charmap.ISO8859_15
	case "LATIN10":
		return charmap.ISO8859_16
	case "WIN1250":
		return charmap.Windows1250
	case "WIN1251":
		return charmap.Windows1251
	case "WIN1252":
		return charmap.Windows1252
	case "WIN1253":
		return charmap.Windows1253
	case "WIN1254":
		return charmap.Windows1254
	case "WIN1255":
		return charmap.Windows1255
	case "WIN1256":
		return charmap.Windows1256
	case "WIN1257":
		return charmap.Windows1257
	case "WIN1258":
		return charmap.Windows1258
	case "WIN866":
		return charmap.CodePage866
	case "WIN874":
		return charmap.Windows874
	case "KOI8R":
		return charmap.KOI8R
	case "KOI8U":
		return charmap.KOI8U
	}
	return nil
}

// keepsUTF8 reports whether a server would send a client with that encoding what it has in UTF-8 as it is.
func keepsUTF8(encoding string) bool {
	return encoding == "" || encoding == "SQL_ASCII" || sqlkey.IsUTF8(encoding)
}

// encoded writes a text of UTF-8 in another encoding. ok is false if that has no such character, or is not known here.
func encoded(text, encoding string) (out string, ok bool) {
	b := make([]byte, 0, len(text))
	chars := charmapOf(encoding)
	for _, r := range text {
		if r < utf8.RuneSelf {
			b = append(b, byte(r))
			continue
		}
		if chars == nil || r == utf8.RuneError {
			return "", false
		}
		c, known := chars.EncodeRune(r)
		if !known {
			return "", false
		}
		b = append(b, c)
	}
	return string(b), true
}

// notConverted ends a session that cannot be told what it listens for.
func notConverted(channel, encoding string) *pg.Error {
	return pg.NewError(pg.CodeUntranslatableCharacter, "terminating connection: a notification cannot be written in the client's encoding").
		WithDetail("It came on channel " + quoteLiteral(channel) + ". client_encoding is " + encoding + ", which lacks one of its characters, or which this node cannot convert to.").
		WithHint("SET client_encoding = 'UTF8' before LISTEN.")
}
