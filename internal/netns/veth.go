package netns

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
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
	if err := a.Do(func() error { return await(nameA, addrsA) }); err != nil {
		return err
	}
	return b.Do(func() error { return await(nameB, addrsB) })
}

// await waits until the link carries packets, which the kernel sees to some time
// after its carrier came.
func await(name string, addrs []netip.Prefix) error {
	for deadline := time.Now().Add(upLimit); ; time.Sleep(time.Millisecond) {
		ready, err := carries(name, addrs)
		if ready || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("link %s: not ready after %v", name, upLimit)
		}
	}
}

// carries reports whether the link has its queue, without which the kernel drops
// what is sent, and hears the neighbours that look for its IPv6 addresses.
func carries(name string, addrs []netip.Prefix) (bool, error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return false, fmt.Errorf("link %s: %w", name, err)
	}
	if link.Attrs().OperState != netlink.OperUp {
		return false, nil
	}
	joined, err := os.ReadFile("/proc/thread-self/net/igmp6")
	if errors.Is(err, fs.ErrNotExist) { // no IPv6
		return true, nil
	}
	if err != nil {
		return false, err
	}
	for _, p := range addrs {
		if p.Addr().Is6() && !bytes.Contains(joined, []byte(solicitedNode(p.Addr()))) {
			return false, nil
		}
	}
	return true, nil
}

// solicitedNode is the multicast group of those who look for the address (RFC
// 4291 2.7.1), in hexadecimal digits.
func solicitedNode(a netip.Addr) string {
	b := a.As16()
	return fmt.Sprintf("ff0200000000000000000001ff%x", b[13:])
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
