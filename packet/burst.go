package packet

import "encoding/binary"

// Segmentation says how the packets of a Burst differ in their headers.
type Segmentation uint8

const (
	Lone Segmentation = iota // one packet, all of it in Head
	TCP                      // Head is IP and TCP header, segments follow each other in sequence
	UDP                      // Head is IP and UDP header, each segment is a datagram
)

// MaxBurst bounds the packets of a Burst; the kernel's GSO has the same bound
// (UDP_MAX_SEGMENTS).
const MaxBurst = 128

// Burst is packets of one flow that arrived together, described once: the
// headers they share and the payload of each. A lone packet is a burst of one.
//
// The octets belong to the link that filled the burst and are valid until its
// next read. Head may be changed in place by whoever holds the burst.
type Burst struct {
	Seg  Segmentation
	Head []byte
	Segs [][]byte // payloads behind Head; nil for Lone

	// Partial says that the checksum of the upper layer, at CsumStart+CsumOff,
	// holds the sum of the pseudo-header alone, as the kernel hands it to a
	// device that offers checksum offload. A TCP or UDP burst is always so.
	Partial            bool
	CsumStart, CsumOff int

	H Headers // of Head, filled by Classify
}

// Len is the number of packets.
func (b *Burst) Len() int {
	if b.Seg == Lone {
		return 1
	}
	return len(b.Segs)
}

// PacketLen is the length of packet k.
func (b *Burst) PacketLen(k int) int {
	if b.Seg == Lone {
		return len(b.Head)
	}
	return len(b.Head) + len(b.Segs[k])
}

// Octets is the length of all packets together.
func (b *Burst) Octets() int {
	n := 0
	for k := range b.Len() {
		n += b.PacketLen(k)
	}
	return n
}

// CopyPacket writes packet k, whole and with finished checksums, to dst, which
// has PacketLen(k) octets. The pseudo-header's sum is taken from Head, where it
// is that of all packets together: with a routing header or a source route the
// addresses in Head are not those that it covers.
func (b *Burst) CopyPacket(dst []byte, k int) {
	copy(dst, b.Head)
	if b.Seg == Lone {
		if b.Partial {
			finishChecksum(dst, b.CsumStart, b.CsumOff)
		}
		return
	}
	copy(dst[len(b.Head):], b.Segs[k])
	b.setIP(dst, k)
	l4 := b.H.L4
	if b.Seg == TCP {
		b.setTCP(dst[l4:], k)
	} else {
		binary.BigEndian.PutUint16(dst[l4+4:], uint16(len(dst)-l4))
	}
	c := Checksum(dst[l4:], lengthSum(b.upperLen(), len(dst)-l4))
	if c == 0 && b.Seg == UDP {
		c = 0xffff // RFC 768: 0 means none
	}
	binary.BigEndian.PutUint16(dst[l4+b.CsumOff:], c)
}

// upperLen is the length of the upper layer of all packets joined in one.
func (b *Burst) upperLen() int {
	last := len(b.Segs) - 1
	return len(b.Head) - b.H.L4 + last*len(b.Segs[0]) + len(b.Segs[last])
}

// lengthSum is what a sum over a pseudo-header of length from lacks to be that
// of length to.
func lengthSum(from, to int) uint64 {
	var b [8]byte
	binary.BigEndian.PutUint32(b[:], ^uint32(from))
	binary.BigEndian.PutUint32(b[4:], uint32(to))
	return Sum(b[:], 0)
}

// setIP makes length and ID of packet k, as the kernel's segmentation does.
func (b *Burst) setIP(pkt []byte, k int) {
	if b.H.V == 6 {
		binary.BigEndian.PutUint16(pkt[4:], uint16(len(pkt)-IPv6HeaderLen))
		return
	}
	binary.BigEndian.PutUint16(pkt[2:], uint16(len(pkt)))
	binary.BigEndian.PutUint16(pkt[4:], binary.BigEndian.Uint16(b.Head[4:])+uint16(k))
	pkt[10], pkt[11] = 0, 0
	binary.BigEndian.PutUint16(pkt[10:], Checksum(pkt[:int(pkt[0]&15)*4], 0))
}

// TCP flags in octet 13 of the header.
const (
	tcpFIN = 0x01
	tcpPSH = 0x08
	tcpACK = 0x10
	tcpCWR = 0x80
)

// setTCP makes sequence number and flags of segment k: FIN and PSH stand on
// the last, CWR on the first (RFC 3168 6.1.2).
func (b *Burst) setTCP(tcp []byte, k int) {
	seq := binary.BigEndian.Uint32(b.Head[b.H.L4+4:])
	binary.BigEndian.PutUint32(tcp[4:], seq+uint32(k*len(b.Segs[0])))
	if k < len(b.Segs)-1 {
		tcp[13] &^= tcpFIN | tcpPSH
	}
	if k > 0 {
		tcp[13] &^= tcpCWR
	}
}

// finishChecksum completes a partial checksum in place.
func finishChecksum(pkt []byte, start, off int) {
	c := Checksum(pkt[start:], 0)
	if c == 0 {
		c = 0xffff // the same value in one's complement, and never UDP's "none"
	}
	binary.BigEndian.PutUint16(pkt[start+off:], c)
}

// Split makes segments of size octets of the payload that follows Head in a
// buffer; the last may be shorter. It reports false when there would be none
// or more than MaxBurst.
func (b *Burst) Split(payload []byte, size int) bool {
	b.Segs = b.Segs[:0]
	if size <= 0 || len(payload) == 0 || (len(payload)+size-1)/size > MaxBurst {
		return false
	}
	for len(payload) > size {
		b.Segs = append(b.Segs, payload[:size:size])
		payload = payload[size:]
	}
	b.Segs = append(b.Segs, payload)
	return true
}

// Classify fills H and checks the lengths that a burst claims.
func (b *Burst) Classify() Drop {
	if b.Seg != Lone {
		return b.classifyShared()
	}
	n, d := IPLength(b.Head)
	if d == Kept && n != len(b.Head) {
		d = BadLength
	}
	if d != Kept {
		return d
	}
	return b.H.Classify(b.Head)
}

// classifyShared is Classify of headers that several packets share: Head ends
// with the header that tells them apart, which CopyPacket writes to.
func (b *Burst) classifyShared() Drop {
	n, d := headerLength(b.Head)
	if d == Kept && n > len(b.Head) {
		d = Truncated
	}
	if d != Kept {
		return d
	}
	if d := b.H.Classify(b.Head); d != Kept {
		return d
	}
	proto, l4, csum := uint8(ProtoUDP), UDPHeaderLen, 6
	if b.Seg == TCP {
		proto, l4, csum = ProtoTCP, TCPHeaderLen, 16
	}
	if b.H.Proto != proto || b.H.Fragment || len(b.Head) < b.H.L4+l4 {
		return BadLength
	}
	if b.Partial && (b.CsumStart != b.H.L4 || b.CsumOff != csum) {
		return BadLength
	}
	return Kept
}
