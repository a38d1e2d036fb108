package netns

import "os"

// RequireEnv is the environment variable that, set to "required", turns the
// skips of Need into failures.
const RequireEnv = "IPSECD_E2E"

// TB is what Need uses of testing.TB.
type TB interface {
	Helper()
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Need skips the test when Available fails, with its reason. Where
// IPSECD_E2E=required is set, as CI does, the test fails instead.
func Need(t TB) {
	t.Helper()
	switch err := Available(); {
	case err == nil:
	case os.Getenv(RequireEnv) == "required":
		t.Fatalf("%s=required, but: %v", RequireEnv, err)
	default:
		t.Skipf("no namespaces or TUN here: %v", err)
	}
}

// Main is for a TestMain: it runs the tests, m.Run of testing.M, and returns
// their exit status. An ordinary user's test binary that may open /dev/net/tun
// runs again in a user namespace where that works, so that Need lets tests pass.
func Main(run func() int) int {
	if TUNAvailable() == nil {
		_, _ = ReexecInUserNS() // refused: Need says why
	}
	return run()
}
