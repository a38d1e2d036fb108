package routes

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// PathMTU returns the largest IP packet, in octets, that the kernel believes
// reaches dst from here when sent with the mark: what path MTU discovery or a
// route's metric says, else the MTU of the link it leaves by.
func PathMTU(dst netip.Addr, mark uint32) (int, error) {
	routes, err := netlink.RouteGetWithOptions(dst.Unmap().AsSlice(), &netlink.RouteGetOptions{Mark: mark})
	if err != nil {
		return 0, fmt.Errorf("route to %s: %w", dst, err)
	}
	if len(routes) == 0 {
		return 0, fmt.Errorf("route to %s: none", dst)
	}
	if mtu := routes[0].MTU; mtu > 0 {
		return mtu, nil
	}
	link, err := netlink.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return 0, fmt.Errorf("link towards %s: %w", dst, err)
	}
	return link.Attrs().MTU, nil
}
