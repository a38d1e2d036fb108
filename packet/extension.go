package packet

import "encoding/binary"

// maxExtHeaders bounds the walk over IPv6 extension headers. RFC 8200 4.1 has
// each of them once, destination options twice.
const maxExtHeaders = 8

// walkExtensions finds the upper-layer header (RFC 8200 section 4).
func (h *Headers) walkExtensions(pkt []byte) Drop {
	nextAt, off := ipv6NextAt, IPv6HeaderLen
	for range maxExtHeaders {
		next := pkt[nextAt]
		h.Proto, h.ProtoAt, h.L4 = next, nextAt, off
		switch next {
		case ProtoHopByHop, ProtoRouting, ProtoDstOpts:
			n := extensionLen(pkt, off)
			if n == 0 {
				return Truncated
			}
			nextAt, off = off, off+n
		case ProtoFragment:
			if len(pkt) < off+8 {
				return Truncated
			}
			frag := binary.BigEndian.Uint16(pkt[off+2:])
			h.Fragment = frag&0xfff9 != 0
			h.Opaque = frag&0xfff8 != 0
			nextAt, off = off, off+8
			if h.Opaque {
				// What follows is the middle of something: the fragment
				// header names the first header of the whole packet's
				// fragmentable part, the best that is known here.
				h.Proto, h.ProtoAt, h.L4 = pkt[nextAt], nextAt, off
				return Kept
			}
		default:
			return Kept
		}
	}
	return BadLength
}

// extensionLen is the length of the extension header at off, which holds its
// own in units of 8 octets; 0 when it does not fit pkt.
func extensionLen(pkt []byte, off int) int {
	if len(pkt) < off+8 {
		return 0
	}
	n := 8 + int(pkt[off+1])*8
	if len(pkt) < off+n {
		return 0
	}
	return n
}

// TransportAt says where a transport-mode header goes into the packet that
// Classify filled h from, and where the octet is that will name it: behind the
// IPv4 header with its options; behind those IPv6 extension headers that are for
// nodes on the way, hop-by-hop options, routing and fragment headers and what
// stands before the last of these (RFC 4303 3.1.1). Destination options behind
// them are for the destination alone, and are protected.
func (h *Headers) TransportAt(pkt []byte) (at, nextAt int) {
	if h.V == 4 {
		return h.L4, ipv4ProtoAt
	}
	at, nextAt = IPv6HeaderLen, ipv6NextAt
	for off, next := at, nextAt; off < h.L4; {
		kind, n := pkt[next], 8
		if kind != ProtoFragment {
			n = extensionLen(pkt, off)
		}
		next, off = off, off+n
		if kind != ProtoDstOpts {
			at, nextAt = off, next
		}
	}
	return at, nextAt
}
