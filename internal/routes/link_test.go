package routes

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestSetupLink(t *testing.T) {
	h := newHost(t, "host")
	h.tun("ipsec0")
	addrs := prefixes("10.0.0.1/24", "fd00::1/64")
	for range 2 { // again is harmless
		h.do(func() error { return SetupLink("ipsec0", 1337, addrs, 48000, 33) })
	}
	h.do(func() error {
		link, err := netlink.LinkByName("ipsec0")
		if err != nil {
			return err
		}
		a := link.Attrs()
		if a.MTU != 1337 || a.GSOMaxSize != 48000 || a.GSOIPv4MaxSize != 48000 || a.GSOMaxSegs != 33 || a.Flags&net.FlagUp == 0 {
			t.Errorf("MTU %d, GSO %d/%d octets, %d segments, flags %v",
				a.MTU, a.GSOMaxSize, a.GSOIPv4MaxSize, a.GSOMaxSegs, a.Flags)
		}
		have, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		var got []string
		for _, a := range have {
			got = append(got, a.IPNet.String())
			if a.Flags&unix.IFA_F_TENTATIVE != 0 {
				t.Errorf("%s is not ready", a.IPNet)
			}
		}
		if want := []string{"10.0.0.1/24", "fd00::1/64"}; !slices.Equal(got, want) {
			t.Errorf("addresses %v, want %v and none that the kernel made up", got, want)
		}
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL,
			&netlink.Route{LinkIndex: a.Index, Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
		if err != nil {
			return err
		}
		if len(routes) > 0 {
			t.Errorf("routes into the TUN that no policy asked for: %v", routes)
		}
		return nil
	})
	h.wantRPFilter("ipsec0", 0)
}

// A TUN without an IPv4 address of its own gets none where nothing is filtered.
func TestNoBareAddr(t *testing.T) {
	h := newWiredHost(t)
	h.do(func() error { return SetupLink("ipsec0", 1400, nil, 0, 0) })
	h.do(func() error { return KeepAddrs("ipsec0", nil) })
	h.setLink("ipsec0", func(link netlink.Link) error {
		addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
		if len(addrs) > 0 {
			t.Errorf("addresses %v", addrs)
		}
		return err
	})
}

// Where filtering cannot be switched off it gets one that nobody sees: it is no
// source, leads nowhere, and comes back when it is lost.
func TestBareAddr(t *testing.T) {
	h := newWiredHost(t)
	h.setRPFilter("all", rpLoose)
	for _, addrs := range [][]netip.Prefix{nil, prefixes("fd00::1/64")} {
		h.do(func() error { return SetupLink("ipsec0", 1400, addrs, 0, 0) })
		h.setLink("ipsec0", func(link netlink.Link) error {
			addr := &netlink.Addr{IPNet: netlink.NewIPNet(bareAddr.Addr().AsSlice())}
			if err := netlink.AddrDel(link, addr); err != nil {
				return err
			}
			return KeepAddrs("ipsec0", addrs)
		})
	}
	m := h.start(Config{Link: "ipsec0"})
	h.apply(m, []Route{protected("0.0.0.0/0", "10.2.0.0/16")})
	h.do(func() error {
		local, err := m.localAddrs()
		if err != nil {
			return err
		}
		if slices.Contains(local, bareAddr.Addr()) {
			t.Errorf("it is among the sources: %v", local)
		}
		tun, err := netlink.LinkByName("ipsec0")
		if err != nil {
			return err
		}
		for _, dst := range []net.IP{{10, 2, 0, 1}, {10, 3, 0, 1}, {127, 0, 0, 1}} {
			for _, oif := range []string{"", "ipsec0"} {
				got, err := netlink.RouteGetWithOptions(dst, &netlink.RouteGetOptions{Oif: oif})
				if err != nil {
					return err
				}
				if src, _ := netip.AddrFromSlice(got[0].Src); src.Unmap() == bareAddr.Addr() {
					t.Errorf("it is the source of packets to %v by %q", dst, oif)
				}
			}
		}
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{LinkIndex: tun.Attrs().Index, Table: unix.RT_TABLE_MAIN},
			netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
		if err != nil || len(routes) > 0 {
			t.Errorf("routes into the TUN %v, error %v", routes, err)
		}
		return nil
	})
}

func TestSetupLinkErrors(t *testing.T) {
	h := newHost(t, "host")
	h.tun("ipsec0")
	tests := []struct {
		name    string
		link    string
		mtu     int
		addrs   []netip.Prefix
		gsoSize int
		want    string
	}{
		{"no link", "nolink", 1400, nil, 0, "link nolink: "},
		{"mtu", "ipsec0", 1 << 30, nil, 0, "link ipsec0: MTU 1073741824: "},
		{"gso", "ipsec0", 1400, nil, 1 << 30, "link ipsec0: gso_max_size 1073741824: "},
		{"small for IPv6", "ipsec0", 1000, prefixes("10.0.0.1/24", "fd00::1/64"), 0,
			"link ipsec0: address fd00::1/64: IPv6 needs an MTU of at least 1280, and the TUN's is 1000"},
		{"address", "ipsec0", 1400, prefixes("ff02::1/64"), 0, "link ipsec0: address ff02::1/64: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := h.ns.Do(func() error { return SetupLink(tt.link, tt.mtu, tt.addrs, tt.gsoSize, 0) })
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestSetupLinkSmall(t *testing.T) {
	h := newHost(t, "host")
	h.tun("ipsec0")
	h.tun("ipsec1")
	h.do(func() error { return SetupLink("ipsec0", 576, prefixes("10.0.0.1/24"), 0, 0) })
	h.do(func() error { return SetupLink("ipsec1", 1280, prefixes("fd00::1/64"), 0, 0) })
}

func TestSetupLinkIPv6Off(t *testing.T) {
	h := newHost(t, "host")
	h.tun("ipsec0")
	h.do(func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/ipsec0/disable_ipv6", []byte("1"), 0o644) })
	err := h.ns.Do(func() error { return SetupLink("ipsec0", 1400, prefixes("fd00::1/64"), 0, 0) })
	if err == nil || !strings.Contains(err.Error(), "sysctl net.ipv6.conf.ipsec0.disable_ipv6=0") {
		t.Errorf("got %v, want what to do", err)
	}
	h.do(func() error { return SetupLink("ipsec0", 1400, prefixes("10.0.0.1/32"), 0, 0) })
}

func TestMTU(t *testing.T) {
	h := newWiredHost(t)
	m := h.start(Config{Link: "ipsec0"})
	h.apply(m, []Route{protected("10.1.0.0/16", "10.2.0.0/16"), protected("fd00:1::/64", "fd00:2::/64")})
	h.do(func() error {
		if err := SetMTU("ipsec0", 1300); err != nil {
			return err
		}
		if err := SetMTU("nolink", 1300); err == nil || !strings.Contains(err.Error(), "link nolink: ") {
			t.Errorf("MTU of no link: %v", err)
		}
		wire, err := netlink.LinkByName("wire")
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{
			Dst:       netlink.NewIPNet(net.IPv4(10, 2, 0, 77)),
			LinkIndex: wire.Attrs().Index, MTU: 1234,
		})
	})
	tests := []struct {
		dst  string
		mark uint32
		want int
	}{
		{"10.2.0.1", 0, 1300},
		{"10.2.0.1", testMark, 1500},
		{"::ffff:10.2.0.1", testMark, 1500},
		{"fd00:2::1", 0, 1300},
		{"fd00:2::1", testMark, 1500},
		{"10.2.0.77", testMark, 1234},
		{"10.2.0.77", 0, 1300},
	}
	for _, tt := range tests {
		h.do(func() error {
			got, err := PathMTU(netip.MustParseAddr(tt.dst), tt.mark, "")
			if got != tt.want {
				t.Errorf("to %s with mark %#x: %d, want %d", tt.dst, tt.mark, got, tt.want)
			}
			if err != nil {
				return err
			}
			_, err = PathMTU(netip.MustParseAddr(tt.dst), tt.mark, "ipsec0")
			if own := tt.mark == 0; errors.Is(err, ErrOwnTUN) != own || !own && err != nil {
				t.Errorf("to %s with mark %#x: error %v", tt.dst, tt.mark, err)
			}
			return nil
		})
	}
}

func TestPathMTUWithoutRoute(t *testing.T) {
	h := newHost(t, "host")
	h.do(func() error {
		if _, err := PathMTU(netip.MustParseAddr("198.51.100.1"), 0, ""); err == nil || !strings.Contains(err.Error(), "198.51.100.1") {
			return fmt.Errorf("no route: %v", err)
		}
		return nil
	})
}
