package e2e

import (
	"encoding/binary"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ipsecd/internal/netns"
)

// A router on the way has a smaller MTU and says so; each form of ESP learns it,
// and a TCP transfer with a peer that promises more goes on.
func TestPathMTU(t *testing.T) {
	for _, tun := range []tunnel{
		{"4in4 raw", "198.51.100.1", "203.0.113.2", "10.1.1.1", "10.2.1.1", "", gcm, 1},
		{"4in4 udp", "198.51.100.1", "203.0.113.2", "10.1.1.1", "10.2.1.1", "[4500]", gcm, 1},
		{"6in6 raw", "fd00:1::1", "fd00:2::2", "fd00:a::1", "fd00:b::1", "", gcm, 1},
		{"6in6 udp", "fd00:1::1", "fd00:2::2", "fd00:a::1", "fd00:b::1", "[4500]", gcm, 1},
	} {
		t.Run(tun.name, func(t *testing.T) {
			t.Parallel()
			a, b := newRouted(t, 1400)
			a.start(append(addrs("A", tun), "-f", a.file("setkey.conf", script("A", tun)))...)
			// B's segments would fit; A has to learn.
			b.start(append(addrs("B", tun), "--mtu", "1400", "-f", b.file("setkey.conf", script("B", tun)))...)
			transfer(t, a, b, tun.innerA, tun.innerB, 4<<20, nil)
		})
	}
}

// The same in transport mode, where the address that has the smaller MTU on its
// way is that of the protected peer; and a host with a router before its peer
// stays as strict as it was.
func TestTransportBehindRouter(t *testing.T) {
	for _, tr := range []transport{
		{"IPv4", 1, own4A, "203.0.113.2", "", gcm, ""}, {"IPv4", 1, own4A, "203.0.113.2", "[4500]", gcm, ""},
		{"IPv6", 1, own6A, "fd00:2::2", "", gcm, ""}, {"IPv6", 1, own6A, "fd00:2::2", "[4500]", gcm, ""},
	} {
		t.Run(tr.name+tr.port, func(t *testing.T) {
			t.Parallel()
			a, b := newRouted(t, 1400)
			a.setRPFilters(tr.rpFilter)
			b.setRPFilters(tr.rpFilter)
			wire := listen(t, a)
			a.start("-f", a.file("setkey.conf", tr.script("A")))
			b.start("--mtu", "1400", "-f", b.file("setkey.conf", tr.script("B")))
			if !ping(t, a, tr.a, tr.b) || !askPorts(t, a, b, tr.a, tr.b, "500", "500", patience) {
				t.Errorf("no answer; logs:\n%s\n%s", a.log, b.log)
			}
			transfer(t, a, b, tr.a, tr.b, 4<<20, nil)
			for _, f := range wire.stop() {
				if _, other := dissect(f); other != "" && !isIKE(f) && !isTooBig(f) {
					t.Errorf("in clear on the wire: %s", other)
				}
			}
			for _, h := range []*host{a, b} {
				if got := h.rpFilter(wireName); got != "1" {
					t.Errorf("host %s has rp_filter %s", h.name, got)
				}
			}
		})
	}
}

// A path too small for IPv6 in ESP, while there are IPv6 policies: IPv4 goes on, both
// from who has to learn of the path and from who is on its narrow link, to a peer that
// promises more; and the log says what becomes of IPv6.
func TestNarrowPath(t *testing.T) {
	tun := tunnel{"", "198.51.100.1", "203.0.113.2", "10.1.1.1", "10.2.1.1", "", gcm, 1}
	tun6 := tunnel{"", "198.51.100.1", "203.0.113.2", "fd00:a::1", "fd00:b::1", "", gcm, 2}
	tr := transport{"", 0, own4A, "203.0.113.2", "", gcm, ""}
	for _, c := range []struct {
		name   string
		a, b   string // addresses that talk
		script func(end string) string
		warns  bool
	}{
		{"tunnel", tun.innerA, tun.innerB, func(end string) string { return script(end, tun, tun6) }, true},
		{"no IPv6 to that peer", tun.innerA, tun.innerB, func(end string) string {
			return script(end, tun) + "spdadd fd00:c::/64 fd00:d::/64 any -P out discard;\n"
		}, false},
		{"transport", tr.a, tr.b, func(end string) string {
			return tr.script(end) + "spdadd fd00:c::/64 fd00:d::/64 any -P out discard;\n"
		}, false},
	} {
		for _, end := range []string{"A", "B"} {
			t.Run(c.name+" from "+end, func(t *testing.T) {
				t.Parallel()
				a, b := newRouted(t, 1300)
				for _, h := range []*host{a, b} {
					args := append(addrs(h.name, tun, tun6), "-f", h.file("setkey.conf", c.script(h.name)))
					if h.name != end {
						args = append(args, "--mtu", "1280")
					}
					h.start(args...)
				}
				sender := a
				if end == "A" {
					transfer(t, a, b, c.a, c.b, 4<<20, nil)
				} else {
					transfer(t, b, a, c.b, c.a, 4<<20, nil)
					sender = b
				}
				if out, _ := sender.run("ip", "-o", "link", "show", "tun0"); !strings.Contains(out, "mtu 1280") {
					t.Errorf("the TUN is %s", out)
				}
				warned := strings.Contains(sender.log.String(), "does not fit sealed into the path to a peer")
				if warned != c.warns {
					t.Errorf("warned: %v, want %v; log:\n%s", warned, c.warns, sender.log)
				}
			})
		}
	}
}

// isTooBig tells whether a frame is the router's "fragmentation needed" or "packet
// too big".
func isTooBig(frame []byte) bool {
	const eth = 14
	switch binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_IP:
		return frame[eth+9] == unix.IPPROTO_ICMP && frame[eth+20] == 3 && frame[eth+21] == 4
	case unix.ETH_P_IPV6:
		return frame[eth+6] == unix.IPPROTO_ICMPV6 && frame[eth+40] == 2
	}
	return false
}

// newRouted makes hosts A, 198.51.100.1 and fd00:1::1, and B, 203.0.113.2 and
// fd00:2::2, with a router between them and an MTU behind it.
func newRouted(t *testing.T, mtu int) (a, b *host) {
	t.Helper()
	netns.Need(t)
	a, b = newHost(t, "A"), newHost(t, "B")
	r := newHost(t, "R")
	lay(t, a, r, wireName, "left", []string{"198.51.100.1/24", "fd00:1::1/64"}, []string{"198.51.100.254/24", "fd00:1::fe/64"}, 1500)
	lay(t, r, b, "right", wireName, []string{"203.0.113.254/24", "fd00:2::fe/64"}, []string{"203.0.113.2/24", "fd00:2::2/64"}, mtu)
	r.must("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
	a.must("ip", "route", "add", "default", "via", "198.51.100.254")
	a.must("ip", "-6", "route", "add", "default", "via", "fd00:1::fe")
	b.must("ip", "route", "add", "default", "via", "203.0.113.254")
	b.must("ip", "-6", "route", "add", "default", "via", "fd00:2::fe")
	return a, b
}

func lay(t *testing.T, a, b *host, nameA, nameB string, addrsA, addrsB []string, mtu int) {
	t.Helper()
	if err := netns.Veth(a.ns, b.ns, nameA, nameB, prefixes(addrsA...), prefixes(addrsB...), mtu); err != nil {
		t.Fatal(err)
	}
}
