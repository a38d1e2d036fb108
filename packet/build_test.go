package packet

import (
	"net"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// Addresses of the packets that tests build.
var (
	src4, dst4 = net.IP{192, 0, 2, 1}, net.IP{198, 51, 100, 7}
	src6, dst6 = net.ParseIP("2001:db8::1"), net.ParseIP("2001:db8:ffff::2")
)

// fataler is what builders need of testing.T and rapid.T.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// serialize puts layers together with right lengths and checksums.
func serialize(t fataler, l ...gopacket.SerializableLayer) []byte {
	t.Helper()
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, l...); err != nil {
		t.Fatalf("serialize: %v", err)
	}
	return append([]byte(nil), buf.Bytes()...)
}

// segment is one packet of a flow, described.
type segment struct {
	v6      bool
	udp     bool
	tos     uint8
	ttl     uint8
	id      uint16
	df      bool
	label   uint32
	port    uint16
	seq     uint32
	ack     uint32
	flags   uint8
	window  uint16
	options []layers.TCPOption
	payload []byte
}

func (s *segment) build(t fataler) []byte {
	t.Helper()
	proto := layers.IPProtocolTCP
	if s.udp {
		proto = layers.IPProtocolUDP
	}
	var ip interface {
		gopacket.NetworkLayer
		gopacket.SerializableLayer
	}
	if s.v6 {
		ip = &layers.IPv6{Version: 6, TrafficClass: s.tos, FlowLabel: s.label, HopLimit: s.ttl,
			NextHeader: proto, SrcIP: src6, DstIP: dst6}
	} else {
		h := &layers.IPv4{Version: 4, IHL: 5, TOS: s.tos, TTL: s.ttl, Id: s.id, Protocol: proto, SrcIP: src4, DstIP: dst4}
		if s.df {
			h.Flags = layers.IPv4DontFragment
		}
		ip = h
	}
	if s.udp {
		udp := &layers.UDP{SrcPort: 40000, DstPort: layers.UDPPort(s.port)}
		udp.SetNetworkLayerForChecksum(ip)
		return serialize(t, ip, udp, gopacket.Payload(s.payload))
	}
	f := s.flags
	tcp := &layers.TCP{SrcPort: 40000, DstPort: layers.TCPPort(s.port), Seq: s.seq, Ack: s.ack, Window: s.window,
		FIN: f&1 != 0, SYN: f&2 != 0, RST: f&4 != 0, PSH: f&8 != 0, ACK: f&16 != 0, URG: f&32 != 0, ECE: f&64 != 0, CWR: f&128 != 0,
		Options: s.options}
	tcp.SetNetworkLayerForChecksum(ip)
	return serialize(t, ip, tcp, gopacket.Payload(s.payload))
}

// decode decodes an IP packet and verifies all its checksums.
func decode(t fataler, pkt []byte) gopacket.Packet {
	t.Helper()
	first := layers.LayerTypeIPv4
	if pkt[0]>>4 == 6 {
		first = layers.LayerTypeIPv6
	}
	p := gopacket.NewPacket(pkt, first, gopacket.Default)
	if e := p.ErrorLayer(); e != nil {
		t.Fatalf("decode %d octets, %.80x: %v", len(pkt), pkt, e.Error())
	}
	if l, ok := p.TransportLayer().(interface {
		SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
	}); ok {
		if err := l.SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
			t.Fatalf("%v", err)
		}
	}
	err, bad := p.VerifyChecksums()
	if err != nil || len(bad) > 0 {
		t.Fatalf("checksums of %d octets, %.80x: %v %v", len(pkt), pkt, err, bad)
	}
	return p
}

// classified returns the headers of a packet that must be good.
func classified(t testing.TB, pkt []byte) *Headers {
	t.Helper()
	b := Burst{Head: pkt}
	if d := b.Classify(); d != Kept {
		t.Fatalf("%x: %s", pkt, d)
	}
	return &b.H
}
