package e2e

import (
	"strings"
	"testing"
	"time"
)

// The path's MTU, the TUN's state and the host's addresses change under a
// running ipsecd; it follows.
func TestFollowsTheHost(t *testing.T) {
	a, b := newPair(t)
	tun := tunnels[0]
	startTunnels(a, b, tun)
	mtu := func(want string) {
		t.Helper()
		a.eventually("at "+want, func() bool {
			out, _ := a.run("ip", "-o", "link", "show", "tun0")
			return strings.Contains(out, want)
		})
	}
	answers := func() bool { return ask(t, a, b, tun.innerA, tun.innerB, 500*time.Millisecond) }

	mtu("mtu 1446") // 1500 less 20 IP, 8 ESP, 8 IV, 16 ICV and 2 of trailer, to a multiple of 4
	a.must("ip", "route", "add", "198.51.100.2", "dev", wireName, "mtu", "1400")
	mtu("mtu 1346")
	transfer(t, a, b, tun.innerA, tun.innerB, many/8, nil)
	a.must("ip", "route", "del", "198.51.100.2")
	mtu("mtu 1446")

	rules, _ := a.run("ip", "rule")
	for _, priority := range []string{"5210", "5213", "32765"} {
		a.must("ip", "rule", "del", "pref", priority)
		a.eventually("with its rules", func() bool {
			now, _ := a.run("ip", "rule")
			return now == rules
		})
	}

	a.must("ip", "link", "set", "tun0", "down")
	a.must("ip", "link", "set", "tun0", "up")
	a.eventually("reachable again", answers)
}

// Who deletes the TUN ends ipsecd, but what was protected does not leave in
// clear for it. The next start finds its way.
func TestTUNDeleted(t *testing.T) {
	a, b := newPair(t)
	tun := tunnels[0]
	fileA, fileB := startTunnels(a, b, tun)
	if !ask(t, a, b, tun.innerA, tun.innerB, patience) {
		t.Fatal("no answer")
	}
	// So that protected packets would have a way round the TUN, and a source.
	a.must("ip", "route", "add", "default", "via", "198.51.100.2")
	a.must("ip", "addr", "add", tun.innerA+"/32", "dev", "lo")
	wire := listen(t, a)
	a.must("ip", "link", "del", "tun0")
	if code := a.wait(); code != 1 {
		t.Errorf("exit %d; log:\n%s", code, a.log)
	}
	if ask(t, a, b, tun.innerA, tun.innerB, 300*time.Millisecond) {
		t.Error("answered without an ipsecd")
	}
	for _, f := range wire.stop() {
		if _, other := dissect(f); other != "" {
			t.Errorf("in clear on the wire: %s", other)
		}
	}
	a.start(append(addrs("A", tun), "-f", fileA)...)
	b.mustSetkey("-f", fileB)
	if !ask(t, a, b, tun.innerA, tun.innerB, patience) {
		t.Error("no answer after the restart")
	}
	a.stop()
	if out, _ := a.run("ip", "rule"); strings.Contains(out, "26992") {
		t.Errorf("rules are left:\n%s", out)
	}
}

// A second ipsecd of one network namespace would share a routing table with the
// first: it is told to go without.
func TestTwoInOneNamespace(t *testing.T) {
	a, _ := newPair(t)
	a.start()
	out, code := a.run(ipsecd, "run", "--run-dir", a.dir+"/second", "--tun", "tun1", "--natt", "4501")
	if code != 1 || !strings.Contains(out, "--routes off") || strings.Count(strings.TrimSpace(out), "\n") != 0 {
		t.Errorf("exit %d, printed %q", code, out)
	}
}

// must is run that succeeds.
func (h *host) must(name string, args ...string) {
	h.Helper()
	if out, code := h.run(name, args...); code != 0 {
		h.Fatalf("host %s: %s %v: %s", h.name, name, args, out)
	}
}
