package node

import (
	"context"
	"slices"
	"time"
)

const alarmsTick = time.Second

// alarmsLoop puts alarms into the log: not everybody looks at the debug page. One that came and went between two looks was none.
func (n *Node) alarmsLoop(ctx context.Context) {
	var said []string
	for pause(ctx, alarmsTick) {
		now := n.alarmList(n.table.Snapshot(), n.ledger().Status())
		for _, alarm := range now {
			if !slices.Contains(said, alarm) {
				n.log.Warn("alarm", "alarm", alarm)
			}
		}
		for _, alarm := range said {
			if !slices.Contains(now, alarm) {
				n.log.Info("alarm is over", "alarm", alarm)
			}
		}
		said = now
	}
}
