package routes

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// bareAddr is what a TUN without an IPv4 address of its own gets where reverse-path
// filtering cannot be switched off. The kernel takes loose (RFC 3704) for strict on
// a link that has none. This one is of the loopback network, which is local anyhow,
// so that it leads nothing elsewhere, and of host scope, so that it does not become
// the source of a packet, unless route_localnet is on.
var bareAddr = netip.MustParsePrefix("127.105.112.1/32")

// SetupLink gives the TUN its MTU and addresses and sets it up. The link gets
// no IPv6 link-local address of its own accord, as little reverse-path filtering as
// Unfilter can do, and no route for the networks of its addresses: policies say what
// goes to the TUN, and what they let pass would come back by such a route. Where
// addrs has none of IPv4 and the link filters all the same it gets bareAddr.
// gsoMaxSize (octets) and gsoMaxSegs bound the packets that the kernel hands over
// unsegmented; 0 leaves the kernel's limit, and so does a kernel that cannot set
// them. With ErrStrict all is done but the filtering. It may be called again.
func SetupLink(name string, mtu int, addrs []netip.Prefix, gsoMaxSize, gsoMaxSegs int) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	if err := checkAddrs(addrs, mtu); err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	if err := netlink.LinkSetMTU(link, mtu); err != nil {
		return fmt.Errorf("link %s: MTU %d: %w", name, mtu, err)
	}
	if err := setGSO(link, gsoMaxSize, gsoMaxSegs); err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	if err := noLinkLocal(link); err != nil {
		return fmt.Errorf("link %s: IPv6 address generation: %w", name, err)
	}
	strict := Unfilter(name)
	for _, p := range wantedAddrs(name, addrs) {
		if err := addAddr(link, p); err != nil {
			return fmt.Errorf("link %s: address %s: %w", name, p, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("link %s: set up: %w", name, err)
	}
	return strict
}

// wantedAddrs adds bareAddr where it is needed.
func wantedAddrs(name string, addrs []netip.Prefix) []netip.Prefix {
	if slices.ContainsFunc(addrs, func(p netip.Prefix) bool { return p.Addr().Is4() }) || !filters(name) {
		return addrs
	}
	return append(slices.Clip(addrs), bareAddr)
}

// minMTUIPv6 is the least that IPv6 runs on (RFC 8200, section 5).
const minMTUIPv6 = 1280

func checkAddrs(addrs []netip.Prefix, mtu int) error {
	for _, p := range addrs {
		if p.Addr().Is6() && mtu < minMTUIPv6 {
			return fmt.Errorf("address %s: IPv6 needs an MTU of at least %d, and the TUN's is %d", p, minMTUIPv6, mtu)
		}
	}
	return nil
}

// SetMTU changes the MTU of a link, in octets.
func SetMTU(name string, mtu int) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	if err := netlink.LinkSetMTU(link, mtu); err != nil {
		return fmt.Errorf("link %s: MTU %d: %w", name, mtu, err)
	}
	return nil
}

func setGSO(link netlink.Link, maxSize, maxSegs int) error {
	limits := []struct {
		what  string
		set   func(netlink.Link, int) error
		value int
	}{
		{"gso_max_size", netlink.LinkSetGSOMaxSize, maxSize},
		{"gso_ipv4_max_size", netlink.LinkSetGSOIPv4MaxSize, maxSize},
		{"gso_max_segs", netlink.LinkSetGSOMaxSegs, maxSegs},
	}
	for _, l := range limits {
		if l.value == 0 {
			continue
		}
		if err := l.set(link, l.value); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("%s %d: %w", l.what, l.value, err)
		}
	}
	return nil
}

// noLinkLocal keeps the kernel from making up an IPv6 address when the link
// goes up; a host without IPv6 makes none.
func noLinkLocal(link netlink.Link) error {
	const none = 1 // IN6_ADDR_GEN_MODE_NONE
	err := netlink.LinkSetIP6AddrGenMode(link, none)
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

// KeepAddrs adds those of SetupLink's addresses that the TUN has lost, as it loses
// IPv6 ones when it is set down. A TUN that is down, or gone, is left alone.
func KeepAddrs(name string, addrs []netip.Prefix) error {
	link, err := netlink.LinkByName(name)
	if err != nil || link.Attrs().Flags&net.FlagUp == 0 {
		return nil
	}
	have, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("link %s: addresses: %w", name, err)
	}
	for _, p := range wantedAddrs(name, addrs) {
		if slices.ContainsFunc(have, func(a netlink.Addr) bool { return a.IPNet.String() == p.String() }) {
			continue
		}
		if err := addAddr(link, p); err != nil {
			return fmt.Errorf("link %s: address %s: %w", name, p, err)
		}
	}
	return nil
}

// addAddr adds an address without a route to its network, or finds it there. An
// IPv6 one is ready at once: nobody on a TUN could claim it.
func addAddr(link netlink.Link, p netip.Prefix) error {
	addr := &netlink.Addr{IPNet: &net.IPNet{
		IP:   p.Addr().AsSlice(),
		Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
	}, Flags: unix.IFA_F_NOPREFIXROUTE}
	if p.Addr().Is6() {
		addr.Flags |= unix.IFA_F_NODAD
	}
	if p.Addr().IsLoopback() {
		addr.Scope = unix.RT_SCOPE_HOST
	}
	err := netlink.AddrReplace(link, addr)
	if errors.Is(err, unix.EACCES) && p.Addr().Is6() {
		return fmt.Errorf("%w; IPv6 is off here: sysctl net.ipv6.conf.%s.disable_ipv6=0", err, link.Attrs().Name)
	}
	return err
}
