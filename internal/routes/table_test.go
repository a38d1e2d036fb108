package routes

import (
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestApply(t *testing.T) {
	h := newWiredHost(t)
	h.link("lan", "10.1.0.1/24", "fd00:1::1/64")
	m := h.start(Config{Link: "ipsec0"})

	h.apply(m, []Route{
		protected("10.1.0.0/16", "10.2.0.0/16"),
		protected("10.7.0.0/16", "10.3.0.0/16"), // not from here: forwarded
		protected("10.1.0.0/24", "10.3.0.0/16"), // the first with a local address
		protected("192.0.2.0/24", "10.3.0.0/16"),
		protected("fd00:1::/64", "fd00:2::/64"),
		protected("::ffff:0:0/96", "::ffff:0:0/96"), // does not travel
	}, "10.2.9.0/24", "10.3.0.0/16")
	h.wantTable(
		"10.2.0.0/16 dev ipsec0 src 10.1.0.1",
		"10.3.0.0/16 dev ipsec0 src 10.1.0.1",
		"fd00:2::/64 dev ipsec0 src fd00:1::1",
		"throw 10.2.9.0/24")

	h.wantWay("10.2.0.9", 0, "ipsec0 10.1.0.1")
	h.wantWay("10.2.0.9", testMark, "wire 192.0.2.1 via 192.0.2.254")
	h.wantWay("10.2.9.9", 0, "wire 192.0.2.1 via 192.0.2.254")
	h.wantWay("10.4.0.9", 0, "wire 192.0.2.1 via 192.0.2.254")
	h.wantWay("10.1.0.1", 0, "lo 10.1.0.1")
	h.wantWay("fd00:2::9", 0, "ipsec0 fd00:1::1")
	h.wantWay("fd00:2::9", testMark, "wire 2001:db8::1 via 2001:db8::fe")

	// One goes, one comes, one changes its source, one stays.
	h.apply(m, []Route{
		protected("10.1.0.0/16", "10.2.0.0/16"),
		protected("192.0.2.0/24", "10.3.0.0/16"),
		protected("2001:db8::/64", "fd00:2::/64"),
		protected("10.1.0.0/16", "10.4.0.0/16"),
	})
	h.wantTable(
		"10.2.0.0/16 dev ipsec0 src 10.1.0.1",
		"10.3.0.0/16 dev ipsec0 src 192.0.2.1",
		"10.4.0.0/16 dev ipsec0 src 10.1.0.1",
		"fd00:2::/64 dev ipsec0 src 2001:db8::1")
	h.wantWay("10.2.9.9", 0, "ipsec0 10.1.0.1")

	if err := m.Close(); err != nil {
		t.Error(err)
	}
	h.wantTable()
	h.wantWay("10.2.0.9", 0, "wire 192.0.2.1 via 192.0.2.254")
}

// IPv4 alone gets an MTU of its own, which goes again.
func TestApplyMTU(t *testing.T) {
	h := newWiredHost(t)
	m := h.start(Config{Link: "ipsec0", Guard: true})
	protect := []Route{protected("192.0.2.1/32", "10.2.0.0/16"), protected("2001:db8::1/128", "fd00:2::/64")}
	for _, mtu4 := range []int{1246, 1100, 0} {
		if err := m.Apply(protect, prefixes("10.2.9.0/24"), mtu4); err != nil {
			t.Fatal(err)
		}
		h.wantTable("10.2.0.0/16 dev ipsec0 src 192.0.2.1", "unreachable 10.2.0.0/16", "throw 10.2.9.0/24",
			"fd00:2::/64 dev ipsec0 src 2001:db8::1", "unreachable fd00:2::/64")
		want := map[string]int{"10.2.0.1": 1400, "fd00:2::1": 1400}
		if mtu4 != 0 {
			want["10.2.0.1"] = mtu4
		}
		h.do(func() error {
			for dst, mtu := range want {
				got, err := PathMTU(netip.MustParseAddr(dst), 0, "")
				if err != nil || got != mtu {
					t.Errorf("to %s: %d, %v, want %d", dst, got, err, mtu)
				}
			}
			return nil
		})
	}
	if err := m.Apply(protect, nil, 1246); err != nil {
		t.Fatal(err)
	}
	h.apply(m, nil)
	h.wantTable()
}

// What stays is left alone, and what somebody removed comes back.
func TestApplyRepairs(t *testing.T) {
	h := newWiredHost(t)
	m := h.start(Config{Link: "ipsec0"})
	want := []Route{protected("192.0.2.1/32", "10.2.0.0/16"), protected("192.0.2.1/32", "10.3.0.0/16")}
	h.apply(m, want)

	updates, done := make(chan netlink.RouteUpdate, 16), make(chan struct{})
	defer close(done)
	h.do(func() error {
		if err := netlink.RouteSubscribe(updates, done); err != nil {
			return err
		}
		all, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return err
		}
		return netlink.RouteDel(&all[0])
	})
	h.apply(m, want)
	h.wantTable("10.2.0.0/16 dev ipsec0 src 192.0.2.1", "10.3.0.0/16 dev ipsec0 src 192.0.2.1")
	for _, kind := range []uint16{unix.RTM_DELROUTE, unix.RTM_NEWROUTE} {
		if u := next(updates); u.Type != kind || u.Dst.String() != "10.2.0.0/16" {
			t.Errorf("message type %d about %v, want %d about the removed route", u.Type, u.Dst, kind)
		}
	}
	h.apply(m, want[1:])
	if u := next(updates); u.Type != unix.RTM_DELROUTE || u.Dst.String() != "10.2.0.0/16" {
		t.Errorf("message type %d about %v, want the end of the removed policy's route", u.Type, u.Dst)
	}
}

// next returns the next message about our table.
func next(updates <-chan netlink.RouteUpdate) netlink.RouteUpdate {
	for {
		if u := <-updates; u.Table == table {
			return u
		}
	}
}

// A TUN that goes down loses its routes; once it is up Apply makes them again.
func TestTUNDownAndUp(t *testing.T) {
	h := newWiredHost(t)
	m := h.start(Config{Link: "ipsec0", Guard: true})
	protect := []Route{protected("192.0.2.1/32", "10.2.0.0/16"), protected("2001:db8::1/128", "fd00:2::/64")}
	guards := []string{"unreachable 10.2.0.0/16", "unreachable fd00:2::/64"}
	complete := append([]string{"10.2.0.0/16 dev ipsec0 src 192.0.2.1", "fd00:2::/64 dev ipsec0 src 2001:db8::1"}, guards...)
	h.apply(m, protect)
	h.wantTable(complete...)

	h.setLink("ipsec0", netlink.LinkSetDown)
	h.wantTable(guards...)
	h.wantWay("10.2.0.9", 0, unix.EHOSTUNREACH.Error())
	if err := m.Apply(protect, nil, 0); !errors.Is(err, unix.ENETDOWN) {
		t.Errorf("Apply while the link is down: %v", err)
	}
	h.wantTable(guards...)

	h.setLink("ipsec0", netlink.LinkSetUp)
	for range 2 {
		h.apply(m, protect)
		h.wantTable(complete...)
	}
	h.wantWay("10.2.0.9", 0, "ipsec0 192.0.2.1")
	h.wantWay("fd00:2::9", 0, "ipsec0 2001:db8::1")
}

// The link-scoped destinations stay on their links though everything else is
// protected, unless they are themselves.
func TestEverythingProtected(t *testing.T) {
	h := newWiredHost(t)
	m := h.start(Config{Link: "ipsec0"})
	h.apply(m, []Route{protected("0.0.0.0/0", "0.0.0.0/0"), protected("::/0", "::/0"), protected("::/0", "ff00::/8")})
	h.wantTable(
		"0.0.0.0/0 dev ipsec0 src 192.0.2.1",
		"::/0 dev ipsec0 src 2001:db8::1",
		"ff00::/8 dev ipsec0 src 2001:db8::1",
		"throw 224.0.0.0/4",
		"throw 255.255.255.255/32",
		"throw fe80::/10")
	h.wantWay("198.51.100.1", 0, "ipsec0 192.0.2.1")
	h.wantWay("198.51.100.1", testMark, "wire 192.0.2.1 via 192.0.2.254")
	h.wantWay("192.0.2.7", 0, "ipsec0 192.0.2.1")
	h.wantWay("224.0.0.5", 0, "wire 192.0.2.1")
	h.do(func() error { return dropDefault(netlink.FAMILY_V4) })
	h.wantWay("198.51.100.1", 0, "ipsec0 192.0.2.1")
	h.wantWay("198.51.100.1", testMark, unix.ENETUNREACH.Error())
	h.wantWay("2001:db8::7", 0, "ipsec0 2001:db8::1")
}

// The TUN's own address is preferred, whatever its index.
func TestSourceOnTUN(t *testing.T) {
	h := newHost(t, "host")
	h.link("first", "10.1.0.1/24", "fd00:1::1/64")
	h.tun("ipsec0")
	h.do(func() error { return SetupLink("ipsec0", 1400, prefixes("10.1.0.9/32", "fd00:1::9/128"), 0, 0) })
	m := h.start(Config{Link: "ipsec0"})
	h.apply(m, []Route{protected("10.1.0.0/24", "10.2.0.0/16"), protected("fd00:1::/64", "fd00:2::/64")})
	h.wantTable("10.2.0.0/16 dev ipsec0 src 10.1.0.9", "fd00:2::/64 dev ipsec0 src fd00:1::9")
}

func TestRouteErrors(t *testing.T) {
	h := newWiredHost(t)
	m := h.start(Config{Link: "ipsec0"})
	h.setLink("ipsec0", netlink.LinkSetDown)
	err := m.Apply([]Route{protected("10.1.0.0/16", "10.2.0.0/16"), protected("10.1.0.0/16", "10.3.0.0/16")}, nil, 0)
	if !errors.Is(err, unix.ENETDOWN) || !strings.Contains(err.Error(), "(and 1 more)") {
		t.Errorf("got %v, want two failures for a link that is down", err)
	}
}

// The layout of the table, without a kernel.
func TestPlan(t *testing.T) {
	m := &Manager{cfg: Config{Guard: true}, families: []int{unix.AF_INET}}
	m.cfg.Log = slog.New(slog.DiscardHandler)
	local := localAddrs{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.1.0.2")}
	got := m.plan([]Route{
		protected("10.1.0.2/32", "10.2.0.0/16"),
		protected("fd00::/8", "fd00::/8"), // a family the kernel has not
		protected("10.3.0.0/16", "224.0.0.0/3"),
	}, prefixes("fd00::/8", "10.2.0.0/16", "10.2.0.0/24"), 0, local)
	want := map[place]target{
		{netip.MustParsePrefix("10.2.0.0/16"), metric}:        {kind: unix.RTN_UNICAST, src: local[1]},
		{netip.MustParsePrefix("10.2.0.0/16"), guardMetric}:   {kind: unix.RTN_UNREACHABLE},
		{netip.MustParsePrefix("224.0.0.0/3"), metric}:        {kind: unix.RTN_UNICAST},
		{netip.MustParsePrefix("224.0.0.0/3"), guardMetric}:   {kind: unix.RTN_UNREACHABLE},
		{netip.MustParsePrefix("224.0.0.0/4"), metric}:        {kind: unix.RTN_THROW},
		{netip.MustParsePrefix("255.255.255.255/32"), metric}: {kind: unix.RTN_THROW},
		{netip.MustParsePrefix("10.2.0.0/24"), metric}:        {kind: unix.RTN_THROW},
	}
	if !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}
