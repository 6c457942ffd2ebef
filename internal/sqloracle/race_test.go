//go:build race

package sqloracle

// raceDetector tells whether this test runs under the race detector.
const raceDetector = true
