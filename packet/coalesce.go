package packet

import (
	"bytes"
	"encoding/binary"
)

const (
	// maxIP is the longest IP packet a burst may be joined to.
	maxIP = 65535
	// maxJoinedUDP is UDP_MAX_SEGMENTS of kernels before 6.9, which refuse a
	// joined packet of more datagrams.
	maxJoinedUDP = 64
)

// Coalescer joins packets that arrive one behind the other in one flow into a
// burst, so that the host's stack takes them in one piece. What it joins, the
// kernel's segmentation would take apart into the same packets again: nothing
// but lengths, sequence, IPv4 ID and checksum may differ.
//
// A packet joins only after its own checksums verified, because those of a
// burst are made anew; all others go alone, as they are. IDs of packets with DF
// are not looked at, they mean nothing (RFC 6864 4.1).
type Coalescer struct {
	UDP bool // join UDP datagrams too: the device takes them (Linux 6.2)

	burst  Burst
	first  []byte // first packet, whole
	size   int    // payload of every segment but the last
	total  int    // of the joined packet
	seq    uint32 // TCP: the sequence number that continues the burst
	closed bool   // nothing may follow
}

// Burst returns what was joined since Start, ready to be written, and false
// if there is nothing. The next Start begins anew.
func (c *Coalescer) Burst() (*Burst, bool) {
	if c.first == nil {
		return nil, false
	}
	first := c.first
	c.first = nil
	if len(c.burst.Segs) < 2 {
		c.burst.Seg, c.burst.Head, c.burst.Segs, c.burst.Partial = Lone, first, c.burst.Segs[:0], false
		return &c.burst, true
	}
	c.finish()
	return &c.burst, true
}

// Start begins a burst with pkt, whose headers are h.
func (c *Coalescer) Start(pkt []byte, h *Headers) {
	c.first, c.total = pkt, len(pkt)
	b := &c.burst
	b.Segs, b.H = b.Segs[:0], *h
	n := c.joinable(pkt, h)
	c.closed = n == 0
	if c.closed {
		return
	}
	b.Head = pkt[:n:n]
	b.Segs = append(b.Segs, pkt[n:])
	c.size = len(pkt) - n
	if h.Proto == ProtoUDP {
		b.Seg, b.CsumOff = UDP, 6
		return
	}
	b.Seg, b.CsumOff = TCP, 16
	c.seq = binary.BigEndian.Uint32(pkt[h.L4+4:]) + uint32(c.size)
	c.closed = pkt[h.L4+13]&tcpPSH != 0
}

// Join adds pkt to the burst, or reports false: then the burst is to be
// written and pkt starts another.
func (c *Coalescer) Join(pkt []byte, h *Headers) bool {
	b := &c.burst
	if c.first == nil || c.closed || h.Flow != b.H.Flow || h.L4 != b.H.L4 || len(b.Segs) == c.most() {
		return false
	}
	n := len(b.Head)
	payload := len(pkt) - n
	if payload <= 0 || payload > c.size || c.total+payload > maxIP || !sameHeaders(b, pkt, len(b.Segs)) {
		return false
	}
	if b.Seg == TCP && binary.BigEndian.Uint32(pkt[h.L4+4:]) != c.seq {
		return false
	}
	if c.joinable(pkt, h) != n {
		return false
	}
	b.Segs = append(b.Segs, pkt[n:])
	c.total += payload
	c.seq += uint32(payload)
	c.closed = payload < c.size
	if b.Seg == TCP && pkt[h.L4+13]&tcpPSH != 0 {
		b.Head[h.L4+13] |= tcpPSH
		c.closed = true
	}
	return true
}

// most is how many packets a burst may have.
func (c *Coalescer) most() int {
	if c.burst.Seg == UDP {
		return maxJoinedUDP
	}
	return MaxBurst
}

// joinable returns the length of the headers if the packet can be part of a
// burst, else 0: plain IP without options, TCP with ACK, at most PSH and no
// urgent pointer or UDP with a checksum, some payload, and checksums that
// verify. 0xffff does so in the place of 0, but is not what IP and TCP would
// have made anew.
func (c *Coalescer) joinable(pkt []byte, h *Headers) int {
	fixed := IPv6HeaderLen
	if h.V == 4 {
		fixed = IPv4HeaderLen
	}
	if h.Fragment || h.L4 != fixed {
		return 0
	}
	if h.V == 4 && (Checksum(pkt[:fixed], 0) != 0 || pkt[10]&pkt[11] == 0xff) {
		return 0
	}
	l4, n := pkt[h.L4:], 0
	switch {
	case h.Proto == ProtoTCP && len(l4) >= TCPHeaderLen:
		if l4[13]&^tcpPSH != tcpACK || l4[16]&l4[17] == 0xff || l4[18]|l4[19] != 0 || l4[12]>>4 < 5 {
			return 0
		}
		n = int(l4[12]>>4) * 4
	case h.Proto == ProtoUDP && c.UDP && len(l4) >= UDPHeaderLen:
		if l4[6]|l4[7] == 0 || int(binary.BigEndian.Uint16(l4[4:])) != len(l4) {
			return 0
		}
		n = UDPHeaderLen
	default:
		return 0
	}
	if len(l4) <= n || Checksum(l4, PseudoSum(pkt, h.Proto, len(l4))) != 0 {
		return 0
	}
	return h.L4 + n
}

// sameHeaders compares all that segmentation copies from the first packet to
// packet k: TOS, DF, TTL, and of TCP the acknowledgement, window and options.
func sameHeaders(b *Burst, pkt []byte, k int) bool {
	head, l4 := b.Head, b.H.L4
	if b.H.V == 4 {
		if head[1] != pkt[1] || head[6] != pkt[6] || head[8] != pkt[8] {
			return false
		}
		df := head[6]&0x40 != 0
		if !df && binary.BigEndian.Uint16(pkt[4:]) != binary.BigEndian.Uint16(head[4:])+uint16(k) {
			return false
		}
	} else if !bytes.Equal(head[:4], pkt[:4]) || head[7] != pkt[7] {
		return false
	}
	if b.Seg == UDP {
		return true
	}
	h, p := head[l4:], pkt[l4:len(head)]
	return bytes.Equal(h[8:13], p[8:13]) && // acknowledgement, data offset
		h[13]&^tcpPSH == p[13]&^tcpPSH &&
		bytes.Equal(h[14:16], p[14:16]) && // window
		bytes.Equal(h[TCPHeaderLen:], p[TCPHeaderLen:]) // options
}

// finish makes Head the header of the joined packet, its checksum partial.
func (c *Coalescer) finish() {
	b := &c.burst
	ip, l4 := b.Head, b.Head[b.H.L4:]
	if b.H.V == 4 {
		binary.BigEndian.PutUint16(ip[2:], uint16(c.total))
		ip[10], ip[11] = 0, 0
		binary.BigEndian.PutUint16(ip[10:], Checksum(ip[:IPv4HeaderLen], 0))
	} else {
		binary.BigEndian.PutUint16(ip[4:], uint16(c.total-IPv6HeaderLen))
	}
	n := c.total - b.H.L4
	if b.Seg == UDP {
		binary.BigEndian.PutUint16(l4[4:], uint16(n))
	}
	b.Partial, b.CsumStart = true, b.H.L4
	binary.BigEndian.PutUint16(l4[b.CsumOff:], Fold(PseudoSum(ip, b.H.Proto, n)))
}
