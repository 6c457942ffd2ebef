package demo

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// report writes the demo's story, line by line as it happens, and counts what was not as it should be.
type report struct {
	out   io.Writer
	begin time.Time
	steps int
	bad   []string
}

func (r *report) step(format string, args ...any) {
	r.steps++
	fmt.Fprintf(r.out, "\n%d. %s  [%.1f s]\n", r.steps, fmt.Sprintf(format, args...), time.Since(r.begin).Seconds())
}

func (r *report) say(format string, args ...any) { fmt.Fprintf(r.out, "   "+format+"\n", args...) }

// check says what was seen, and notes it if it is not what should be. It returns ok.
func (r *report) check(ok bool, format string, args ...any) bool {
	line := fmt.Sprintf(format, args...)
	if ok {
		fmt.Fprintf(r.out, "   ok     %s\n", line)
		return true
	}
	r.bad = append(r.bad, line)
	fmt.Fprintf(r.out, "   WRONG  %s\n", line)
	return false
}

// err is what the demo returns: nil if everything was as it should be.
func (r *report) err() error {
	if len(r.bad) == 0 {
		return nil
	}
	return fmt.Errorf("%d of the demo's checks failed:\n- %s", len(r.bad), strings.Join(r.bad, "\n- "))
}

// table writes rows whose columns line up under the first.
func (r *report) table(rows [][]string) {
	var width []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], len(cell))
		}
	}
	for _, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			fmt.Fprintf(&b, "%-*s  ", width[i], cell)
		}
		r.say("%s", strings.TrimRight(b.String(), " "))
	}
}

// millis writes a duration as people read them here.
func millis(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%.2f ms", d.Seconds()*1000)
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
	}
	return fmt.Sprintf("%.0f ms", d.Seconds()*1000)
}
