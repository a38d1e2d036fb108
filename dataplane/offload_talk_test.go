package dataplane_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"ipsecd/packet"
)

// talk is one flow of a way.
type talk struct {
	*way
	udp  bool
	tos  uint8
	df   bool
	id   uint16
	seq  uint32
	port uint16
}

// TCP flags of what is said: FIN, PSH and CWR on all of a burst, of which the
// first and the last packet keep some.
type tcpFlags struct{ fin, psh, cwr bool }

// packet is one packet of the flow, all checksums right.
func (f *talk) packet(t testing.TB, data []byte, flags tcpFlags) []byte {
	t.Helper()
	src, dst := f.inner()
	proto := layers.IPProtocolTCP
	if f.udp {
		proto = layers.IPProtocolUDP
	}
	var ip interface {
		gopacket.NetworkLayer
		gopacket.SerializableLayer
	} = &layers.IPv6{Version: 6, TrafficClass: f.tos, FlowLabel: 0xbeef, HopLimit: 63, NextHeader: proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
	if !f.inner6 {
		v4 := &layers.IPv4{Version: 4, TOS: f.tos, TTL: 63, Id: f.id, Protocol: proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
		if f.df {
			v4.Flags = layers.IPv4DontFragment
		}
		ip = v4
	}
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	udp := &layers.UDP{SrcPort: 1000, DstPort: layers.UDPPort(f.port)}
	tcp := &layers.TCP{SrcPort: 1000, DstPort: layers.TCPPort(f.port), Seq: f.seq, Ack: 77, Window: 500,
		ACK: true, FIN: flags.fin, PSH: flags.psh, CWR: flags.cwr}
	udp.SetNetworkLayerForChecksum(ip)
	tcp.SetNetworkLayerForChecksum(ip)
	var l4 gopacket.SerializableLayer = tcp
	if f.udp {
		l4 = udp
	}
	if err := gopacket.SerializeLayers(buf, opts, ip, l4, gopacket.Payload(data)); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(buf.Bytes())
}

// say is a burst of k segments of size octets, the last shorter by less, and the
// packets that a sender without offload would have sent. The flow goes on
// behind them.
func (f *talk) say(t testing.TB, r *rand.Rand, k, size, less int, flags tcpFlags) (packet.Burst, [][]byte) {
	t.Helper()
	data := make([]byte, k*size-less)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	b := f.burst(t, data, size, flags)
	var pkts [][]byte
	for at := 0; at < len(data); at += size {
		last := at+size >= len(data)
		pkts = append(pkts, f.packet(t, data[at:min(at+size, len(data))],
			tcpFlags{flags.fin && last, flags.psh && last, flags.cwr && at == 0}))
		f.seq += uint32(min(size, len(data)-at))
		f.id++
	}
	return b, pkts
}

// burst is what a TUN hands over of data, or would if that were longer than IP
// allows.
func (f *talk) burst(t testing.TB, data []byte, size int, flags tcpFlags) packet.Burst {
	t.Helper()
	fits := data[:min(len(data), 65000)]
	pkt := f.packet(t, fits, flags)
	b := packet.Burst{Seg: packet.TCP, Partial: true, CsumStart: outerLen(pkt), CsumOff: 16}
	proto := uint8(packet.ProtoTCP)
	if f.udp {
		b.Seg, b.CsumOff, proto = packet.UDP, 6, packet.ProtoUDP
	}
	head := len(pkt) - len(fits)
	sum := packet.Fold(packet.PseudoSum(pkt, proto, head-b.CsumStart+len(data)))
	binary.BigEndian.PutUint16(pkt[b.CsumStart+b.CsumOff:], sum)
	b.Head = pkt[:head:head]
	if !b.Split(data, size) {
		t.Fatalf("%d octets do not split by %d", len(data), size)
	}
	return b
}

// alone are packets as bursts of one.
func alone(pkts [][]byte) (bs []packet.Burst) {
	for _, p := range pkts {
		bs = append(bs, packet.Burst{Head: bytes.Clone(p)})
	}
	return bs
}

// samePackets compares octet for octet.
func samePackets(t testing.TB, what string, got, want [][]byte) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("%s: packet %d of %d is\n%.100x, want\n%.100x", what, i, len(want), got[i], want[i])
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%s: %d packets, want %d", what, len(got), len(want))
	}
}

// comparable blanks what does not come through: IDs with DF, which mean nothing
// (RFC 6864 4.1), where packets are joined; and in transport mode in UDP, whose
// socket does not tell them, any ID and DF itself.
func (w *way) comparable(pkts [][]byte) [][]byte {
	for i, p := range pkts {
		untold := w.transport && w.encap
		if p[0]>>4 == 6 || p[6]&0x40 == 0 && !untold {
			continue
		}
		p = bytes.Clone(p)
		clear(p[4:6])
		if untold {
			p[6] &^= 0x40
		}
		clear(p[10:12])
		pkts[i] = p
	}
	return pkts
}
