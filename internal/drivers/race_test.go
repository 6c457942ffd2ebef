//go:build race

package drivers

// raceDetector tells whether this test runs under the race detector.
const raceDetector = true
