package main

import (
	"net/netip"

	"ipsecd/dataplane"
	"ipsecd/sad"
	"ipsecd/spd"
)

// ipv6Policies is what outbound policies say of IPv6.
type ipv6Policies struct {
	any       bool                // there are some
	tunnels   map[netip.Addr]bool // peers to which IPv6 goes by tunnel
	transport bool                // IPv6 goes in transport mode
}

func ipv6Out(policies *spd.DB) ipv6Policies {
	v := ipv6Policies{tunnels: map[netip.Addr]bool{}}
	for p := range policies.All() {
		if p.Dir != spd.Out || !p.Sel.Dst.Addr().Is6() {
			continue
		}
		v.any = true
		for _, r := range p.Requests {
			if r.Mode == spd.ModeTunnel {
				v.tunnels[r.Dst] = true
			} else {
				v.transport = true
			}
		}
	}
	return v
}

// carriedBy tells whether IPv6 packets may be sealed under an SA.
func (v ipv6Policies) carriedBy(sa *sad.SA) bool {
	spec := sa.Spec()
	return v.tunnels[spec.Dst] && spec.Mode != sad.ModeTransport ||
		v.transport && spec.Dst.Is6() && spec.Mode != sad.ModeTunnel
}

// narrow is an SA that carries IPv6 on a path too small for it: one of path octets,
// of which fits are left for a packet. The zero value is none.
type narrow struct {
	sa         *sad.SA
	path, fits int
}

// or is the worse of both, for one peer always the same.
func (n narrow) or(other narrow) narrow {
	switch {
	case n.sa == nil, other.fits < n.fits:
		return other
	case other.fits == n.fits && other.sa.Spec().Dst.Less(n.sa.Spec().Dst):
		return other
	}
	return n
}

// warnNarrow says once that packets which IPv6 takes for small do not pass.
func (h *hostNetwork) warnNarrow(n narrow) {
	var peer netip.Addr
	if n.sa != nil {
		peer = n.sa.Spec().Dst
	}
	if peer == h.narrowTo {
		return
	}
	h.narrowTo = peer
	if n.sa == nil {
		return
	}
	needed := n.path
	for dataplane.InnerMTU(n.sa, needed) < minMTUIPv6 {
		needed++
	}
	h.log.Warn("an IPv6 packet of 1280 octets, the least MTU of IPv6, does not fit sealed into the path to a peer; "+
		"what is longer than fits is dropped as too-big; give the path the MTU that is needed, "+
		"or clamp the MSS of TCP, on both sides, to 60 less than fits",
		"peer", peer, "path_mtu", n.path, "needed", needed, "fits", n.fits)
}
