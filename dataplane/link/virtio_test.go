package link

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"ipsecd/packet"
)

// vnet is a virtio header.
type vnet struct {
	flags, gso                          uint8
	hdrLen, gsoSize, csumStart, csumOff uint16
}

func (v vnet) before(pkt []byte) []byte {
	b := []byte{v.flags, v.gso}
	for _, n := range []uint16{v.hdrLen, v.gsoSize, v.csumStart, v.csumOff} {
		b = binary.NativeEndian.AppendUint16(b, n)
	}
	return append(b, pkt...)
}

func parseVnet(b []byte) vnet {
	u := func(at int) uint16 { return binary.NativeEndian.Uint16(b[at:]) }
	return vnet{b[0], b[1], u(2), u(4), u(6), u(8)}
}

// ipPacket is an IP packet of protocol proto with n octets behind the IP header.
func ipPacket(v6 bool, proto uint8, n int) []byte {
	if v6 {
		p := make([]byte, packet.IPv6HeaderLen+n)
		h := packet.IPv6{HopLimit: 9, Next: proto, Src: packet.Addr{1}, Dst: packet.Addr{2}}
		h.Put(p, len(p))
		return p
	}
	p := make([]byte, packet.IPv4HeaderLen+n)
	h := packet.IPv4{TTL: 9, Proto: proto}
	h.Put(p, len(p))
	return p
}

// tcpPacket has a TCP header of 20 octets and options in front of n octets.
func tcpPacket(v6 bool, options, n int) []byte {
	p := ipPacket(v6, packet.ProtoTCP, packet.TCPHeaderLen+options+n)
	at := len(p) - n - options - packet.TCPHeaderLen
	p[at+12] = byte((packet.TCPHeaderLen + options) / 4 << 4)
	return p
}

func TestFromVirtio(t *testing.T) {
	tcp4, tcp6 := tcpPacket(false, 12, 250), tcpPacket(true, 0, 250)
	udp4, udp6 := ipPacket(false, packet.ProtoUDP, 258), ipPacket(true, packet.ProtoUDP, 258)
	shortOffset := bytes.Clone(tcp6)
	shortOffset[52] = 0x40
	longOffset := tcpPacket(true, 0, 10)
	longOffset[52] = 0xf0
	const sum = virtioNeedsCsum
	tests := []struct {
		name string
		v    vnet
		pkt  []byte
		want packet.Drop
		seg  packet.Segmentation
		head int
		segs []int
	}{
		{"lone", vnet{}, udp4, packet.Kept, packet.Lone, len(udp4), nil},
		{"checksum left to do", vnet{flags: sum, csumStart: 20, csumOff: 6}, udp4, packet.Kept, packet.Lone, len(udp4), nil},
		{"checksum at the very end", vnet{flags: sum, csumStart: 20, csumOff: 256}, udp4, packet.Kept, packet.Lone, len(udp4), nil},
		{"checksum beyond", vnet{flags: sum, csumStart: 20, csumOff: 257}, udp4, packet.Truncated, packet.Lone, 0, nil},
		{"checksum far beyond", vnet{flags: sum, csumStart: 65535, csumOff: 65535}, udp4, packet.Truncated, packet.Lone, 0, nil},
		{"nothing", vnet{}, nil, packet.Truncated, packet.Lone, 0, nil},
		{"header alone is not what its length says", vnet{}, udp4[:20], packet.Truncated, packet.Lone, 20, nil},

		{"TSO4", vnet{sum, virtioGSOTCPv4, 0, 100, 20, 16}, tcp4, packet.Kept, packet.TCP, 52, []int{100, 100, 50}},
		{"TSO4 with CWR", vnet{sum, virtioGSOTCPv4 | virtioGSOECN, 999, 125, 20, 16}, tcp4, packet.Kept, packet.TCP, 52, []int{125, 125}},
		{"TSO6", vnet{sum, virtioGSOTCPv6, 60, 249, 40, 16}, tcp6, packet.Kept, packet.TCP, 60, []int{249, 1}},
		{"TSO of one", vnet{sum, virtioGSOTCPv6, 60, 1000, 40, 16}, tcp6, packet.Kept, packet.TCP, 60, []int{250}},
		{"USO4", vnet{sum, virtioGSOUDPL4, 0, 100, 20, 6}, udp4, packet.Kept, packet.UDP, 28, []int{100, 100, 50}},
		{"USO6", vnet{sum, virtioGSOUDPL4, 0, 200, 40, 6}, udp6, packet.Kept, packet.UDP, 48, []int{200, 50}},

		{"TSO without checksum", vnet{0, virtioGSOTCPv4, 0, 100, 20, 16}, tcp4, packet.Truncated, packet.Lone, 0, nil},
		{"TSO of size 0", vnet{sum, virtioGSOTCPv4, 0, 0, 20, 16}, tcp4, packet.Truncated, packet.Lone, 0, nil},
		{"too many segments", vnet{sum, virtioGSOTCPv4, 0, 1, 20, 16}, tcp4, packet.Truncated, packet.Lone, 0, nil},
		{"no payload", vnet{sum, virtioGSOTCPv6, 0, 100, 40, 16}, tcp6[:60], packet.Truncated, packet.Lone, 0, nil},
		{"TCP header cut", vnet{sum, virtioGSOTCPv6, 0, 100, 40, 16}, tcp6[:59], packet.Truncated, packet.Lone, 0, nil},
		{"data offset short", vnet{sum, virtioGSOTCPv6, 0, 100, 40, 16}, shortOffset, packet.BadLength, packet.TCP, 56, []int{100, 100, 54}},
		{"data offset beyond", vnet{sum, virtioGSOTCPv6, 0, 100, 40, 16}, longOffset, packet.Truncated, packet.Lone, 0, nil},
		{"start in the IP header", vnet{sum, virtioGSOUDPL4, 0, 100, 0, 6}, udp4, packet.Truncated, packet.UDP, 8, []int{100, 100, 70}},
		{"start elsewhere", vnet{sum, virtioGSOUDPL4, 0, 100, 24, 6}, udp4, packet.BadLength, packet.UDP, 32, []int{100, 100, 46}},
		{"checksum elsewhere", vnet{sum, virtioGSOUDPL4, 0, 100, 20, 4}, udp4, packet.BadLength, packet.UDP, 28, []int{100, 100, 50}},
		{"UDP said to be TCP", vnet{sum, virtioGSOUDPL4, 0, 100, 20, 6}, tcp4, packet.BadLength, packet.UDP, 28, nil},
		{"unknown segmentation", vnet{sum, 3, 0, 100, 20, 6}, udp4, packet.Truncated, packet.Lone, 0, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := packet.Burst{Seg: packet.UDP, Head: []byte{1}, Segs: [][]byte{{2}}, Partial: true} // the one before
			fromVirtio(&b, tt.v.before(tt.pkt))
			if b.Seg != tt.seg || len(b.Head) != tt.head {
				t.Errorf("segmentation %d, %d octets of headers; want %d, %d", b.Seg, len(b.Head), tt.seg, tt.head)
			}
			if d := b.Classify(); d != tt.want {
				t.Fatalf("classified %s, want %s", d, tt.want)
			}
			if tt.want != packet.Kept {
				return
			}
			var segs []int
			for _, s := range b.Segs {
				segs = append(segs, len(s))
			}
			if !slices.Equal(segs, tt.segs) || b.Partial != (tt.v.flags == sum) {
				t.Errorf("segments of %v, want %v; partial %v", segs, tt.segs, b.Partial)
			}
			if whole := append(bytes.Clone(b.Head), bytes.Join(b.Segs, nil)...); !bytes.Equal(whole, tt.pkt) {
				t.Errorf("the packet is changed")
			}
		})
	}
}

func TestPutVirtio(t *testing.T) {
	tests := []struct {
		name string
		v    vnet
		pkt  []byte
	}{
		{"lone", vnet{}, ipPacket(false, packet.ProtoUDP, 20)},
		{"TSO4", vnet{virtioNeedsCsum, virtioGSOTCPv4, 52, 100, 20, 16}, tcpPacket(false, 12, 250)},
		{"TSO6", vnet{virtioNeedsCsum, virtioGSOTCPv6, 60, 200, 40, 16}, tcpPacket(true, 0, 250)},
		{"USO4", vnet{virtioNeedsCsum, virtioGSOUDPL4, 28, 100, 20, 6}, ipPacket(false, packet.ProtoUDP, 258)},
		{"USO6", vnet{virtioNeedsCsum, virtioGSOUDPL4, 48, 100, 40, 6}, ipPacket(true, packet.ProtoUDP, 258)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b packet.Burst
			fromVirtio(&b, tt.v.before(tt.pkt))
			if d := b.Classify(); d != packet.Kept {
				t.Fatal(d)
			}
			buf := bytes.Repeat([]byte{0xee}, virtioLen+1)
			putVirtio(buf, &b)
			if got := parseVnet(buf); got != tt.v || buf[virtioLen] != 0xee {
				t.Errorf("got %+v, want %+v", got, tt.v)
			}
		})
	}
}

// Whatever a device says of a packet, taking it apart does not panic.
func FuzzFromVirtio(f *testing.F) {
	f.Add(vnet{virtioNeedsCsum, virtioGSOTCPv4, 0, 100, 20, 16}.before(tcpPacket(false, 12, 250)))
	f.Add(vnet{virtioNeedsCsum, virtioGSOTCPv6, 0, 100, 40, 16}.before(tcpPacket(true, 0, 250)))
	f.Add(vnet{virtioNeedsCsum, virtioGSOUDPL4, 0, 100, 20, 6}.before(ipPacket(false, packet.ProtoUDP, 258)))
	f.Add(vnet{virtioNeedsCsum, virtioGSONone, 0, 0, 20, 6}.before(ipPacket(false, packet.ProtoUDP, 30)))
	f.Add(vnet{virtioNeedsCsum, virtioGSOUDPL4, 0, 9, 0, 6}.before(ipPacket(false, packet.ProtoUDP, 30)))
	f.Fuzz(func(t *testing.T, buf []byte) {
		if len(buf) < virtioLen {
			return
		}
		var b packet.Burst
		fromVirtio(&b, buf)
		if b.Classify() != packet.Kept {
			return
		}
		if b.Octets() > len(buf)-virtioLen+(b.Len()-1)*len(b.Head) {
			t.Fatalf("%d octets out of %d", b.Octets(), len(buf))
		}
		for k := range b.Len() {
			b.CopyPacket(make([]byte, b.PacketLen(k)), k)
		}
		putVirtio(make([]byte, virtioLen), &b)
	})
}

// A header that says where the checksum is, and that there is no room for TCP behind
// it, is not followed.
func TestVirtioTCPBeyond(t *testing.T) {
	pkt := tcpPacket(false, 0, 20)
	for start := range uint16(len(pkt) + 30) {
		for _, flags := range []uint8{0, virtioNeedsCsum} {
			var b packet.Burst
			fromVirtio(&b, vnet{flags, virtioGSOTCPv4, 0, 10, start, 0}.before(pkt))
			if d := b.Classify(); d == packet.Kept {
				t.Errorf("checksum at %d, flags %d: kept", start, flags)
			}
		}
	}
}
