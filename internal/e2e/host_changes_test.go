package e2e

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The path's MTU, the TUN's state and the host's addresses change under a
// running ipsecd; it follows.
func TestFollowsTheHost(t *testing.T) {
	a, b := newPair(t)
	tun, tun6 := tunnels[0], tunnels[4]
	startTunnels(a, b, tun, tun6)
	mtu := func(want string) {
		t.Helper()
		a.eventually("at "+want, func() bool {
			out, _ := a.run("ip", "-o", "link", "show", "tun0")
			return strings.Contains(out, want)
		})
	}
	answers := func() bool { return ask(t, a, b, tun.innerA, tun.innerB, 500*time.Millisecond) }

	mtu("mtu 1426") // 1500 less 40 IP, 8 ESP, 8 IV, 16 ICV and 2 of trailer, to a multiple of 4
	a.must("ip", "route", "add", "198.51.100.2", "dev", wireName, "mtu", "1400")
	mtu("mtu 1346")
	transfer(t, a, b, tun.innerA, tun.innerB, many/8, nil)
	a.must("ip", "route", "del", "198.51.100.2")
	mtu("mtu 1426")

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
	a.eventually("with its IPv6 address", func() bool {
		out, _ := a.run("ip", "-6", "addr", "show", "tun0")
		return strings.Contains(out, tun6.innerA)
	})
	if !ask(t, a, b, tun6.innerA, tun6.innerB, patience) {
		t.Error("no answer over IPv6")
	}
}

// Somebody routes the peer's own address into the TUN by hand: the MTU does not
// follow from itself, and the log names the rule that cures it.
func TestRoutesByHand(t *testing.T) {
	a, b := newPair(t)
	tr := transport{"", 0, own4A, own4B, "", gcm, ""}
	for _, h := range []*host{a, b} {
		own, peer := own4A, own4B
		if h == b {
			own, peer = own4B, own4A
		}
		h.start("--routes", "off", "-f", h.file("setkey.conf", tr.script(h.name)))
		h.must("ip", "route", "add", peer, "dev", "tun0", "src", own)
		h.eventually("warning", func() bool {
			return strings.Contains(h.log.String(), "ip rule add fwmark 0x6970 table N")
		})
		if out, _ := h.run("ip", "-o", "link", "show", "tun0"); !strings.Contains(out, "mtu 1466") {
			t.Errorf("host %s: the TUN is %s", h.name, out)
		}
		h.must("ip", "route", "add", peer, "dev", wireName, "table", "100")
		h.must("ip", "rule", "add", "fwmark", "0x6970", "table", "100")
	}
	if !ping(t, a, own4A, own4B) {
		t.Errorf("no echo; logs:\n%s\n%s", a.log, b.log)
	}
	transfer(t, a, b, own4A, own4B, many/16, nil)
	a.must("ip", "route", "change", own4B, "dev", wireName, "table", "100", "mtu", "1400")
	a.eventually("at the MTU of the real route", func() bool {
		out, _ := a.run("ip", "-o", "link", "show", "tun0")
		return strings.Contains(out, "mtu 1366")
	})
	if n := strings.Count(a.log.String(), "ip rule add"); n != 1 {
		t.Errorf("said %d times:\n%s", n, a.log)
	}
}

// A path with a tiny MTU, or somebody who says so, does not take IPv6 off the
// TUN.
func TestSmallPathKeepsIPv6(t *testing.T) {
	a, b := newPair(t)
	tun, tun6 := tunnels[0], tunnels[4]
	startTunnels(a, b, tun, tun6)
	a.must("ip", "route", "add", "198.51.100.2", "dev", wireName, "mtu", "600")
	a.eventually("at the least MTU", func() bool {
		out, _ := a.run("ip", "-o", "link", "show", "tun0")
		return strings.Contains(out, "mtu 1280")
	})
	if !ask(t, a, b, tun6.innerA, tun6.innerB, patience) {
		t.Error("no answer over IPv6")
	}
}

// ICMPv6 errors, here from a peer that has no ipsecd any more, do not end one
// that has more to send than the wire takes.
func TestErrorsUnderBacklog(t *testing.T) {
	a, b := newPair(t)
	tun := tunnels[4]
	startTunnels(a, b, tun)
	if !ask(t, a, b, tun.innerA, tun.innerB, patience) {
		t.Fatal("no answer")
	}
	b.stop()
	a.must("tc", "qdisc", "add", "dev", wireName, "root", "tbf", "rate", "2mbit", "burst", "3000", "limit", "100000000")
	c := packetConn(t, a, net.JoinHostPort(tun.innerA, "0"))
	defer c.Close()
	to := &net.UDPAddr{IP: net.ParseIP(tun.innerB), Port: 9}
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); {
		c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		c.WriteTo(make([]byte, 1300), to)
	}
	a.must("tc", "qdisc", "del", "dev", wireName, "root")
	if code := a.stop(); code != 0 {
		t.Errorf("exit %d; log:\n%s", code, a.log)
	}
	if strings.Contains(a.log.String(), "send-failed") {
		t.Errorf("errors took the place of packets:\n%s", a.log)
	}
}

// A start that fails takes nothing away of what a killed ipsecd left to keep
// protected packets from leaving in clear.
func TestFailedStartAfterKill(t *testing.T) {
	a, b := newPair(t)
	before := a.network()
	tun := tunnels[0]
	fileA, _ := startTunnels(a, b, tun)
	a.kill()
	left := a.network()
	if left == before {
		t.Fatal("a killed ipsecd leaves nothing")
	}
	a.must("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")
	bad := a.file("six.conf", "spdadd fd01::/64 fd02::/64 any -P out discard;\n")
	if out, code := a.run(ipsecd, "run", "--run-dir", filepath.Join(a.dir, "run"), "--tun", "tun0", "-f", fileA, "-f", bad); code != 1 {
		t.Fatalf("exit %d: %s", code, out)
	}
	now := a.network()
	for line := range strings.Lines(left) {
		if !strings.Contains(now, line) {
			t.Errorf("the failed start took away: %s", line)
		}
	}
	a.start(append(addrs("A", tun), "-f", fileA)...)
	a.stop()
	if after := a.network(); after != before {
		t.Errorf("the network is not what it was:\n%s\nbut:\n%s", before, after)
	}
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
	if code := a.wait(); code != 1 || !strings.Contains(a.log.String(), "somebody removed the TUN device") {
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
