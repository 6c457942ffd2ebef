package node

import (
	"errors"
	"strings"
	"testing"
	"time"

	"rangefinder/internal/pgtest"
)

func TestAlarmsAreLoggedOnce(t *testing.T) {
	n := newNode(t, testConfig(t, "fra"), nil).open(t)
	logged := func(text string) {
		t.Helper()
		pgtest.Eventually(t, 10*time.Second, func() error {
			if !strings.Contains(n.log.String(), text) {
				return errors.New("not logged: " + text)
			}
			return nil
		})
	}
	set := func(text string) {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.alarms, "x")
		if text != "" {
			n.alarms["x"] = text
		}
	}
	set("first")
	logged("alarm=first")
	set("second")
	logged("alarm=second")
	set("")
	logged(`"alarm is over" alarm=second`)
	if got := strings.Count(n.log.String(), "msg=alarm alarm=first"); got != 1 {
		t.Errorf("the first alarm was logged %d times", got)
	}
}
