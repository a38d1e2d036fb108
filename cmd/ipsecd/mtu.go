package main

import (
	"errors"
	"net/netip"
	"slices"

	"ipsecd/dataplane"
	"ipsecd/dataplane/link"
	"ipsecd/internal/routes"
	"ipsecd/sad"
	"ipsecd/spd"
)

const (
	minMTU     = 576 // RFC 791: what every host takes
	minMTUIPv6 = 1280
	maxMTU     = 65535
	defaultMTU = 1500 // of the path, where nothing is known of it
)

// followMTU sets the TUN's MTU to what fits under every SA. Without SAs it stays,
// but for leastMTU: a flush is most often half of a reload.
func (h *hostNetwork) followMTU(sas *sad.DB) error {
	if h.o.mtu != 0 {
		return nil
	}
	mtu := h.innerMTU(sas)
	if mtu == 0 {
		mtu = h.mtu
	}
	mtu = min(max(mtu, h.leastMTU), maxMTU)
	if mtu == h.mtu {
		return nil
	}
	if err := h.setMTU(mtu); err != nil {
		return err
	}
	h.mtu = mtu
	return nil
}

// innerMTU is the longest packet, in octets, that fits sealed under every SA into
// the path to its destination; 0 without SAs. It asks for the paths that h.paths
// lacks, and leaves there those of the loaded SAs alone.
func (h *hostNetwork) innerMTU(sas *sad.DB) int {
	mtu := 0
	paths := make(map[netip.Addr]int, len(h.paths))
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
		if inner := dataplane.InnerMTU(sa, path); mtu == 0 || inner < mtu {
			mtu = inner
		}
	}
	h.paths = paths
	return mtu
}

// pathMTU is the MTU towards a peer, in octets: as known, or else as the kernel
// says.
func (h *hostNetwork) pathMTU(dst netip.Addr) int {
	if mtu, ok := h.paths[dst]; ok {
		return mtu
	}
	mtu, err := h.askMTU(dst)
	if err != nil {
		return defaultMTU
	}
	return mtu
}

// leastMTU is what the TUN does not go below: the kernel takes IPv6 off a link
// with less than RFC 8200 section 5 wants, for one forged "packet too big".
func leastMTU(addrs []netip.Prefix, policies *spd.DB) int {
	if slices.ContainsFunc(addrs, isIPv6) {
		return minMTUIPv6
	}
	for p := range policies.All() {
		if p.Dir == spd.Out && p.Sel.Dst.Addr().Is6() {
			return minMTUIPv6
		}
	}
	return minMTU
}

// setMTU changes the TUN's MTU. The kernel takes its IPv6 addresses when that
// gets too small, and does not bring them back.
func (h *hostNetwork) setMTU(mtu int) error {
	if h.mtu < minMTUIPv6 && mtu >= minMTUIPv6 {
		err := routes.SetupLink(h.tun, mtu, h.o.addrs, link.GSOSize, link.GSOSegs)
		if errors.Is(err, routes.ErrStrict) {
			return nil // which was said at the start
		}
		return err
	}
	return routes.SetMTU(h.tun, mtu)
}
