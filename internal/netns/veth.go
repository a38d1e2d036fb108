package netns

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// upLimit bounds the wait for a new link.
const upLimit = 5 * time.Second

// Veth lays a wire between a and b: a veth pair whose ends are nameA in a and
// nameB in b, each with its addresses and the given MTU in octets, both up.
// The wire carries packets when Veth returns: IPv6 addresses skip duplicate
// address detection. The pair is made inside the two namespaces and ends with
// either.
func Veth(a, b *NS, nameA, nameB string, addrsA, addrsB []netip.Prefix, mtu int) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = nameA, mtu
	pair := &netlink.Veth{
		LinkAttrs:     attrs,
		PeerName:      nameB,
		PeerMTU:       uint32(mtu),
		PeerNamespace: netlink.NsFd(b.handle),
	}
	err := a.Do(func() error {
		if err := netlink.LinkAdd(pair); err != nil {
			return fmt.Errorf("veth %s - %s: %w", nameA, nameB, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := a.Do(func() error { return configure(nameA, addrsA) }); err != nil {
		return err
	}
	if err := b.Do(func() error { return configure(nameB, addrsB) }); err != nil {
		return err
	}
	if err := a.Do(func() error { return awaitUp(nameA) }); err != nil {
		return err
	}
	return b.Do(func() error { return awaitUp(nameB) })
}

// awaitUp waits until the link's queue is in place, which the kernel does some
// time after its carrier came. Before that it drops what is sent.
func awaitUp(name string) error {
	for deadline := time.Now().Add(upLimit); ; time.Sleep(time.Millisecond) {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("link %s: %w", name, err)
		}
		state := link.Attrs().OperState
		if state == netlink.OperUp {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("link %s is %s, not up, after %v", name, state, upLimit)
		}
	}
}

// configure gives the link its addresses and sets it up.
func configure(name string, addrs []netip.Prefix) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	for _, p := range addrs {
		addr := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("link %s: address %s: %w", name, p, err)
		}
	}
	return setUp(name)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{
		IP:   p.Addr().AsSlice(),
		Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
	}
}
