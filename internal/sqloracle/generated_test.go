package sqloracle

import (
	"bufio"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
)

const (
	// mostRefused is how many of a hundred generated statements may be refused, and fewestScattered how many must pass of those that
	// several shards have a part in.
	mostRefused     = 5
	fewestScattered = 800

	// shown is how many failures are made smaller and shown in full.
	shown = 15
)

// testGenerated asks generated statements.
func testGenerated(t *testing.T, p *place) {
	c := newClients(t, p)
	var log *bufio.Writer
	if *trace != "" {
		file, err := os.Create(*trace)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		log = bufio.NewWriter(file)
		defer log.Flush()
	}
	passed, failed, scattered := 0, 0, 0
	kinds := map[string]int{}
	refusals := 0
	for i := uint64(0); passed+failed+refusals < *number; i++ {
		made := &choices{random: rand.New(rand.NewPCG(*seed, i))}
		all := c.tell(newStory(made))
		for k, s := range all {
			if log != nil {
				code := ""
				if s.answer.err != nil {
					code = s.answer.err.Code + " " + s.answer.err.Message + "; " + s.answer.err.Detail
				}
				fmt.Fprintf(log, "%d: shards %d, error %q, refused %q, problem %q: %s\n", i, s.shards, code, s.refused, s.problem, s.statement)
			}
			switch {
			case s.problem != "":
				if failed++; failed <= shown {
					t.Errorf("story %d:\n%s", i, c.smaller(made.made, all[:k+1]))
				}
			case s.statement.controls():
			case s.refused != "":
				refusals++
				kinds[s.refused]++
			default:
				passed++
				if s.shards > 1 {
					scattered++
				}
			}
		}
	}
	summary = fmt.Sprintf("%d passed, %d failed, %d refused", passed, failed, refusals)
	t.Logf("%s; of those that passed %d were asked of several shards", summary, scattered)
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		t.Logf("refused: %5d %s", kinds[kind], kind)
	}
	if failed > shown {
		t.Errorf("%d more stories fail", failed-shown)
	}
	if all := passed + failed + refusals; refusals*100 > all*mostRefused {
		t.Errorf("%d of %d statements were refused, at most %d in a hundred may be", refusals, all, mostRefused)
	}
	if scattered*2000 < *number*fewestScattered {
		t.Errorf("only %d statements were asked of several shards", scattered)
	}
}

// inWords is a story up to its problem; "": it has none.
func inWords(all []told) (text string) {
	for _, s := range all {
		text += "  " + s.statement.String() + "\n"
		if s.problem != "" {
			return text + "  " + s.problem
		}
	}
	return ""
}

// smaller returns the smallest story made of fewer or smaller choices that fails too, in words. first is what became of the whole.
func (c *clients) smaller(made []uint32, first []told) string {
	fails := func(made []uint32) string { return inWords(c.tell(newStory(&choices{made: made}))) }
	made = smallest(made, 400, func(m []uint32) bool { return fails(m) != "" })
	if text := fails(made); text != "" {
		return text
	}
	return "  it does not fail a second time. The first time:\n" + inWords(first)
}
