package rib

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestTokenIsReadable(t *testing.T) {
	token := Token{{"shard_1", 3, 0x16B374D848}, {"shard_2", 1, 0x5000}}
	if got, want := token.String(), "shard_1/3/16/B374D848,shard_2/1/0/5000"; got != want {
		t.Errorf("it is written as %s, want %s", got, want)
	}
	got, err := ParseToken(" shard_2/1/0/5000 , shard_1/3/16/b374d848")
	if err != nil || !slices.Equal(got, token) {
		t.Errorf("read %v, %v", got, err)
	}
	for _, empty := range []string{"", "  "} {
		if got, err := ParseToken(empty); err != nil || len(got) != 0 {
			t.Errorf("%q is %v, %v", empty, got, err)
		}
	}
}

func TestTokenRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"shard_1":                            `"shard_1" is not of the form shard/timeline/LSN`,
		"shard_1/3":                          `"shard_1/3" is not of the form shard/timeline/LSN`,
		"shard_1/3/5000":                     `the LSN "5000" of shard shard_1`,
		"shard_1/3/0/5000/1":                 `the LSN "0/5000/1" of shard shard_1`,
		"shard_1/3/0/0":                      `the LSN "0/0" of shard shard_1`,
		"shard_1/3/0/+5":                     `the LSN "0/+5"`,
		"shard_1/3/0/ 5":                     `the LSN "0/ 5"`,
		"shard_1/3/0/fffffffff":              `the LSN "0/fffffffff"`,
		"shard_1/0/0/5000":                   `the timeline "0" of shard shard_1`,
		"shard_1/+3/0/5000":                  `the timeline "+3"`,
		"shard_1/-3/0/5000":                  `the timeline "-3"`,
		"shard_1/4294967296/0/5000":          `the timeline "4294967296"`,
		"shard 1/3/0/5000":                   `"shard 1" is not the name of a shard`,
		"/3/0/5000":                          `"" is not the name of a shard`,
		strings.Repeat("s", 65) + "/3/0/5":   "is not the name of a shard",
		"a/1/0/5,,b/1/0/5":                   `"" is not of the form`,
		"a/1/0/5,":                           `"" is not of the form`,
		"a/1/0/5,b/1/0/5,a/2/0/6":            "shard a is there twice",
		strings.Repeat("a/1/0/5,", MaxToken): "it has",
	} {
		if got, err := ParseToken(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q is %v, %v; want an error with %s", text, got, err, want)
		}
	}
}

// Whatever a token may hold is read back as it was, in whatever order it stands.
func TestTokenRoundTrip(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	names := "abcxyzABCXYZ0189-_."
	for range 2000 {
		var token Token
		for i := range rnd.IntN(8) {
			name := fmt.Sprintf("%c%d", names[rnd.IntN(len(names))], i)
			for range rnd.IntN(40) {
				name += string(names[rnd.IntN(len(names))])
			}
			token = append(token, Written{name, max(1, rnd.Uint32()>>rnd.IntN(32)), max(1, rnd.Uint64()>>rnd.IntN(64))})
		}
		slices.SortFunc(token, func(a, b Written) int { return strings.Compare(a.Shard, b.Shard) })
		parts := strings.Split(token.String(), ",")
		rnd.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
		got, err := ParseToken(strings.Join(parts, ","))
		if err != nil || !slices.Equal(got, token) {
			t.Fatalf("%q is read as %v, %v", token, got, err)
		}
	}
}

// FuzzToken: a text is refused, or means what it is written as afterwards.
func FuzzToken(f *testing.F) {
	f.Add("shard_1/3/16/B374D848,shard_2/1/0/5000")
	f.Add(" a/1/0/5,a/1/0/6")
	f.Add("a/4294967295/FFFFFFFF/FFFFFFFF")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		if err != nil {
			return
		}
		for i, w := range token {
			if w.Shard == "" || w.Timeline == 0 || w.LSN == 0 || i > 0 && token[i-1].Shard >= w.Shard {
				t.Fatalf("%q is read as %v", text, token)
			}
		}
		again, err := ParseToken(token.String())
		if err != nil || !slices.Equal(again, token) {
			t.Fatalf("%q is read as %v, and that as %v, %v", text, token, again, err)
		}
	})
}
