package port

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"
)

// The key is changed node by node in three rounds; at each moment any two nodes reach each other, and after the last one
// whoever has only the old key is out.
func TestKeyIsChangedNodeByNode(t *testing.T) {
	before, after := testKey('a'), testKey('b')
	rounds := []Config{
		{Key: before},
		{Key: before, OldKeys: [][]byte{after}},
		{Key: after, OldKeys: [][]byte{before}},
		{Key: after},
	}
	reach := func(from, to Config) error {
		from.Node, to.Node = "a", "b"
		a, b := open(t, from), open(t, to)
		serveHello(t, b, Hello{ClusterID: "c1", Name: "b"})
		_, err := a.Hello(within(t, 10*time.Second), b.Addr(), Hello{Name: "a"})
		return err
	}
	for i, old := range rounds {
		for j, other := range rounds {
			err := reach(old, other)
			switch apart := i - j; {
			case apart >= -1 && apart <= 1 && err != nil:
				t.Errorf("a node of round %d does not reach one of round %d: %v", i, j, err)
			case (apart == 3 || apart == -3) && !errors.Is(err, ErrKeyMismatch):
				t.Errorf("a node of round %d reaches one of round %d: %v", i, j, err)
			}
		}
	}
}

func TestParseKeys(t *testing.T) {
	line := func(b byte) string { return base64.StdEncoding.EncodeToString(testKey(b)) }
	key, others, err := ParseKeys(line('a') + "\n")
	if err != nil || !bytes.Equal(key, testKey('a')) || others != nil {
		t.Errorf("one: %v, %d others, %v", key, len(others), err)
	}
	key, others, err = ParseKeys(line('a') + "\r\n" + line('b') + "\n\n" + line('c'))
	if err != nil || !bytes.Equal(key, testKey('a')) || len(others) != 2 || !bytes.Equal(others[0], testKey('b')) || !bytes.Equal(others[1], testKey('c')) {
		t.Errorf("three: %v, %v, %v", key, others, err)
	}
	for text, says := range map[string]string{
		"":                                "it is empty",
		line('a') + "\nhunter2-hunter2":   "key 2 of 2",
		strings.Repeat(line('a')+"\n", 4): "4 keys are more than 3",
	} {
		_, _, err := ParseKeys(text)
		if !errors.Is(err, ErrBadKey) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
