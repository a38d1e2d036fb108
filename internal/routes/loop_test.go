package routes

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// addRoute adds a route of the host's own, by a gateway or without one.
func (h *host) addRoute(table int, dst, link, gateway string) {
	h.Helper()
	h.do(func() error {
		l, err := netlink.LinkByName(link)
		if err != nil {
			return err
		}
		prefix, err := netlink.ParseIPNet(dst)
		if err != nil {
			return err
		}
		r := &netlink.Route{Table: table, LinkIndex: l.Attrs().Index, Dst: prefix}
		if gateway != "" {
			r.Gw = netip.MustParseAddr(gateway).AsSlice()
		}
		return netlink.RouteAdd(r)
	})
}

// A route into the TUN that somebody made by hand does not bring back what the
// daemon sends; its other routes do as ever.
func TestMarkedNeverToTUN(t *testing.T) {
	h := newWiredHost(t)
	h.addRoute(unix.RT_TABLE_MAIN, "10.9.0.0/24", "ipsec0", "")
	h.addRoute(unix.RT_TABLE_MAIN, "fd00:9::/64", "ipsec0", "")
	h.addRoute(unix.RT_TABLE_MAIN, "10.9.0.8/32", "wire", "192.0.2.253")
	h.addRoute(unix.RT_TABLE_MAIN, "10.8.0.0/16", "wire", "192.0.2.253")
	h.addRoute(unix.RT_TABLE_DEFAULT, "10.9.0.16/28", "wire", "192.0.2.252")
	m := h.start(Config{Link: "ipsec0", NATTPort: 4500})

	unreachable := unix.ENETUNREACH.Error()
	h.wantWay("10.9.0.1", 0, "ipsec0 192.0.2.1")
	h.wantWay("10.9.0.1", testMark, unreachable) // in spite of the default route
	h.wantWay("fd00:9::1", 0, "ipsec0 2001:db8::1")
	h.wantWay("fd00:9::1", testMark, unreachable)
	for _, mark := range []uint32{0, testMark} {
		h.wantWay("10.9.0.8", mark, "wire 192.0.2.1 via 192.0.2.253")
		h.wantWay("10.8.0.1", mark, "wire 192.0.2.1 via 192.0.2.253")
		h.wantWay("198.51.100.1", mark, "wire 192.0.2.1 via 192.0.2.254")
		h.wantWay("2001:db8:9::1", mark, "wire 2001:db8::1 via 2001:db8::fe")
		h.wantWay("192.0.2.7", mark, "wire 192.0.2.1")
		h.wantWay("192.0.2.1", mark, "lo 192.0.2.1")
	}
	// The default table has its say after the main one.
	h.wantWay("10.9.0.17", testMark, "wire 192.0.2.1 via 192.0.2.252")

	// The same protected: by our table into the TUN, and not back.
	h.apply(m, []Route{protected("192.0.2.1/32", "10.9.0.0/24"), protected("192.0.2.1/32", "10.8.0.0/16")})
	h.wantWay("10.9.0.1", testMark, unreachable)
	h.wantWay("10.8.0.1", 0, "ipsec0 192.0.2.1")
	h.wantWay("10.8.0.1", testMark, "wire 192.0.2.1 via 192.0.2.253")

	if err := m.Close(); err != nil {
		t.Error(err)
	}
	h.wantWay("10.9.0.1", testMark, "ipsec0 192.0.2.1")
	h.wantWay("10.8.0.1", testMark, "wire 192.0.2.1 via 192.0.2.253")
}

// The host's own policy routing comes before, at whatever priority up to ours.
func TestMarkedByHostPolicy(t *testing.T) {
	h := newWiredHost(t)
	h.addRoute(1234, "10.8.0.0/16", "wire", "192.0.2.253")
	h.addRoute(1235, "10.7.0.0/16", "wire", "192.0.2.252")
	h.do(func() error {
		for priority, table := range map[int]int{20000: 1234, lastPriority: 1235} {
			r := netlink.NewRule()
			r.Priority, r.Table = priority, table
			if err := netlink.RuleAdd(r); err != nil {
				return err
			}
		}
		return nil
	})
	m := h.start(Config{Link: "ipsec0"})
	h.apply(m, []Route{protected("192.0.2.1/32", "10.0.0.0/8")})
	h.wantWay("10.8.0.1", testMark, "wire 192.0.2.1 via 192.0.2.253")
	h.wantWay("10.7.0.1", testMark, "wire 192.0.2.1 via 192.0.2.252")
	h.wantWay("10.6.0.1", testMark, "wire 192.0.2.1 via 192.0.2.254")
}

// Of the rules that share a priority a Close that was cut short leaves some: the
// next instance brings them into their order.
func TestLeftoversOutOfOrder(t *testing.T) {
	h := newWiredHost(t)
	killed := h.start(Config{Link: "ipsec0"})
	kill(t, killed)
	h.do(func() error {
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			r := netlink.NewRule()
			r.Family, r.Priority, r.Table = family, lastPriority, unix.RT_TABLE_MAIN
			if err := netlink.RuleDel(r); err != nil {
				return err
			}
		}
		return nil
	})
	h.wantWay("198.51.100.1", testMark, unix.ENETUNREACH.Error())
	h.start(Config{Link: "ipsec0"})
	h.wantWay("198.51.100.1", testMark, "wire 192.0.2.1 via 192.0.2.254")
	h.wantWay("2001:db8:9::1", testMark, "wire 2001:db8::1 via 2001:db8::fe")
}

func TestLinkGroup(t *testing.T) {
	h := newWiredHost(t)
	group := func() (g uint32) {
		h.setLink("ipsec0", func(l netlink.Link) error {
			g = l.Attrs().Group
			return nil
		})
		return g
	}
	h.setLink("ipsec0", func(l netlink.Link) error { return netlink.LinkSetGroup(l, 7) })
	m := h.start(Config{Link: "ipsec0"})
	if got := group(); got != linkGroup {
		t.Errorf("group %d, want %d", got, linkGroup)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if got := group(); got != 7 {
		t.Errorf("group %d after Close, want 7 as before", got)
	}
}

// The TUN may be gone before Close.
func TestCloseWithoutTUN(t *testing.T) {
	h := newWiredHost(t)
	bare := len(h.rules())
	remove := h.tun("ipsec1")
	h.do(func() error { return SetupLink("ipsec1", 1400, nil, 0, 0) })
	m := h.start(Config{Link: "ipsec1"})
	h.apply(m, []Route{protected("192.0.2.1/32", "10.2.0.0/16")})
	remove()
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if got := len(h.rules()); got != bare {
		t.Errorf("%d rules after Close, want %d", got, bare)
	}
}
