package node

import (
	"strings"
	"testing"

	"rangefinder/rib"
)

// On a terminal a step's line is drawn in its own place, however many of the terminal's lines it takes, and stays when the step is over. Elsewhere each change is a line.
func TestMoveIsDrawn(t *testing.T) {
	at := func(step string, part float64, problem string) *MoveView {
		m := exampleMove()
		m.Step, m.Part, m.Rows, m.Bytes, m.LeftMS, m.Problem = step, part, 0, 0, 0, problem
		return &m
	}
	bar := func(full int, rest string) string {
		return "[" + strings.Repeat("#", full) + strings.Repeat(".", barWidth-full) + "]" + rest
	}
	long := strings.Repeat("x", 60)
	var out strings.Builder
	e := &env{stdout: &out}
	w := &moveWatch{width: 60}
	for _, m := range []*MoveView{at("copy", 0, ""), at("copy", 0, ""), at("copy", 0.5, ""), at("copy", 0.5, long), at("copy", 1, ""), at("detach", 0, "")} {
		if err := w.shown(e, m); err != nil {
			t.Fatal(err)
		}
	}
	w.leave(e)
	w.leave(e)
	want := bar(0, "   0%  prepare copy") + "\r\x1b[J" + bar(12, "  50%  prepare copy") + "\r\x1b[J" + bar(12, "  50%  prepare copy; "+long) + "\x1b[1A\r\x1b[J" + bar(24, " 100%  prepare copy") + "\n" +
		bar(0, "   0%  prepare detach") + "\n"
	if out.String() != want {
		t.Errorf("%q\nand not\n%q", out.String(), want)
	}

	out.Reset()
	w = &moveWatch{width: terminalWidth(&out)}
	for _, m := range []*MoveView{at("copy", 0, ""), at("copy", 0, ""), at("copy", 0.5, "")} {
		if err := w.shown(e, m); err != nil {
			t.Fatal(err)
		}
	}
	w.leave(e)
	if got, want := out.String(), bar(0, "   0%  prepare copy")+"\n"+bar(12, "  50%  prepare copy")+"\n"; got != want {
		t.Errorf("%q\nand not\n%q", got, want)
	}
}

// What a move waits for is said in words, and so is what pausing it does.
func TestProgressSaysWhatIsWaitedFor(t *testing.T) {
	for _, c := range []struct {
		phase, step, want string
		paused            bool
	}{
		{rib.MovePrepare.String(), "copy", "waits for fra-1 (until what runs there since before the move has ended: ", false},
		{rib.MoveFrozen.String(), "fence", "waits for fra-1 (until what runs there on the range has ended)", false},
		{rib.MoveFlipped.String(), "wait", "waits for fra-1 (until the node has said that it knows the new owner)", false},
		{rib.MovePrepare.String(), "follow", ", paused, waits", true},
		{rib.MoveFlipped.String(), "delete", ", paused: it goes on to its end, ", true},
		{rib.MoveAborted.String(), "clean", ", paused: it goes on to its end, ", true},
	} {
		m := MoveView{Phase: c.phase, Step: c.step, Missing: []string{"fra-1"}, Paused: c.paused}
		if line := progress(m); !strings.Contains(line, c.want) {
			t.Errorf("%s %s: %s", c.phase, c.step, line)
		}
	}
}
