package pg

import (
	"slices"
	"unicode/utf8"

	"github.com/xdg-go/stringprep"
	"golang.org/x/text/unicode/norm"
)

// saslprep prepares a password as PostgreSQL's pg_saslprep does, so that both ends derive the same keys: a password
// that is not UTF-8, or that the profile prohibits, is used as it stands. PostgreSQL differs from RFC 4013 (and so from
// stringprep.SASLprep) in that it looks for prohibited characters before normalizing, and makes a space of U+200B.
func saslprep(password string) string {
	if isASCII(password) || !utf8.ValidString(password) {
		return password
	}
	mapped := make([]rune, 0, len(password))
	for _, r := range password {
		if stringprep.TableC1_2.Contains(r) {
			mapped = append(mapped, ' ')
		} else if _, nothing := stringprep.TableB1.Map(r); !nothing {
			mapped = append(mapped, r)
		}
	}
	if len(mapped) == 0 || slices.ContainsFunc(mapped, prohibited) || !bidi(mapped) {
		return password
	}
	return norm.NFKC.String(string(mapped))
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func prohibited(r rune) bool {
	for _, set := range [...]stringprep.Set{
		stringprep.TableA1, // unassigned in Unicode 3.2
		stringprep.TableC1_2, stringprep.TableC2_1, stringprep.TableC2_2, stringprep.TableC3, stringprep.TableC4,
		stringprep.TableC5, stringprep.TableC6, stringprep.TableC7, stringprep.TableC8, stringprep.TableC9,
	} {
		if set.Contains(r) {
			return true
		}
	}
	return false
}

// bidi tells whether s obeys RFC 3454, section 6: right-to-left text begins and ends as such and holds no other.
func bidi(s []rune) bool {
	if !slices.ContainsFunc(s, stringprep.TableD1.Contains) {
		return true
	}
	return stringprep.TableD1.Contains(s[0]) && stringprep.TableD1.Contains(s[len(s)-1]) &&
		!slices.ContainsFunc(s, stringprep.TableD2.Contains)
}
