package routes

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// localAddrs are addresses that packets of this host can come from, the best
// first.
type localAddrs []netip.Addr

// in returns the best address inside p, invalid when there is none.
func (l localAddrs) in(p netip.Prefix) netip.Addr {
	for _, a := range l {
		if p.Contains(a) {
			return a
		}
	}
	return netip.Addr{}
}

// localAddrs lists the addresses of all links: of global scope and ready for
// use, those of the TUN before the rest, which follow by link index.
func (m *Manager) localAddrs() (localAddrs, error) {
	var all []netlink.Addr
	for _, family := range m.families {
		addrs, err := dump(func() ([]netlink.Addr, error) { return m.kernel.AddrList(nil, family) })
		if err != nil {
			return nil, fmt.Errorf("list %s addresses: %w", familyName(family), err)
		}
		all = append(all, addrs...)
	}
	slices.SortStableFunc(all, func(a, b netlink.Addr) int { return cmp.Compare(m.rank(&a), m.rank(&b)) })
	var local localAddrs
	for i := range all {
		const unusable = unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED
		if all[i].Scope != unix.RT_SCOPE_UNIVERSE || all[i].Flags&unusable != 0 {
			continue
		}
		if a, ok := netip.AddrFromSlice(all[i].IP); ok {
			local = append(local, a.Unmap())
		}
	}
	return local, nil
}

func (m *Manager) rank(a *netlink.Addr) int {
	if a.LinkIndex == m.tun.Attrs().Index {
		return 0
	}
	return a.LinkIndex
}
