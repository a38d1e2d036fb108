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
	h.wantWay("10.2.0.9", testMark, "wire 192.0.2.1")
	h.wantWay("10.2.9.9", 0, "wire 192.0.2.1")
	h.wantWay("10.4.0.9", 0, "wire 192.0.2.1")
	h.wantWay("10.1.0.1", 0, "lo 10.1.0.1")
	h.wantWay("fd00:2::9", 0, "ipsec0 fd00:1::1")
	h.wantWay("fd00:2::9", testMark, "wire 2001:db8::1")

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
	h.wantWay("10.2.0.9", 0, "wire 192.0.2.1")
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
		all, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: DefaultTable}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return err
		}
		return netlink.RouteDel(&all[0])
	})
	h.apply(m, want)
	h.wantTable("10.2.0.0/16 dev ipsec0 src 192.0.2.1", "10.3.0.0/16 dev ipsec0 src 192.0.2.1")
	for _, kind := range []uint16{unix.RTM_DELROUTE, unix.RTM_NEWROUTE} {
		if u := <-updates; u.Type != kind || u.Dst.String() != "10.2.0.0/16" {
			t.Errorf("message type %d about %v, want %d about the removed route", u.Type, u.Dst, kind)
		}
	}
	h.apply(m, want[1:])
	if u := <-updates; u.Type != unix.RTM_DELROUTE || u.Dst.String() != "10.2.0.0/16" {
		t.Errorf("message type %d about %v, want the end of the removed policy's route", u.Type, u.Dst)
	}
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
	h.wantWay("198.51.100.1", testMark, "wire 192.0.2.1")
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
	h.do(func() error {
		link, err := netlink.LinkByName("ipsec0")
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(link)
	})
	err := m.Apply([]Route{protected("10.1.0.0/16", "10.2.0.0/16"), protected("10.1.0.0/16", "10.3.0.0/16")}, nil)
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
	}, prefixes("fd00::/8", "10.2.0.0/16", "10.2.0.0/24"), local)
	want := map[place]target{
		{netip.MustParsePrefix("10.2.0.0/16"), metric}:        {unix.RTN_UNICAST, local[1]},
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
