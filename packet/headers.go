package packet

import "encoding/binary"

// IP protocol numbers that the packet path looks at.
const (
	ProtoHopByHop = 0
	ProtoICMP     = 1
	ProtoIPv4     = 4
	ProtoTCP      = 6
	ProtoUDP      = 17
	ProtoIPv6     = 41
	ProtoRouting  = 43
	ProtoFragment = 44
	ProtoESP      = 50
	ProtoICMPv6   = 58
	ProtoNoNext   = 59
	ProtoDstOpts  = 60
	ProtoSCTP     = 132
	ProtoUDPLite  = 136
	ProtoDCCP     = 33
)

// Lengths of fixed headers in octets.
const (
	IPv4HeaderLen = 20
	IPv6HeaderLen = 40
	UDPHeaderLen  = 8
	TCPHeaderLen  = 20
)

// Offsets of the octet that names the next header.
const (
	ipv4ProtoAt = 9
	ipv6NextAt  = 6
)

// Headers is what one pass over a packet's headers finds.
type Headers struct {
	Flow
	L4       int  // offset of the upper-layer header, or of a later fragment's data
	ProtoAt  int  // offset of the octet that names Proto
	Fragment bool // any fragment, also the first
}

// IPLength returns how many octets the IP packet at the start of b claims to
// have. It is at most len(b) when Kept is returned; b may be longer (RFC 4303
// 2.7: traffic flow confidentiality padding stands behind the packet).
func IPLength(b []byte) (int, Drop) {
	hlen, d := headerLength(b)
	if d != Kept {
		return 0, d
	}
	n := IPv6HeaderLen
	if b[0]>>4 == 4 {
		n = int(binary.BigEndian.Uint16(b[2:]))
	} else {
		n += int(binary.BigEndian.Uint16(b[4:]))
	}
	if n < hlen {
		return 0, BadLength
	}
	if n > len(b) {
		return 0, Truncated
	}
	return n, Kept
}

// headerLength is that of the IP header at the start of b, of which the fixed
// part is there.
func headerLength(b []byte) (int, Drop) {
	if len(b) < 1 {
		return 0, Truncated
	}
	switch b[0] >> 4 {
	case 4:
		if len(b) < IPv4HeaderLen {
			return 0, Truncated
		}
		n := int(b[0]&15) * 4
		if n < IPv4HeaderLen {
			return 0, BadLength
		}
		return n, Kept
	case 6:
		if len(b) < IPv6HeaderLen {
			return 0, Truncated
		}
		return IPv6HeaderLen, Kept
	}
	return 0, BadVersion
}

// Classify fills h from the whole packet pkt, whose length IPLength vouched
// for. The upper-layer header is looked at as far as ports need it.
func (h *Headers) Classify(pkt []byte) Drop {
	h.Flow, h.Fragment = Flow{}, false
	if pkt[0]>>4 == 4 {
		h.V = 4
		h.Src, h.Dst = AddrFrom4(pkt[12:16]), AddrFrom4(pkt[16:20])
		h.Proto, h.ProtoAt, h.L4 = pkt[ipv4ProtoAt], ipv4ProtoAt, int(pkt[0]&15)*4
		frag := binary.BigEndian.Uint16(pkt[6:])
		h.Fragment, h.Opaque = frag&0x3fff != 0, frag&0x1fff != 0
	} else {
		h.V = 6
		h.Src, h.Dst = Addr(pkt[8:24]), Addr(pkt[24:40])
		if d := h.walkExtensions(pkt); d != Kept {
			return d
		}
	}
	if h.Opaque {
		return Kept
	}
	return h.readPorts(pkt[h.L4:])
}

func (h *Headers) readPorts(l4 []byte) Drop {
	switch h.Proto {
	case ProtoTCP, ProtoUDP, ProtoSCTP, ProtoUDPLite, ProtoDCCP:
		if len(l4) < 4 {
			return Truncated
		}
		h.SrcPort, h.DstPort = binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:])
	case ProtoICMP, ProtoICMPv6:
		if len(l4) < 2 {
			return Truncated
		}
		h.SrcPort, h.DstPort = uint16(l4[0]), uint16(l4[1])
	}
	return Kept
}

// TOS returns the octet of DSCP and ECN (RFC 2474, RFC 3168) of an IP header.
func TOS(ip []byte) uint8 {
	if ip[0]>>4 == 4 {
		return ip[1]
	}
	return ip[0]<<4 | ip[1]>>4
}

// SetTOS changes it, and the checksum of an IPv4 header with it.
func SetTOS(ip []byte, tos uint8) {
	if ip[0]>>4 == 6 {
		ip[0] = 0x60 | tos>>4
		ip[1] = tos<<4 | ip[1]&15
		return
	}
	setIPv4Word(ip, 0, uint16(ip[0])<<8|uint16(tos))
}

// DecrementTTL takes one from the TTL or hop limit, or reports false when none
// would be left.
func DecrementTTL(ip []byte) bool {
	if ip[0]>>4 == 6 {
		if ip[7] <= 1 {
			return false
		}
		ip[7]--
		return true
	}
	if ip[8] <= 1 {
		return false
	}
	setIPv4Word(ip, 8, uint16(ip[8]-1)<<8|uint16(ip[9]))
	return true
}

// SetNext makes the header that pkt begins with name proto, in the octet at
// nextAt, and pkt's own length.
func SetNext(pkt []byte, nextAt int, proto uint8) {
	pkt[nextAt] = proto
	if pkt[0]>>4 == 6 {
		binary.BigEndian.PutUint16(pkt[4:], uint16(len(pkt)-IPv6HeaderLen))
		return
	}
	binary.BigEndian.PutUint16(pkt[2:], uint16(len(pkt)))
	pkt[10], pkt[11] = 0, 0
	binary.BigEndian.PutUint16(pkt[10:], Checksum(pkt[:int(pkt[0]&15)*4], 0))
}

// setIPv4Word changes 16 bits of a header and its checksum with them (RFC 1624
// equation 3).
func setIPv4Word(ip []byte, at int, to uint16) {
	sum := uint32(^binary.BigEndian.Uint16(ip[10:])) + uint32(^binary.BigEndian.Uint16(ip[at:])) + uint32(to)
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(ip[at:], to)
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum))
}

// IPv4 holds the fields of an IPv4 header that vary in what we make: version
// 4, no options.
type IPv4 struct {
	TOS      uint8
	TTL      uint8
	Proto    uint8
	DF       bool
	ID       uint16
	Src, Dst Addr // IPv4-mapped
}

// Put writes the header of a packet of n octets, checksum included, into the
// first 20 of b.
func (h *IPv4) Put(b []byte, n int) {
	b = b[:IPv4HeaderLen]
	b[0], b[1] = 0x45, h.TOS
	binary.BigEndian.PutUint16(b[2:], uint16(n))
	binary.BigEndian.PutUint16(b[4:], h.ID)
	b[6], b[7] = 0, 0
	if h.DF {
		b[6] = 0x40
	}
	b[8], b[9] = h.TTL, h.Proto
	b[10], b[11] = 0, 0
	copy(b[12:16], h.Src[12:])
	copy(b[16:20], h.Dst[12:])
	binary.BigEndian.PutUint16(b[10:], Checksum(b, 0))
}

// IPv6 holds the fields of an IPv6 header that vary in what we make.
type IPv6 struct {
	TOS       uint8  // traffic class
	FlowLabel uint32 // 20 bits
	HopLimit  uint8
	Next      uint8
	Src, Dst  Addr
}

// Put writes the header of a packet of n octets, itself included, into the
// first 40 of b.
func (h *IPv6) Put(b []byte, n int) {
	b = b[:IPv6HeaderLen]
	binary.BigEndian.PutUint32(b, 6<<28|uint32(h.TOS)<<20|h.FlowLabel&0xfffff)
	binary.BigEndian.PutUint16(b[4:], uint16(n-IPv6HeaderLen))
	b[6], b[7] = h.Next, h.HopLimit
	copy(b[8:24], h.Src[:])
	copy(b[24:40], h.Dst[:])
}

// PutUDP writes a UDP header with checksum 0 for a datagram of n octets,
// itself included.
func PutUDP(b []byte, src, dst uint16, n int) {
	b = b[:UDPHeaderLen]
	binary.BigEndian.PutUint16(b, src)
	binary.BigEndian.PutUint16(b[2:], dst)
	binary.BigEndian.PutUint16(b[4:], uint16(n))
	b[6], b[7] = 0, 0
}
