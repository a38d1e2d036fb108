package link

import (
	"encoding/binary"

	"ipsecd/packet"
)

// virtioLen is struct virtio_net_hdr, which stands in front of each packet of
// a TUN with IFF_VNET_HDR:
//
//	flags(1) gso_type(1) hdr_len(2) gso_size(2) csum_start(2) csum_offset(2)
//
// all in host order.
const virtioLen = 10

const (
	virtioNeedsCsum = 1

	virtioGSONone  = 0
	virtioGSOTCPv4 = 1
	virtioGSOTCPv6 = 4
	virtioGSOUDPL4 = 5
	virtioGSOECN   = 0x80
)

// fromVirtio describes the packet that follows the header in buf as a burst.
// What it cannot take apart becomes Lone with Head empty, which Classify
// rejects.
func fromVirtio(b *packet.Burst, buf []byte) {
	pkt := buf[virtioLen:]
	flags, gso := buf[0], buf[1]&^virtioGSOECN
	b.Seg, b.Head, b.Segs = packet.Lone, pkt, b.Segs[:0]
	b.Partial = flags&virtioNeedsCsum != 0
	b.CsumStart = int(binary.NativeEndian.Uint16(buf[6:]))
	b.CsumOff = int(binary.NativeEndian.Uint16(buf[8:]))
	if b.Partial && b.CsumStart+b.CsumOff+2 > len(pkt) {
		b.Head = nil
		return
	}
	if gso == virtioGSONone {
		return
	}
	// hdr_len is what the kernel happened to have in one piece; the headers
	// themselves say where the payload begins.
	b.Head = nil
	hlen := b.CsumStart + packet.UDPHeaderLen
	if gso == virtioGSOTCPv4 || gso == virtioGSOTCPv6 {
		if len(pkt) < b.CsumStart+packet.TCPHeaderLen {
			return
		}
		hlen = b.CsumStart + int(pkt[b.CsumStart+12]>>4)*4
		b.Seg = packet.TCP
	} else if gso == virtioGSOUDPL4 {
		b.Seg = packet.UDP
	}
	size := int(binary.NativeEndian.Uint16(buf[4:]))
	if b.Seg == packet.Lone || !b.Partial || hlen > len(pkt) || !b.Split(pkt[hlen:], size) {
		b.Seg = packet.Lone
		return
	}
	b.Head = pkt[:hlen:hlen]
}

// putVirtio writes the header for b into the first ten octets of buf.
func putVirtio(buf []byte, b *packet.Burst) {
	clear(buf[:virtioLen])
	if b.Seg == packet.Lone {
		return
	}
	buf[0] = virtioNeedsCsum
	switch {
	case b.Seg == packet.UDP:
		buf[1] = virtioGSOUDPL4
	case b.H.V == 4:
		buf[1] = virtioGSOTCPv4
	default:
		buf[1] = virtioGSOTCPv6
	}
	binary.NativeEndian.PutUint16(buf[2:], uint16(len(b.Head)))
	binary.NativeEndian.PutUint16(buf[4:], uint16(len(b.Segs[0])))
	binary.NativeEndian.PutUint16(buf[6:], uint16(b.CsumStart))
	binary.NativeEndian.PutUint16(buf[8:], uint16(b.CsumOff))
}
