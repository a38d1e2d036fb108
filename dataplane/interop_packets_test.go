package dataplane_test

import (
	"bytes"
	"net"
	"slices"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"ipsecd/packet"
)

// interopPacket is a packet, made by gopacket, and how it is cut in transport
// mode (RFC 4303 3.1.1): how much of it stands in front of ESP, and what the rest
// begins with.
type interopPacket struct {
	octets []byte
	head   int
	next   uint8
}

func octetsOf(pkts []interopPacket) [][]byte {
	var all [][]byte
	for _, p := range pkts {
		all = append(all, p.octets)
	}
	return all
}

// interopSizes of data leave every length of padding for blocks of 4 and of 16
// octets. Each case has a third of them, each suite all.
var interopSizes = []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 1300}

// interopPackets are UDP of the sizes of a third, TCP, ICMP, and what has more
// headers.
func interopPackets(t *testing.T, ends interopPair, third int) []interopPacket {
	t.Helper()
	m := makerOf(t, ends)
	var all []interopPacket
	for i := third; i < len(interopSizes); i += 3 {
		all = append(all, m.udp(data(interopSizes[i])))
	}
	if ends.v6() {
		return append(all, m.extended()...)
	}
	return append(all, m.optioned()...)
}

// data is n octets, none of them what padding would have there.
func data(n int) gopacket.Payload {
	return bytes.Repeat([]byte{0xd7, 0x00, 0xff}, n/3+1)[:n]
}

// packetMaker makes packets between two addresses.
type packetMaker struct {
	t        *testing.T
	src, dst net.IP
}

func makerOf(t *testing.T, ends interopPair) packetMaker {
	return packetMaker{t, net.ParseIP(ends.src), net.ParseIP(ends.dst)}
}

// udp is a datagram under a plain header of either family.
func (m packetMaker) udp(data gopacket.Payload) interopPacket {
	udp := &layers.UDP{SrcPort: 9, DstPort: 9}
	if m.src.To4() == nil {
		return m.v6(nil, nil, udp, data)
	}
	return m.v4(nil, udp, data)
}

// optioned are IPv4 packets of other kinds than plain UDP.
func (m packetMaker) optioned() []interopPacket {
	echo := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: 1, Seq: 2}
	udp := &layers.UDP{SrcPort: 9, DstPort: 9}
	record := []layers.IPv4Option{{OptionType: 7, OptionLength: 11, OptionData: []byte{4, 0, 0, 0, 0, 0, 0, 0, 0}}}
	alert := []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}}
	return []interopPacket{
		m.v4(nil, echo, data(56)),
		m.v4(nil, &layers.TCP{SrcPort: 9, DstPort: 9, SYN: true, Window: 1000}),
		m.v4(record, udp, data(21)),
		m.v4(alert, echo, data(8)),
	}
}

// v4 is an IPv4 packet. ESP goes behind its options.
func (m packetMaker) v4(options []layers.IPv4Option, l4 ...gopacket.SerializableLayer) interopPacket {
	proto := protoOf(l4[0])
	ip := &layers.IPv4{Version: 4, TTL: 64, TOS: 0xb8, Id: 7, Flags: layers.IPv4DontFragment,
		Protocol: layers.IPProtocol(proto), SrcIP: m.src, DstIP: m.dst, Options: options}
	octets := m.serialize(ip, append([]gopacket.SerializableLayer{ip}, l4...))
	return interopPacket{octets, int(octets[0]&15) * 4, proto}
}

// Extension headers, the first octet of which will name the next.
var (
	hopByHop    = extension{packet.ProtoHopByHop, []byte{0, 0, 5, 2, 0, 0, 1, 0}} // router alert, PadN
	routing     = extension{packet.ProtoRouting, []byte{0, 0, 0, 0, 0, 0, 0, 0}}  // no segments left
	destination = extension{packet.ProtoDstOpts, []byte{0, 0, 1, 4, 0, 0, 0, 0}}  // PadN
)

type extension struct {
	proto  uint8
	octets []byte
}

// extended are IPv6 packets of other kinds than plain UDP. ESP goes behind
// hop-by-hop options and routing headers, and before destination options that
// stand behind these.
func (m packetMaker) extended() []interopPacket {
	echo := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeEchoRequest, 0)}
	udp := &layers.UDP{SrcPort: 9, DstPort: 9}
	return []interopPacket{
		m.v6(nil, nil, echo, data(60)),
		m.v6(nil, nil, &layers.TCP{SrcPort: 9, DstPort: 9, SYN: true, Window: 1000}),
		m.v6([]extension{hopByHop}, nil, echo, data(8)),
		m.v6(nil, []extension{destination}, udp, data(21)),
		m.v6([]extension{hopByHop}, []extension{destination}, udp, data(21)),
		m.v6([]extension{hopByHop, destination, routing}, []extension{destination}, udp, data(21)),
	}
}

// v6 is an IPv6 packet with extension headers in front of where ESP goes and
// behind.
func (m packetMaker) v6(before, behind []extension, l4 ...gopacket.SerializableLayer) interopPacket {
	inside, next := chain(behind, protoOf(l4[0]))
	front, first := chain(before, next)
	ip := &layers.IPv6{Version: 6, HopLimit: 64, TrafficClass: 0xb8, FlowLabel: 0x12345,
		NextHeader: layers.IPProtocol(first), SrcIP: m.src, DstIP: m.dst}
	octets := m.serialize(ip, append([]gopacket.SerializableLayer{ip, gopacket.Payload(append(front, inside...))}, l4...))
	return interopPacket{octets, packet.IPv6HeaderLen + len(front), next}
}

// chain is extension headers in front of one of protocol next, and which is the
// first of all.
func chain(headers []extension, next uint8) (octets []byte, first uint8) {
	for _, h := range slices.Backward(headers) {
		octets, next = slices.Concat([]byte{next}, h.octets[1:], octets), h.proto
	}
	return octets, next
}

// anyUDP is a UDP packet of either family.
func anyUDP(t *testing.T, src, dst string, data []byte) []byte {
	t.Helper()
	return makerOf(t, interopPair{src, dst}).udp(data).octets
}

// protoOf is the IP protocol number of an upper layer.
func protoOf(l4 gopacket.SerializableLayer) uint8 {
	switch l4.(type) {
	case *layers.UDP:
		return packet.ProtoUDP
	case *layers.TCP:
		return packet.ProtoTCP
	case *layers.ICMPv4:
		return packet.ProtoICMP
	}
	return packet.ProtoICMPv6
}

// serialize makes the octets, all lengths and checksums right.
func (m packetMaker) serialize(ip gopacket.NetworkLayer, all []gopacket.SerializableLayer) []byte {
	m.t.Helper()
	for _, l := range all {
		if l, ok := l.(interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}); ok {
			if err := l.SetNetworkLayerForChecksum(ip); err != nil {
				m.t.Fatal(err)
			}
		}
	}
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, all...); err != nil {
		m.t.Fatal(err)
	}
	return bytes.Clone(buf.Bytes())
}
