//go:build race

package e2e

// raceDetector is in the programs under test when it is in the test.
const raceDetector = true
