package routes

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// ErrOwnTUN is PathMTU's answer where the route leads into the TUN.
var ErrOwnTUN = errors.New("the route leads into our own TUN")

// PathMTU returns the largest IP packet, in octets, that the kernel believes
// reaches dst from here when sent with the mark: what path MTU discovery or a
// route's metric says, else the MTU of the link it leaves by. That of the TUN, which
// follows from it, would shrink with each call: an error is ErrOwnTUN then.
func PathMTU(dst netip.Addr, mark uint32, tun string) (int, error) {
	routes, err := netlink.RouteGetWithOptions(dst.Unmap().AsSlice(), &netlink.RouteGetOptions{Mark: mark})
	if err != nil {
		return 0, fmt.Errorf("route to %s: %w", dst, err)
	}
	if len(routes) == 0 {
		return 0, fmt.Errorf("route to %s: none", dst)
	}
	link, err := netlink.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return 0, fmt.Errorf("link towards %s: %w", dst, err)
	}
	if link.Attrs().Name == tun {
		return 0, fmt.Errorf("route to %s: %w", dst, ErrOwnTUN)
	}
	if mtu := routes[0].MTU; mtu > 0 {
		return mtu, nil
	}
	return link.Attrs().MTU, nil
}
