package link

import (
	"bytes"
	"encoding/binary"
	"net"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"ipsecd/packet"
)

// fataler is what builders need of testing.T and rapid.T.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// TCP flags, in the order of octet 13.
const (
	fin = 1 << iota
	syn
	rst
	psh
	ack
	urg
	ece
	cwr
)

// shape describes a packet, or all that share its headers.
type shape struct {
	v6, udp   bool
	noSum     bool // UDP over IPv4 without a checksum
	tos, ttl  uint8
	id        uint16
	df        bool
	ipOptions []layers.IPv4Option
	label     uint32
	ext       []extension
	port      uint16
	seq, ack  uint32
	flags     uint8
	window    uint16
	urgent    uint16
	options   []layers.TCPOption
	payload   []byte
}

// extension is an IPv6 extension header; its first octet, the next header, is
// set where it is put.
type extension struct {
	proto uint8
	body  []byte
}

// The two ends, and one that a routing header leads to.
var (
	shapeSrc4, shapeDst4 = net.IP{192, 0, 2, 1}, net.IP{198, 51, 100, 7}
	shapeSrc6, shapeDst6 = net.ParseIP("2001:db8::1"), net.ParseIP("2001:db8:ffff::2")
	shapeFinal4          = net.IP{203, 0, 113, 99}
	shapeFinal6          = net.ParseIP("2001:db8:eeee::9")
)

// Options and extension headers that packets come with.
var (
	timestamps = []layers.TCPOption{{OptionType: layers.TCPOptionKindNop}, {OptionType: layers.TCPOptionKindNop},
		{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: []byte("abcdefgh")}}
	later = append(timestamps[:2:2], layers.TCPOption{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: []byte("abcdefgX")})
	sack  = append(timestamps[:3:3], layers.TCPOption{OptionType: layers.TCPOptionKindNop}, layers.TCPOption{OptionType: layers.TCPOptionKindNop},
		layers.TCPOption{OptionType: layers.TCPOptionKindSACK, OptionLength: 18, OptionData: []byte("ABCDEFGHIJKLMNOP")})

	routerAlert = []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}}
	// RFC 791 3.1: the route that is left ends at shapeFinal4, which the
	// pseudo-header holds.
	sourceRoute = []layers.IPv4Option{{OptionType: 131, OptionLength: 7, OptionData: append([]byte{4}, shapeFinal4...)}, {OptionType: 0}}

	hopByHop = extension{packet.ProtoHopByHop, []byte{0, 0, 5, 2, 0, 0, 1, 0}}
	dstOpts  = extension{packet.ProtoDstOpts, []byte{0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}}
	// RFC 6275 6.4: segments left 1, and the home address.
	routing = extension{packet.ProtoRouting, append([]byte{0, 2, 2, 1, 0, 0, 0, 0}, shapeFinal6...)}
)

// build makes the packet, all checksums right.
func (s *shape) build(t fataler) []byte {
	t.Helper()
	l4 := s.upper(t)
	if s.noSum {
		l4[6], l4[7] = 0, 0
	}
	return s.under(t, l4)
}

// upper makes what is behind the IP headers.
func (s *shape) upper(t fataler) []byte {
	t.Helper()
	if s.udp {
		udp := &layers.UDP{SrcPort: 40000, DstPort: layers.UDPPort(s.port)}
		udp.SetNetworkLayerForChecksum(s.pseudo())
		return serialized(t, udp, s.payload)
	}
	f := s.flags
	tcp := &layers.TCP{SrcPort: 40000, DstPort: layers.TCPPort(s.port), Seq: s.seq, Ack: s.ack, Window: s.window, Urgent: s.urgent,
		FIN: f&fin != 0, SYN: f&syn != 0, RST: f&rst != 0, PSH: f&psh != 0, ACK: f&ack != 0, URG: f&urg != 0, ECE: f&ece != 0, CWR: f&cwr != 0,
		Options: s.options}
	tcp.SetNetworkLayerForChecksum(s.pseudo())
	return serialized(t, tcp, s.payload)
}

// pseudo is the IP header that the checksum covers parts of: bound for where
// the packet's journey ends (RFC 8200 8.1, RFC 1122 4.2.3.8).
func (s *shape) pseudo() gopacket.NetworkLayer {
	if s.v6 {
		dst := shapeDst6
		for _, e := range s.ext {
			if e.proto == packet.ProtoRouting {
				dst = shapeFinal6
			}
		}
		return &layers.IPv6{Version: 6, NextHeader: s.proto(), SrcIP: shapeSrc6, DstIP: dst}
	}
	dst := shapeDst4
	for _, o := range s.ipOptions {
		if o.OptionType == 131 {
			dst = shapeFinal4
		}
	}
	return &layers.IPv4{Version: 4, Protocol: s.proto(), SrcIP: shapeSrc4, DstIP: dst}
}

func (s *shape) proto() layers.IPProtocol {
	if s.udp {
		return layers.IPProtocolUDP
	}
	return layers.IPProtocolTCP
}

// under puts the IP headers in front of l4.
func (s *shape) under(t fataler, l4 []byte) []byte {
	t.Helper()
	if !s.v6 {
		ip := &layers.IPv4{Version: 4, TOS: s.tos, TTL: s.ttl, Id: s.id, Protocol: s.proto(), SrcIP: shapeSrc4, DstIP: shapeDst4, Options: s.ipOptions}
		if s.df {
			ip.Flags = layers.IPv4DontFragment
		}
		return serialized(t, ip, l4)
	}
	next, rest := uint8(s.proto()), l4
	for i := len(s.ext) - 1; i >= 0; i-- {
		e := bytes.Clone(s.ext[i].body)
		e[0] = next
		next, rest = s.ext[i].proto, append(e, rest...)
	}
	return serialized(t, &layers.IPv6{Version: 6, TrafficClass: s.tos, FlowLabel: s.label, HopLimit: s.ttl,
		NextHeader: layers.IPProtocol(next), SrcIP: shapeSrc6, DstIP: shapeDst6}, rest)
}

func serialized(t fataler, l gopacket.SerializableLayer, payload []byte) []byte {
	t.Helper()
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, l, gopacket.Payload(payload)); err != nil {
		t.Fatalf("serialize: %v", err)
	}
	return bytes.Clone(buf.Bytes())
}

// packets are those that a sender without offload makes of s, size octets of
// payload in each.
func (s *shape) packets(t fataler, size int) (pkts [][]byte) {
	t.Helper()
	for at := 0; at < len(s.payload); at += size {
		one := *s
		one.payload = s.payload[at:min(at+size, len(s.payload))]
		one.id += uint16(len(pkts))
		one.seq += uint32(at)
		if at+size < len(s.payload) {
			one.flags &^= fin | psh
		}
		if at > 0 {
			one.flags &^= cwr
		}
		pkts = append(pkts, one.build(t))
	}
	return pkts
}

// unfinished is the packet as a device that computes checksums is handed it,
// and where its upper layer and its checksum stand.
func (s *shape) unfinished(t fataler) (pkt []byte, start, off int) {
	t.Helper()
	pkt = s.build(t)
	l4 := len(s.upper(t))
	start, off = len(pkt)-l4, 16
	if s.udp {
		off = 6
	}
	sum := slowSum(pseudoHeader(pkt, uint8(s.proto()), l4))
	binary.BigEndian.PutUint16(pkt[start+off:], sum)
	return pkt, start, off
}

// offloaded is the frame of a TUN with segments of size octets.
func (s *shape) offloaded(t fataler, size int) []byte {
	t.Helper()
	pkt, start, off := s.unfinished(t)
	v := vnet{flags: virtioNeedsCsum, gsoSize: uint16(size), hdrLen: uint16(len(pkt) - len(s.payload)), csumStart: uint16(start), csumOff: uint16(off)}
	switch {
	case s.udp:
		v.gso = virtioGSOUDPL4
	case s.v6:
		v.gso = virtioGSOTCPv6
	default:
		v.gso = virtioGSOTCPv4
	}
	if s.flags&cwr != 0 && !s.udp {
		v.gso |= virtioGSOECN
	}
	return v.before(pkt)
}

// slowSegments takes a frame apart as the kernel's segmentation does, octet by
// octet and with nothing of what it tests: only the last packet has FIN and
// PSH, only the first CWR (RFC 3168 6.1.2), IPv4 IDs count up.
func slowSegments(frame []byte) (pkts [][]byte) {
	v, whole := parseVnet(frame), frame[virtioLen:]
	start, field := int(v.csumStart), int(v.csumStart)+int(v.csumOff)
	if v.gso == virtioGSONone {
		pkt := bytes.Clone(whole)
		if v.flags&virtioNeedsCsum != 0 {
			binary.BigEndian.PutUint16(pkt[field:], finished(^slowSum(pkt[start:]), true))
		}
		return append(pkts, pkt)
	}
	udp := v.gso == virtioGSOUDPL4
	hlen := start + 8
	if !udp {
		hlen = start + int(whole[start+12]>>4)*4
	}
	size := int(v.gsoSize)
	for at := hlen; at < len(whole); at += size {
		end := min(at+size, len(whole))
		pkt := append(bytes.Clone(whole[:hlen]), whole[at:end]...)
		slowLengths(pkt, start, len(pkts), udp)
		if !udp {
			slowTCP(pkt[start:], at-hlen, end == len(whole))
		}
		pkt[field], pkt[field+1] = 0, 0
		proto := uint8(packet.ProtoTCP)
		if udp {
			proto = packet.ProtoUDP
		}
		sum := ^slowSum(append(pseudoHeader(pkt, proto, len(pkt)-start), pkt[start:]...))
		binary.BigEndian.PutUint16(pkt[field:], finished(sum, udp))
		pkts = append(pkts, pkt)
	}
	return pkts
}

// slowLengths fills the length fields of packet k, and its ID.
func slowLengths(pkt []byte, start, k int, udp bool) {
	if udp {
		binary.BigEndian.PutUint16(pkt[start+4:], uint16(len(pkt)-start))
	}
	if pkt[0]>>4 == 6 {
		binary.BigEndian.PutUint16(pkt[4:], uint16(len(pkt)-40))
		return
	}
	binary.BigEndian.PutUint16(pkt[2:], uint16(len(pkt)))
	binary.BigEndian.PutUint16(pkt[4:], binary.BigEndian.Uint16(pkt[4:])+uint16(k))
	pkt[10], pkt[11] = 0, 0
	binary.BigEndian.PutUint16(pkt[10:], ^slowSum(pkt[:int(pkt[0]&15)*4]))
}

// slowTCP sets what differs in the TCP header of a segment at octet at.
func slowTCP(tcp []byte, at int, last bool) {
	binary.BigEndian.PutUint32(tcp[4:], binary.BigEndian.Uint32(tcp[4:])+uint32(at))
	if !last {
		tcp[13] &= 0xff - fin - psh
	}
	if at > 0 {
		tcp[13] &= 0xff - cwr
	}
}

// finished is how a checksum is written: UDP's zero means none (RFC 768), and a
// device that completes one without a look at its protocol never writes zero.
func finished(sum uint16, never0 bool) uint16 {
	if sum == 0 && never0 {
		return 0xffff
	}
	return sum
}

// slowSum is the loop of RFC 1071 4.1, word by word.
func slowSum(b []byte) uint16 {
	sum := uint32(0)
	for i, octet := range b {
		if i%2 == 0 {
			sum += uint32(octet) << 8
		} else {
			sum += uint32(octet)
		}
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum>>16 + sum&0xffff)
}

// pseudoHeader is what RFC 9293 3.1 and RFC 8200 8.1 draw, its destination the
// end of the packet's journey.
func pseudoHeader(pkt []byte, proto uint8, n int) []byte {
	if pkt[0]>>4 == 4 {
		dst := pkt[16:20]
		if pkt[0] > 0x45 && pkt[20] == 131 && pkt[22] < pkt[21] { // a loose source route, not yet at its end
			dst = pkt[20+int(pkt[21])-4:][:4]
		}
		return append(append(bytes.Clone(pkt[12:16]), dst...), 0, proto, byte(n>>8), byte(n))
	}
	dst := pkt[24:40]
	for next, at := pkt[6], 40; next == packet.ProtoHopByHop || next == packet.ProtoDstOpts || next == packet.ProtoRouting; {
		if next == packet.ProtoRouting && pkt[at+3] > 0 {
			dst = pkt[at+8:][:16]
		}
		next, at = pkt[at], at+8+int(pkt[at+1])*8
	}
	return append(append(bytes.Clone(pkt[8:24]), dst...), 0, 0, byte(n>>8), byte(n), 0, 0, 0, proto)
}
