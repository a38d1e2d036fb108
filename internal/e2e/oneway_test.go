package e2e

import (
	"fmt"
	"net"
	"testing"
	"time"
)

// What comes out of an SA is taken though its source is not routed into the TUN,
// which has no address of ours: the answers of a pair of SAs of which one end uses
// but the one, and a tunnel whose other end answers in clear.
func TestOneDirectionInClear(t *testing.T) {
	for rpFilter := range 3 {
		for _, tr := range []transport{
			{"IPv4", rpFilter, own4A, own4B, "", gcm, ""}, {"IPv6", rpFilter, own6A, own6B, "", gcm, ""},
		} {
			t.Run(fmt.Sprintf("transport %s rp_filter %d", tr.name, rpFilter), func(t *testing.T) {
				t.Parallel()
				a, b := newPair(t)
				a.setRPFilters(rpFilter)
				b.setRPFilters(rpFilter)
				startTransport(a, b, tr)
				a.mustSetkey("-f", a.file("none.conf", fmt.Sprintf("spdupdate %s %s any -P out none;\n", tr.a, tr.b)))
				if !ping(t, a, tr.a, tr.b) || !ping(t, b, tr.b, tr.a) || !ask(t, a, b, tr.a, tr.b, patience) {
					t.Errorf("no answer; logs:\n%s\n%s", a.log, b.log)
				}
			})
		}
		t.Run(fmt.Sprintf("tunnel rp_filter %d", rpFilter), func(t *testing.T) {
			t.Parallel()
			a, b, tun := newOneWay(t, rpFilter)
			b.must("ip", "route", "add", tun.innerA, "via", tun.outerA)
			if !ping(t, a, tun.innerA, tun.innerB) || !ask(t, a, b, tun.innerA, tun.innerB, patience) {
				t.Errorf("no answer; logs:\n%s\n%s", a.log, b.log)
			}
		})
	}
}

// Where a host filters nothing by reverse path, neither does the TUN; and where it
// begins to, the TUN does not filter strictly.
func TestTUNFilterFollows(t *testing.T) {
	a, b, tun := newOneWay(t, 0)
	server := packetConn(t, b, net.JoinHostPort(tun.innerB, "9"))
	defer server.Close()
	client := packetConn(t, a, net.JoinHostPort(tun.innerA, "0"))
	defer client.Close()
	client.WriteTo([]byte("from nowhere"), server.LocalAddr())
	server.SetReadDeadline(time.Now().Add(patience))
	if _, _, err := server.ReadFrom(make([]byte, 100)); err != nil {
		t.Errorf("from a source without a route: %v", err)
	}
	b.must("ip", "route", "add", tun.innerA, "via", tun.outerA)
	for _, step := range []struct {
		all  int
		want string
	}{{1, "2"}, {2, "0"}, {1, "2"}, {0, "0"}} {
		b.setRPFilter("all", step.all)
		b.eventually(fmt.Sprintf("filtering by %s with %d for all", step.want, step.all), func() bool {
			return b.rpFilter("tun0") == step.want
		})
		if !ask(t, a, b, tun.innerA, tun.innerB, patience) {
			t.Errorf("no answer with %d for all", step.all)
		}
	}
	b.must("ip", "addr", "flush", "dev", "tun0")
	b.setRPFilter("all", 1)
	b.eventually("answering without any address on the TUN", func() bool {
		return ask(t, a, b, tun.innerA, tun.innerB, 500*time.Millisecond)
	})
}

// newOneWay makes hosts of which A protects what it says to B and B nothing. Their
// inner addresses are on the loopback device. Only B filters: A would not take an
// answer in clear.
func newOneWay(t *testing.T, rpFilter int) (a, b *host, tun tunnel) {
	t.Helper()
	tun = tunnels[0]
	a, b = newPair(t)
	b.setRPFilters(rpFilter)
	a.must("ip", "addr", "add", tun.innerA, "dev", "lo")
	b.must("ip", "addr", "add", tun.innerB, "dev", "lo")
	a.start("-f", a.file("setkey.conf", script("A", tun)))
	b.start("-f", b.file("setkey.conf", script("B", tun)+"spdflush;\n"))
	return a, b, tun
}
