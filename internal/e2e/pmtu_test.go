package e2e

import (
	"testing"

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
			netns.Need(t)
			a, r, b := newHost(t, "A"), newHost(t, "R"), newHost(t, "B")
			lay(t, a, r, wireName, "left", []string{"198.51.100.1/24", "fd00:1::1/64"}, []string{"198.51.100.254/24", "fd00:1::fe/64"}, 1500)
			lay(t, r, b, "right", wireName, []string{"203.0.113.254/24", "fd00:2::fe/64"}, []string{"203.0.113.2/24", "fd00:2::2/64"}, 1400)
			r.must("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
			a.must("ip", "route", "add", "default", "via", "198.51.100.254")
			a.must("ip", "-6", "route", "add", "default", "via", "fd00:1::fe")
			b.must("ip", "route", "add", "default", "via", "203.0.113.254")
			b.must("ip", "-6", "route", "add", "default", "via", "fd00:2::fe")
			a.start(append(addrs("A", tun), "-f", a.file("setkey.conf", script("A", tun)))...)
			// B's segments would fit; A has to learn.
			b.start(append(addrs("B", tun), "--mtu", "1400", "-f", b.file("setkey.conf", script("B", tun)))...)
			transfer(t, a, b, tun.innerA, tun.innerB, 4<<20, nil)
		})
	}
}

func lay(t *testing.T, a, b *host, nameA, nameB string, addrsA, addrsB []string, mtu int) {
	t.Helper()
	if err := netns.Veth(a.ns, b.ns, nameA, nameB, prefixes(addrsA...), prefixes(addrsB...), mtu); err != nil {
		t.Fatal(err)
	}
}
