package xform

import (
	"ipsecd/packet"
	"ipsecd/sad"
)

// frame is what stands in front of the ESP header of a burst's packets: the new
// header of a tunnel, or in transport mode the packets' own; then UDP, if
// encapsulated. All of it but lengths and IPv4 ID is one for the burst.
type frame struct {
	len   int   // octets, without UDP
	next  uint8 // what the trailer announces behind the payload
	encap sad.Encap
	v6    bool

	outer4 packet.IPv4 // tunnel mode, one of the two
	outer6 packet.IPv6

	own    int // transport mode: octets of a packet's own header that stay in front, else 0
	nextAt int // where in them the next header is named
}

// frameOf makes the frame for the packets of b.
func frameOf(sa *sad.SA, mode sad.Mode, b *packet.Burst) frame {
	if mode == sad.ModeTransport {
		return transportOf(sa, b)
	}
	return tunnelTo(sa, b)
}

// proto is what follows the IP header.
func (f *frame) proto() uint8 {
	if f.encapsulated() {
		return packet.ProtoUDP
	}
	return packet.ProtoESP
}

// octets is the length of the frame.
func (f *frame) octets() int {
	if f.encapsulated() {
		return f.len + packet.UDPHeaderLen
	}
	return f.len
}

// put writes the frame to the front of pkt, in which the packet to seal begins
// at from.
func (f *frame) put(w *Worker, pkt []byte, from int) {
	switch {
	case f.own > 0:
		f.putOwn(pkt, from)
	case f.v6:
		f.outer6.Put(pkt, len(pkt))
	default:
		f.outer4.ID = w.nextID()
		f.outer4.Put(pkt, len(pkt))
	}
	if f.encapsulated() {
		f.putUDP(pkt[f.len:])
	}
}
