package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"ipsecd/dataplane"
	"ipsecd/internal/routes"
	"ipsecd/sad"
)

const (
	minMTU     = 576 // RFC 791: what every host takes
	minMTUIPv4 = 68  // RFC 791: what every link takes
	minMTUIPv6 = 1280
	maxMTU     = 65535
	defaultMTU = 1500 // of the path, where nothing is known of it
)

// followMTU sets the TUN's MTU to what fits under every SA, and mtu4 where that is
// below leastMTU. Without SAs what fits stays: a flush is most often half of a reload.
func (h *hostNetwork) followMTU(sas *sad.DB) error {
	if h.o.mtu != 0 {
		return nil
	}
	fits := h.innerMTU(sas)
	if fits == 0 {
		fits = h.fits
	}
	mtu := min(max(fits, h.leastMTU), maxMTU)
	h.mtu4 = 0
	if fits < mtu {
		h.mtu4 = max(fits, minMTUIPv4)
	}
	if mtu != h.mtu {
		if err := h.setMTU(mtu); err != nil {
			return err
		}
	}
	h.mtu, h.fits = mtu, fits
	return nil
}

// innerMTU is the longest packet, in octets, that fits sealed under every SA into
// the path to its destination; 0 without SAs. It asks for the paths that h.paths
// lacks, and leaves there those of the loaded SAs alone.
func (h *hostNetwork) innerMTU(sas *sad.DB) int {
	mtu := 0
	paths := make(map[netip.Addr]int, len(h.paths))
	var worst narrow
	for sa := range sas.All() {
		dst := sa.Spec().Dst
		path, ok := paths[dst]
		if !ok {
			path = h.pathMTU(dst)
			paths[dst] = path
		}
		if path > maxMTU {
			continue // to ourselves, by the loopback device: an inbound SA
		}
		inner := dataplane.InnerMTU(sa, path)
		if mtu == 0 || inner < mtu {
			mtu = inner
		}
		if inner < minMTUIPv6 && h.ipv6.carriedBy(sa) {
			worst = worst.or(narrow{sa, path, inner})
		}
	}
	h.paths = paths
	h.warnNarrow(worst)
	return mtu
}

// pathMTU is the MTU towards a peer, in octets: as known, or else as the kernel
// says.
func (h *hostNetwork) pathMTU(dst netip.Addr) int {
	if mtu, ok := h.paths[dst]; ok {
		return mtu
	}
	mtu, err := h.askMTU(dst)
	if errors.Is(err, routes.ErrOwnTUN) {
		h.warnLoop(dst)
	}
	if err != nil {
		return defaultMTU
	}
	return mtu
}

// warnLoop says once for each family what keeps sealed packets from coming back.
func (h *hostNetwork) warnLoop(peer netip.Addr) {
	family, rule := 0, "ip rule"
	if peer.Is6() {
		family, rule = 1, "ip -6 rule"
	}
	if h.saidLoop[family] {
		return
	}
	h.saidLoop[family] = true
	h.log.Warn(fmt.Sprintf("the route to a peer leads sealed packets into the TUN again; "+
		"put a real one into a table of its own, and: %s add fwmark %#x table N", rule, h.o.mark), "peer", peer, "tun", h.tun)
}

// leastMTU is what the TUN does not go below: the kernel takes IPv6 off a link
// with less than RFC 8200 section 5 wants, for one forged "packet too big".
func leastMTU(addrs []netip.Prefix, ipv6 ipv6Policies) int {
	if ipv6.any || slices.ContainsFunc(addrs, isIPv6) {
		return minMTUIPv6
	}
	return minMTU
}

// setMTU changes the TUN's MTU. The kernel takes its IPv6 addresses when that
// gets too small, and does not bring them back.
func (h *hostNetwork) setMTU(mtu int) error {
	if h.mtu < minMTUIPv6 && mtu >= minMTUIPv6 {
		return h.setupLink(mtu)
	}
	return routes.SetMTU(h.tun, mtu)
}
