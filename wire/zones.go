package wire

import (
	"sync"
	"time"
)

// zones are the names of time zones that have been looked up and are there.
var zones sync.Map

// isZone reports whether this machine knows a time zone by just that name. Servers have the same ones: from the same files, or from PostgreSQL's copy
// of them.
func isZone(name string) bool {
	if _, ok := zones.Load(name); ok {
		return true
	}
	if name == "" || name == "Local" { // which mean something else to package time
		return false
	}
	_, err := time.LoadLocation(name)
	if err == nil {
		zones.Store(name, nil)
	}
	return err == nil
}
