package xform

import (
	"ipsecd/packet"
	"ipsecd/sad"
)

// outerTTL is the TTL, or hop limit, of the outer header (RFC 1700 default;
// what kernels send).
const outerTTL = 64

// tunnelTo makes the outer header for the packets of b (RFC 4301 5.1.2): DSCP
// and ECN copied (RFC 6040 4.1, normal mode), DF copied from IPv4 and set for
// IPv6 (net.inet.ipsec.dfbit=2), the flow label copied from IPv6 to IPv6.
func tunnelTo(sa *sad.SA, b *packet.Burst) frame {
	f := frame{encap: sa.Encap(), v6: sa.Spec().Dst.Is6(), next: packet.ProtoIPv6}
	if b.H.V == 4 {
		f.next = packet.ProtoIPv4
	}
	inner, tos := b.Head, packet.TOS(b.Head)
	if f.v6 {
		f.len = packet.IPv6HeaderLen
		f.outer6 = packet.IPv6{TOS: tos, HopLimit: outerTTL, Next: f.proto(), Src: sa.Src, Dst: sa.Dst}
		if b.H.V == 6 {
			f.outer6.FlowLabel = uint32(inner[1]&15)<<16 | uint32(inner[2])<<8 | uint32(inner[3])
		}
		return f
	}
	f.len = packet.IPv4HeaderLen
	df := b.H.V == 6 || inner[6]&0x40 != 0
	f.outer4 = packet.IPv4{TOS: tos, TTL: outerTTL, Proto: f.proto(), DF: df, Src: sa.Src, Dst: sa.Dst}
	return f
}

// ECN code points (RFC 3168 section 5).
const (
	notECT = 0
	ect1   = 1
	ect0   = 2
	ce     = 3
)

// OpenTunnel takes the payload of a packet in tunnel mode, which next announced,
// and the TOS octet that the outer header had on arrival. It returns the inner
// packet, cut to its own length (RFC 4303 2.7), with ECN as RFC 6040 4.2 wants
// it.
func OpenTunnel(payload []byte, next, outerTOS uint8) ([]byte, packet.Drop) {
	version := uint8(4)
	switch next {
	case packet.ProtoIPv4:
	case packet.ProtoIPv6:
		version = 6
	default:
		return nil, packet.BadInner
	}
	n, d := packet.IPLength(payload)
	if d != packet.Kept || payload[0]>>4 != version {
		return nil, packet.BadInner
	}
	inner := payload[:n:n]
	tos := packet.TOS(inner)
	ecn, ok := decapsulateECN(tos&3, outerTOS&3)
	if !ok {
		return nil, packet.ECN
	}
	if ecn != tos&3 {
		packet.SetTOS(inner, tos&^3|ecn)
	}
	return inner, packet.Kept
}

// decapsulateECN is the table of RFC 6040 4.2; false is its drop.
func decapsulateECN(inner, outer uint8) (uint8, bool) {
	switch {
	case outer == ce:
		return ce, inner != notECT
	case outer == ect1 && inner == ect0:
		return ect1, true
	}
	return inner, true
}
