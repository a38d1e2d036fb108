package routes

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ipsecd/internal/netns"
)

const testMark = 0x1b5ec

// host is a namespace under test.
type host struct {
	*testing.T
	ns   *netns.NS
	tuns map[string]*os.File
}

func newHost(t *testing.T, name string) *host {
	t.Helper()
	netns.Need(t)
	ns, err := netns.New(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return &host{t, ns, map[string]*os.File{}}
}

// do runs fn inside the namespace and ends the test on its error.
func (h *host) do(fn func() error) {
	h.Helper()
	if err := h.ns.Do(fn); err != nil {
		h.Fatal(err)
	}
}

// link makes a link with addresses, up: a TUN as well, which every kernel that
// can run this has.
func (h *host) link(name string, addrs ...string) {
	h.Helper()
	h.tun(name)
	h.do(func() error {
		if err := SetupLink(name, 1500, nil, 0, 0); err != nil {
			return err
		}
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			addr, err := netlink.ParseAddr(a)
			if err != nil {
				return err
			}
			addr.Flags = unix.IFA_F_NODAD
			if err := netlink.AddrAdd(link, addr); err != nil {
				return err
			}
		}
		return nil
	})
}

// tun makes a TUN link, as down as it is born, and returns what removes it.
func (h *host) tun(name string) (remove func()) {
	h.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	tun := &netlink.Tuntap{
		LinkAttrs: attrs, Mode: netlink.TUNTAP_MODE_TUN, Flags: netlink.TUNTAP_NO_PI, NonPersist: true, Queues: 1,
	}
	h.do(func() error { return netlink.LinkAdd(tun) })
	h.tuns[name] = tun.Fds[0]
	h.Cleanup(func() { tun.Fds[0].Close() })
	return func() {
		h.Helper()
		h.setLink(name, netlink.LinkDel)
	}
}

func (h *host) setLink(name string, set func(netlink.Link) error) {
	h.Helper()
	h.do(func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return set(link)
	})
}

// start makes a manager with the mark and otherwise cfg, closed with the test.
func (h *host) start(cfg Config) (m *Manager) {
	h.Helper()
	cfg.Mark = testMark
	h.do(func() (err error) {
		m, err = New(cfg)
		return err
	})
	h.Cleanup(func() { m.Close() })
	return m
}

// kill ends a manager as the death of its process would.
func kill(t *testing.T, m *Manager) {
	t.Helper()
	if err := m.release(); err != nil {
		t.Fatal(err)
	}
}

func (h *host) rules() (all []netlink.Rule) {
	h.Helper()
	h.do(func() (err error) {
		all, err = netlink.RuleList(netlink.FAMILY_ALL)
		return err
	})
	return all
}

// table lists the routes of our table in a form of this test's own.
func (h *host) table() []string {
	h.Helper()
	var lines []string
	h.do(func() error {
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
			if err != nil {
				return err
			}
			for i := range routes {
				line, err := show(&routes[i])
				if err != nil {
					return err
				}
				lines = append(lines, line)
			}
		}
		return nil
	})
	slices.Sort(lines)
	return lines
}

func show(r *netlink.Route) (string, error) {
	switch r.Type {
	case unix.RTN_THROW:
		return "throw " + r.Dst.String(), nil
	case unix.RTN_UNREACHABLE:
		return "unreachable " + r.Dst.String(), nil
	}
	link, err := netlink.LinkByIndex(r.LinkIndex)
	if err != nil {
		return "", err
	}
	line := fmt.Sprintf("%s dev %s", r.Dst, link.Attrs().Name)
	if r.Src != nil {
		line += " src " + r.Src.String()
	}
	return line, nil
}

// way asks the kernel by which link, from which address, and by which gateway it
// would send.
func (h *host) way(dst string, mark uint32) (way string) {
	h.Helper()
	h.do(func() error {
		routes, err := netlink.RouteGetWithOptions(netip.MustParseAddr(dst).AsSlice(), &netlink.RouteGetOptions{Mark: mark})
		if err != nil {
			way = err.Error()
			return nil
		}
		link, err := netlink.LinkByIndex(routes[0].LinkIndex)
		if err != nil {
			return err
		}
		way = link.Attrs().Name + " " + routes[0].Src.String()
		if routes[0].Gw != nil {
			way += " via " + routes[0].Gw.String()
		}
		return nil
	})
	return way
}

func (h *host) apply(m *Manager, protect []Route, exempt ...string) {
	h.Helper()
	if err := m.Apply(protect, prefixes(exempt...), 0); err != nil {
		h.Fatal(err)
	}
}

func (h *host) wantTable(want ...string) {
	h.Helper()
	slices.Sort(want)
	if got := h.table(); !slices.Equal(got, want) {
		h.Errorf("table holds\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func (h *host) wantWay(dst string, mark uint32, want string) {
	h.Helper()
	if got := h.way(dst, mark); got != want {
		h.Errorf("mark %#x to %s: %s, want %s", mark, dst, got, want)
	}
}

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func protected(src, dst string) Route {
	return Route{Dst: netip.MustParsePrefix(dst), Src: netip.MustParsePrefix(src)}
}

// A host with a wire to the world and a TUN.
func newWiredHost(t *testing.T) *host {
	t.Helper()
	h := newHost(t, "host")
	h.link("wire", "192.0.2.1/24", "2001:db8::1/64")
	h.tun("ipsec0")
	h.do(func() error {
		if err := SetupLink("ipsec0", 1400, nil, 0, 0); err != nil {
			return err
		}
		return addDefaults("wire", "192.0.2.254", "2001:db8::fe")
	})
	return h
}

func addDefaults(link string, gateways ...string) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	for _, gw := range gateways {
		r := &netlink.Route{LinkIndex: l.Attrs().Index, Gw: netip.MustParseAddr(gw).AsSlice()}
		if err := netlink.RouteAdd(r); err != nil {
			return err
		}
	}
	return nil
}

func dropDefault(family int) error {
	all, err := netlink.RouteList(nil, family)
	if err != nil {
		return err
	}
	for i := range all {
		if all[i].Gw != nil {
			return netlink.RouteDel(&all[i])
		}
	}
	return errors.New("there is no default route")
}
