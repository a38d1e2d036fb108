package xform

import (
	"ipsecd/packet"
	"ipsecd/sad"
)

// transportOf is the frame of packets that keep their own header (RFC 4303
// 3.1.1).
func transportOf(sa *sad.SA, b *packet.Burst) frame {
	f := frame{encap: sa.Encap(), v6: b.H.V == 6}
	f.own, f.nextAt = b.H.TransportAt(b.Head)
	f.len, f.next = f.own, b.Head[f.nextAt]
	return f
}

// putOwn moves the header of the packet at from to the front of pkt.
func (f *frame) putOwn(pkt []byte, from int) {
	copy(pkt[:f.own], pkt[from:from+f.own])
	packet.SetNext(pkt, f.nextAt, f.proto())
}

// OpenTransport makes the packet that b brought under sa in transport mode: the
// header in front of ESP, or of the UDP around it, and the payload, which next
// announced. A packet of a raw socket is made where it is; one of a train of
// datagrams, which share their header, in room, or nil when that is full.
func OpenTransport(sa *sad.SA, b *packet.Burst, payload []byte, next uint8, room *packet.Train) []byte {
	var pkt []byte
	head := b.Head[:b.H.L4]
	if b.Seg == packet.Lone {
		at := HeaderLen + sa.Suite.IVLen
		pkt = b.Head[at : at+len(head)+len(payload)]
	} else {
		if pkt = room.Next(len(head) + len(payload)); pkt == nil {
			return nil
		}
		copy(pkt[len(head):], payload)
	}
	copy(pkt, head)
	packet.SetNext(pkt, b.H.ProtoAt, next)
	return pkt
}

// Decapsulates reports whether what came under sa is a tunnel's: by the mode of
// the SA, or, where it is of any, by what the trailer announces.
func Decapsulates(sa *sad.SA, next uint8) bool {
	switch sa.Spec().Mode {
	case sad.ModeTunnel:
		return true
	case sad.ModeTransport:
		return false
	}
	return next == packet.ProtoIPv4 || next == packet.ProtoIPv6
}
