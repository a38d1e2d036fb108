package packet

import (
	"encoding/binary"
	"net/netip"
)

// Addr is an IP address in 16 octets, network order; IPv4 stands in its
// IPv4-mapped form (RFC 4291 2.5.5.2), so that one comparison serves both
// families. It holds no pointer, unlike netip.Addr.
type Addr [16]byte

// AddrFrom converts a valid netip.Addr; a zone is left out.
func AddrFrom(a netip.Addr) Addr { return a.As16() }

// Netip converts back; a mapped address comes out as IPv4.
func (a Addr) Netip() netip.Addr { return netip.AddrFrom16(a).Unmap() }

func (a Addr) String() string { return a.Netip().String() }

// AddrFrom4 maps the four octets of an IPv4 address.
func AddrFrom4(b []byte) (a Addr) {
	a[10], a[11] = 0xff, 0xff
	copy(a[12:], b[:4])
	return a
}

// Unicast reports whether packets to a may cross a router: not multicast,
// broadcast or link-local (RFC 4291 2.5.6 and 2.7, RFC 3927, RFC 1112), nor the
// unspecified address.
func (a *Addr) Unicast() bool {
	n := netip.AddrFrom16(*a).Unmap()
	limited := n == netip.AddrFrom4([4]byte{255, 255, 255, 255})
	return !(limited || n.IsMulticast() || n.IsLinkLocalUnicast() || n.IsUnspecified())
}

// Flow is what policies select by: addresses, upper-layer protocol and ports.
// It is comparable and holds no pointer.
//
// For ICMP and ICMPv6 SrcPort is the type and DstPort the code, as KAME keeps
// them. Ports of other protocols are 0, and so are those of a fragment that is
// not the first, which Opaque marks (RFC 4301 4.4.1.1: OPAQUE).
type Flow struct {
	Src, Dst         Addr
	SrcPort, DstPort uint16
	Proto            uint8 // upper-layer protocol, after IPv6 extension headers
	V                uint8 // 4 or 6
	Opaque           bool
}

// ProtoHidden reports whether Proto is not that of the flow: of a fragment that
// is not the first, whose fragment header names another extension header, which
// is in the first.
func (f *Flow) ProtoHidden() bool {
	if !f.Opaque || f.V != 6 {
		return false
	}
	switch f.Proto {
	case ProtoHopByHop, ProtoRouting, ProtoFragment, ProtoDstOpts:
		return true
	}
	return false
}

// Hash mixes the flow with a seed, for tables of the caller's own. It is not
// meant to withstand an adversary who knows the seed.
func (f *Flow) Hash(seed uint64) uint64 {
	const k = 0x9e3779b97f4a7c15
	h := seed
	h = (h ^ binary.NativeEndian.Uint64(f.Src[:8])) * k
	h = (h ^ h>>29 ^ binary.NativeEndian.Uint64(f.Src[8:])) * k
	h = (h ^ h>>29 ^ binary.NativeEndian.Uint64(f.Dst[:8])) * k
	h = (h ^ h>>29 ^ binary.NativeEndian.Uint64(f.Dst[8:])) * k
	h = (h ^ h>>29 ^ uint64(f.SrcPort)<<32 ^ uint64(f.DstPort)<<16 ^ uint64(f.Proto)<<8 ^ uint64(f.V)) * k
	return h ^ h>>32
}
