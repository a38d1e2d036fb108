package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// offloadTunnels are the forms of ESP that differ in how the wire takes trains.
var offloadTunnels = []tunnel{tunnels[0], tunnels[2], tunnels[4], tunnels[6]}

const some = 6 << 20 // octets of a transfer

// TCP comes over whole both ways, in each form of ESP and whatever the hosts'
// devices offload.
func TestOffloadTCP(t *testing.T) {
	a, b := newPair(t)
	startTunnels(a, b, offloadTunnels...)
	atA, atB := tapTUN(t, a), tapTUN(t, b)
	for _, tt := range []struct {
		name     string
		device   string
		switches []uint32
		trains   bool // the host hands over more than a packet at a time
	}{
		{"all on", tunName, nil, true},
		{"no TSO on the TUN", tunName, []uint32{tso}, false},
		{"no GSO on the TUN", tunName, []uint32{gso}, true}, // the device's TSO is another switch
		{"no checksums on the TUN", tunName, []uint32{txChecksum}, false},
		{"no scatter-gather on the TUN", tunName, []uint32{scatter}, false},
		{"no GRO on the TUN", tunName, []uint32{gro}, true},
		{"nothing on the TUN", tunName, []uint32{tso, gso, gro, txChecksum, scatter}, false},
		{"nothing on the wire", wireName, []uint32{tso, gso, gro, txChecksum, scatter}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, h := range []*host{a, b} {
				ethtool(h, tt.device, false, tt.switches...)
			}
			for _, tun := range offloadTunnels {
				transfer(t, a, b, tun.innerA, tun.innerB, some/4, nil)
				transfer(t, b, a, tun.innerB, tun.innerA, some/4, nil)
			}
			for _, p := range []*tap{atA, atB} {
				if sent, got := p.longest(); sent > 1500 != tt.trains || got <= 1500 {
					t.Errorf("the longest packet sent has %d octets, the longest received %d", sent, got)
				}
			}
			for _, h := range []*host{a, b} { // in the other order: each needs the one before
				for i := range tt.switches {
					ethtool(h, tt.device, true, tt.switches[len(tt.switches)-1-i])
				}
			}
		})
	}
}

// Connections of any segment size, and one whose segments shrink and grow on the
// way, as the path's MTU does.
func TestOffloadMSS(t *testing.T) {
	a, b := newPair(t)
	tun, tun6 := tunnels[2], tunnels[4]
	startTunnels(a, b, tun, tun6)
	for _, mss := range []int{88, 536, 999, 1220} {
		t.Run(fmt.Sprint(mss), func(t *testing.T) {
			for _, tun := range []tunnel{tun, tun6} {
				transferMSS(t, a, b, tun, mss, int64(mss)*2000+7)
			}
		})
	}
	t.Run("of the route", func(t *testing.T) {
		b.must("ip", "route", "replace", tun.innerA, "dev", tunName, "table", "26992", "advmss", "700", "src", tun.innerB)
		transfer(t, a, b, tun.innerA, tun.innerB, some/4, nil)
	})
}

// The segments of a connection shrink and grow on the way, as the path's MTU does.
func TestOffloadMSSChanges(t *testing.T) {
	a, b := newPair(t)
	tun := tunnels[2]
	startTunnels(a, b, tun)
	mtu := func() string {
		out, _ := a.run("ip", "-o", "link", "show", tunName)
		return regexp.MustCompile(`mtu \d+`).FindString(out)
	}
	path := func(verb string, args ...string) {
		t.Helper()
		before := mtu()
		a.must("ip", append([]string{"route", verb, "198.51.100.2", "dev", wireName}, args...)...)
		a.eventually("at another "+before, func() bool { return mtu() != before })
	}
	transfer(t, a, b, tun.innerA, tun.innerB, some, func(part int) {
		switch part {
		case 3:
			path("add", "mtu", "1100")
		case 7:
			path("change", "mtu", "1400")
		case 11:
			path("del")
		}
	})
}

// transferMSS sends n octets in segments of at most mss.
func transferMSS(t *testing.T, a, b *host, tun tunnel, mss int, n int64) {
	t.Helper()
	got := make(chan digest, 1)
	l, err := b.ns.Listen("tcp", net.JoinHostPort(tun.innerB, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { got <- digestOf(l) }()
	var c net.Conn
	err = a.ns.Do(func() (err error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: netip.MustParseAddr(tun.innerA).AsSlice()}, Timeout: patience,
			Control: func(_, _ string, raw syscall.RawConn) (err error) {
				raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, mss) })
				return err
			}}
		c, err = d.Dial("tcp", l.Addr().String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	want := send(t, c, n)
	if d := <-got; d != want {
		t.Errorf("%s: %d of %d octets arrived, SHA-256 equal: %v, %v", tun.name, d.n, n, d.sum == want.sum, d.err)
	}
}
