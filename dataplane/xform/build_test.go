package xform

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"ipsecd/crypto"
	"ipsecd/crypto/alg"
	"ipsecd/packet"
	"ipsecd/sad"
)

type fataler interface {
	Helper()
	Fatalf(string, ...any)
}

// kinds are the shapes of SA that the tests go through: a combined cipher, one
// with a MAC, and none with a MAC, whose ESP header is the shortest.
const (
	gcm  = "AES-GCM"
	cbc  = "AES-CBC"
	null = "null"
)

// specOf is an SA from gateway to gateway of one family, in tunnel mode.
func specOf(v6, encap bool, kind string) sad.Spec {
	s := sad.Spec{
		ID:   sad.ID{SPI: 0x1234, Proto: sad.ProtoESP, Dst: netip.MustParseAddr("198.51.100.2")},
		Src:  netip.MustParseAddr("198.51.100.1"),
		Mode: sad.ModeTunnel, Replay: 32,
	}
	if v6 {
		s.Src, s.Dst = netip.MustParseAddr("2001:db8:f::1"), netip.MustParseAddr("2001:db8:f::2")
	}
	if encap {
		s.Encap = sad.Encap{SrcPort: 4500, DstPort: 4501}
	}
	switch kind {
	case gcm:
		s.Enc, s.EncKey = alg.AESGCM16, []byte("0123456789abcdefsalt")
	case cbc:
		s.Enc, s.EncKey = alg.AESCBC, []byte("0123456789abcdef")
		s.Auth, s.AuthKey = alg.HMACSHA2_256, bytes.Repeat([]byte{5}, 32)
	case null:
		s.Enc, s.Auth, s.AuthKey = alg.NullEnc, alg.HMACSHA1, bytes.Repeat([]byte{6}, 20)
	}
	return s
}

// esnHigh is the high half of the sequence numbers of SAs with ESN.
const esnHigh = 7

// newSA returns an SA of a database of its own.
func newSA(t fataler, s sad.Spec) *sad.SA {
	t.Helper()
	sa, err := sad.NewSA(s)
	if err == nil {
		if s.ESN {
			sa.Resume(esnHigh<<32, esnHigh<<32)
		}
		err = sad.New().Add(sa)
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
	return sa
}

// inner describes a TCP packet that goes through a tunnel.
type inner struct {
	v6    bool
	tos   uint8
	df    bool
	id    uint16
	label uint32
	size  int // of its payload
}

func (i inner) build(t fataler) []byte {
	t.Helper()
	tcp := &layers.TCP{SrcPort: 1, DstPort: 2, Seq: 100, Ack: 7, ACK: true, PSH: true, Window: 9}
	var ip interface {
		gopacket.NetworkLayer
		gopacket.SerializableLayer
	}
	if i.v6 {
		ip = &layers.IPv6{Version: 6, TrafficClass: i.tos, FlowLabel: i.label, HopLimit: 17, NextHeader: layers.IPProtocolTCP,
			SrcIP: net.ParseIP("2001:db8::1"), DstIP: net.ParseIP("2001:db8:ffff::2")}
	} else {
		h := &layers.IPv4{Version: 4, IHL: 5, TOS: i.tos, TTL: 17, Id: i.id, Protocol: layers.IPProtocolTCP,
			SrcIP: net.IP{10, 0, 0, 1}, DstIP: net.IP{10, 0, 0, 2}}
		if i.df {
			h.Flags = layers.IPv4DontFragment
		}
		ip = h
	}
	tcp.SetNetworkLayerForChecksum(ip)
	payload := make([]byte, i.size)
	for k := range payload {
		payload[k] = byte(k * 11)
	}
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, ip, tcp, gopacket.Payload(payload)); err != nil {
		t.Fatalf("%v", err)
	}
	return bytes.Clone(buf.Bytes())
}

// lone is a packet as a burst of one.
func lone(t fataler, pkt []byte) *packet.Burst {
	t.Helper()
	b := &packet.Burst{Head: pkt}
	if d := b.Classify(); d != packet.Kept {
		t.Fatalf("%.80x: %s", pkt, d)
	}
	return b
}

// burst is a packet cut to segments of size octets, as a TUN hands it over.
func burst(t fataler, pkt []byte, size int) *packet.Burst {
	t.Helper()
	l4 := lone(t, pkt).H.L4
	hlen := l4 + int(pkt[l4+12]>>4)*4
	binary.BigEndian.PutUint16(pkt[l4+16:], packet.Fold(packet.PseudoSum(pkt, packet.ProtoTCP, len(pkt)-l4)))
	b := &packet.Burst{Seg: packet.TCP, Head: pkt[:hlen:hlen], Partial: true, CsumStart: l4, CsumOff: 16}
	if !b.Split(pkt[hlen:], size) {
		t.Fatalf("%d octets do not split by %d", len(pkt)-hlen, size)
	}
	if d := b.Classify(); d != packet.Kept {
		t.Fatalf("burst: %s", d)
	}
	return b
}

// packets are those of a burst, one by one.
func packets(b *packet.Burst) (out [][]byte) {
	for k := range b.Len() {
		p := make([]byte, b.PacketLen(k))
		b.CopyPacket(p, k)
		out = append(out, p)
	}
	return out
}

// sealAll seals a burst to its end, in the mode of the SA.
func sealAll(t fataler, w *Worker, sa *sad.SA, g sad.Grant, b *packet.Burst) [][]byte {
	t.Helper()
	out := packet.NewTrain(256 << 10)
	if n := w.SealESP(sa, sa.Spec().Mode, g, b, 0, out); n != b.Len() || len(out.Pkts) != n {
		t.Fatalf("sealed %d of %d, %d packets", n, b.Len(), len(out.Pkts))
	}
	return out.Pkts
}

// outer are the header fields of a sealed packet, as gopacket sees them.
type outer struct {
	V, TOS, TTL  uint8
	DF           bool
	ID           uint16
	Label        uint32
	Src, Dst     string
	Ports        [2]uint16 // of UDP
	UDPChecksum  uint16
	SPI, Seq     uint32
	esp          []byte
	fragment     bool
	lengthsAgree bool
}

func decodeOuter(t fataler, pkt []byte) (o outer) {
	t.Helper()
	first := layers.LayerTypeIPv4
	if pkt[0]>>4 == 6 {
		first = layers.LayerTypeIPv6
	}
	p := gopacket.NewPacket(pkt, first, gopacket.NoCopy)
	proto := layers.IPProtocolESP
	switch ip := p.NetworkLayer().(type) {
	case *layers.IPv4:
		if err, r := ip.VerifyChecksum(); err != nil || !r.Valid {
			t.Fatalf("header checksum of %.40x", pkt)
		}
		o = outer{V: 4, TOS: ip.TOS, TTL: ip.TTL, DF: ip.Flags == layers.IPv4DontFragment, ID: ip.Id,
			Src: ip.SrcIP.String(), Dst: ip.DstIP.String(), fragment: ip.FragOffset != 0 || ip.Flags&layers.IPv4MoreFragments != 0}
		o.lengthsAgree, o.esp, proto = int(ip.Length) == len(pkt), ip.Payload, ip.Protocol
	case *layers.IPv6:
		o = outer{V: 6, TOS: ip.TrafficClass, TTL: ip.HopLimit, Label: ip.FlowLabel, Src: ip.SrcIP.String(), Dst: ip.DstIP.String()}
		o.lengthsAgree, o.esp, proto = int(ip.Length)+40 == len(pkt), ip.Payload, ip.NextHeader
	default:
		t.Fatalf("no IP: %.40x", pkt)
	}
	if udp, ok := p.TransportLayer().(*layers.UDP); ok {
		o.Ports, o.UDPChecksum = [2]uint16{uint16(udp.SrcPort), uint16(udp.DstPort)}, udp.Checksum
		o.lengthsAgree = o.lengthsAgree && int(udp.Length) == len(o.esp)
		o.esp, proto = udp.Payload, layers.IPProtocolESP
	}
	if proto != layers.IPProtocolESP || len(o.esp) < 8 {
		t.Fatalf("no ESP: %.40x", pkt)
	}
	o.SPI, o.Seq = binary.BigEndian.Uint32(o.esp), binary.BigEndian.Uint32(o.esp[4:])
	return o
}

// open opens a sealed packet to what went in, as it comes from a raw socket, or
// from one of encapsulation.
func open(t fataler, w *Worker, sa *sad.SA, pkt []byte) []byte {
	t.Helper()
	b := lone(t, bytes.Clone(pkt))
	esp := b.Head[b.H.L4:]
	if b.H.Proto == packet.ProtoUDP {
		n := b.H.L4 + packet.UDPHeaderLen
		b.Seg, b.Segs, b.Head = packet.UDP, [][]byte{b.Head[n:]}, b.Head[:n:n]
		esp = b.Segs[0]
	}
	payload, next, d := opened(w, sa, esp)
	if d != packet.Kept {
		t.Fatalf("open: %s", d)
	}
	if !Decapsulates(sa, next) {
		return OpenTransport(sa, b, payload, next, packet.NewTrain(128<<10))
	}
	in, d := OpenTunnel(payload, next, packet.TOS(pkt))
	if d != packet.Kept {
		t.Fatalf("tunnel: %s", d)
	}
	return in
}

func highHalf(sa *sad.SA) uint32 {
	if sa.Spec().ESN {
		return esnHigh
	}
	return 0
}

// handMade is an ESP packet whose text is the caller's to the last octet, as
// only a holder of the keys could send it.
func handMade(t testing.TB, sa *sad.SA, text []byte) []byte {
	t.Helper()
	esp := make([]byte, 8+sa.Suite.IVLen+len(text)+sa.Suite.ICVLen)
	binary.BigEndian.PutUint32(esp, sa.Spec().SPI)
	binary.BigEndian.PutUint32(esp[4:], 1)
	copy(esp[8+sa.Suite.IVLen:], text)
	sa.Suite.NewCipher().Seal(new(crypto.Scratch), esp, highHalf(sa), 99)
	return esp
}
