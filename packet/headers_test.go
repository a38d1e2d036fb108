package packet

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket/layers"
	"pgregory.net/rapid"
)

// v4 is an IPv4 packet of the given protocol, with flags and offset as they
// stand in octets 6 and 7 and options of the given length.
func v4(proto uint8, frag uint16, options int, l4 ...byte) []byte {
	hlen := IPv4HeaderLen + options
	p := make([]byte, hlen, hlen+len(l4))
	p[0], p[8], p[9] = 0x40|byte(hlen/4), 64, proto
	binary.BigEndian.PutUint16(p[2:], uint16(hlen+len(l4)))
	binary.BigEndian.PutUint16(p[6:], frag)
	copy(p[12:], src4)
	copy(p[16:], dst4)
	return append(p, l4...)
}

// v6 is an IPv6 packet.
func v6(next uint8, rest ...byte) []byte {
	p := make([]byte, IPv6HeaderLen, IPv6HeaderLen+len(rest))
	p[0], p[6], p[7] = 0x60, next, 64
	binary.BigEndian.PutUint16(p[4:], uint16(len(rest)))
	copy(p[8:], src6)
	copy(p[24:], dst6)
	return append(p, rest...)
}

func join(parts ...[]byte) (out []byte) {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// ext is an extension header of 8 octets, and 8 for each of more.
func ext(next uint8, more int) []byte {
	b := make([]byte, 8+8*more)
	b[0], b[1] = next, byte(more)
	return b
}

func fragment(next uint8, offset uint16, more bool) []byte {
	b := ext(next, 0)
	frag := offset << 3
	if more {
		frag |= 1
	}
	binary.BigEndian.PutUint16(b[2:], frag)
	return b
}

func TestClassify(t *testing.T) {
	a4, b4 := AddrFrom(netip.MustParseAddr("192.0.2.1")), AddrFrom(netip.MustParseAddr("198.51.100.7"))
	a6, b6 := AddrFrom(netip.MustParseAddr("2001:db8::1")), AddrFrom(netip.MustParseAddr("2001:db8:ffff::2"))
	flow4 := func(proto uint8, sport, dport uint16) Flow {
		return Flow{Src: a4, Dst: b4, SrcPort: sport, DstPort: dport, Proto: proto, V: 4}
	}
	flow6 := func(proto uint8, sport, dport uint16) Flow {
		return Flow{Src: a6, Dst: b6, SrcPort: sport, DstPort: dport, Proto: proto, V: 6}
	}
	opaque := func(f Flow) Flow { f.Opaque = true; return f }
	ports := []byte{0x12, 0x34, 0x56, 0x78}
	seven := func(last uint8) (b []byte) {
		for range 6 {
			b = append(b, ext(ProtoDstOpts, 0)...)
		}
		return append(b, ext(last, 0)...)
	}
	tests := []struct {
		name string
		pkt  []byte
		want Headers
		drop Drop
	}{
		{"v4 tcp", v4(ProtoTCP, 0, 0, ports...), Headers{Flow: flow4(6, 0x1234, 0x5678), L4: 20, ProtoAt: 9}, Kept},
		{"v4 udp, DF, options", v4(ProtoUDP, 0x4000, 12, ports...), Headers{Flow: flow4(17, 0x1234, 0x5678), L4: 32, ProtoAt: 9}, Kept},
		{"v4 longest header", v4(ProtoSCTP, 0, 40, ports...), Headers{Flow: flow4(132, 0x1234, 0x5678), L4: 60, ProtoAt: 9}, Kept},
		{"v4 reserved flag", v4(ProtoDCCP, 0x8000, 0, ports...), Headers{Flow: flow4(33, 0x1234, 0x5678), L4: 20, ProtoAt: 9}, Kept},
		{"v4 udp-lite", v4(ProtoUDPLite, 0, 0, ports...), Headers{Flow: flow4(136, 0x1234, 0x5678), L4: 20, ProtoAt: 9}, Kept},
		{"v4 icmp", v4(ProtoICMP, 0, 0, 8, 0), Headers{Flow: flow4(1, 8, 0), L4: 20, ProtoAt: 9}, Kept},
		{"v4 icmp code", v4(ProtoICMP, 0, 0, 3, 4), Headers{Flow: flow4(1, 3, 4), L4: 20, ProtoAt: 9}, Kept},
		{"v4 esp has no ports", v4(ProtoESP, 0, 0, ports...), Headers{Flow: flow4(50, 0, 0), L4: 20, ProtoAt: 9}, Kept},
		{"v4 without payload", v4(ProtoGRE, 0, 0), Headers{Flow: flow4(47, 0, 0), L4: 20, ProtoAt: 9}, Kept},
		{"v4 first fragment", v4(ProtoUDP, 0x2000, 0, ports...), Headers{Flow: flow4(17, 0x1234, 0x5678), L4: 20, ProtoAt: 9, Fragment: true}, Kept},
		{"v4 later fragment", v4(ProtoUDP, 0x2001, 0, ports...), Headers{Flow: opaque(flow4(17, 0, 0)), L4: 20, ProtoAt: 9, Fragment: true}, Kept},
		{"v4 last fragment", v4(ProtoTCP, 0x1fff, 0, 1), Headers{Flow: opaque(flow4(6, 0, 0)), L4: 20, ProtoAt: 9, Fragment: true}, Kept},
		{"v4 tcp cut", v4(ProtoTCP, 0, 0, 1, 2, 3), Headers{}, Truncated},
		{"v4 icmp cut", v4(ProtoICMP, 0, 0, 8), Headers{}, Truncated},

		{"v6 tcp", v6(ProtoTCP, ports...), Headers{Flow: flow6(6, 0x1234, 0x5678), L4: 40, ProtoAt: 6}, Kept},
		{"v6 icmp", v6(ProtoICMPv6, 128, 0), Headers{Flow: flow6(58, 128, 0), L4: 40, ProtoAt: 6}, Kept},
		{"v6 no next header", v6(ProtoNoNext), Headers{Flow: flow6(59, 0, 0), L4: 40, ProtoAt: 6}, Kept},
		{"v6 all extensions", v6(ProtoHopByHop, join(ext(ProtoDstOpts, 2), ext(ProtoRouting, 0), ext(ProtoFragment, 1),
			fragment(ProtoDstOpts, 0, false), ext(ProtoUDP, 0), ports)...),
			Headers{Flow: flow6(17, 0x1234, 0x5678), L4: 40 + 24 + 8 + 16 + 8 + 8, ProtoAt: 96}, Kept},
		{"v6 atomic fragment", v6(ProtoFragment, join(fragment(ProtoTCP, 0, false), ports)...),
			Headers{Flow: flow6(6, 0x1234, 0x5678), L4: 48, ProtoAt: 40}, Kept},
		{"v6 first fragment", v6(ProtoFragment, join(fragment(ProtoTCP, 0, true), ports)...),
			Headers{Flow: flow6(6, 0x1234, 0x5678), L4: 48, ProtoAt: 40, Fragment: true}, Kept},
		{"v6 later fragment", v6(ProtoFragment, join(fragment(ProtoTCP, 1, true), ports)...),
			Headers{Flow: opaque(flow6(6, 0, 0)), L4: 48, ProtoAt: 40, Fragment: true}, Kept},
		{"v6 last fragment without data", v6(ProtoFragment, fragment(ProtoDstOpts, 8191, false)...),
			Headers{Flow: opaque(flow6(60, 0, 0)), L4: 48, ProtoAt: 40, Fragment: true}, Kept},
		{"v6 seven extensions", v6(ProtoDstOpts, join(seven(ProtoTCP), ports)...),
			Headers{Flow: flow6(6, 0x1234, 0x5678), L4: 96, ProtoAt: 88}, Kept},
		{"v6 too many extensions", v6(ProtoDstOpts, join(seven(ProtoDstOpts), ext(ProtoTCP, 0), ports)...), Headers{}, BadLength},
		{"v6 extension missing", v6(ProtoHopByHop), Headers{}, Truncated},
		{"v6 extension cut", v6(ProtoHopByHop, ext(ProtoTCP, 0)[:7]...), Headers{}, Truncated},
		{"v6 extension longer than packet", v6(ProtoRouting, ext(ProtoTCP, 1)[:15]...), Headers{}, Truncated},
		{"v6 fragment header cut", v6(ProtoFragment, fragment(ProtoTCP, 0, true)[:7]...), Headers{}, Truncated},
		{"v6 udp cut", v6(ProtoUDP, 1, 2, 3), Headers{}, Truncated},
		{"v6 icmp cut", v6(ProtoICMPv6, 1), Headers{}, Truncated},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := Burst{Head: tt.pkt, H: Headers{Flow: Flow{SrcPort: 99, Opaque: true}, Fragment: true}} // of the burst before
			if d := b.Classify(); d != tt.drop {
				t.Fatalf("got %s, want %s", d, tt.drop)
			}
			if diff := cmp.Diff(tt.want, b.H); tt.drop == Kept && diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// ProtoGRE is a protocol that the packet path knows nothing of.
const ProtoGRE = 47

func TestIPLength(t *testing.T) {
	long := func(p []byte, n int) []byte { return append(p, make([]byte, n)...) }
	set := func(p []byte, at int, v byte) []byte { p[at] = v; return p }
	tests := []struct {
		name string
		b    []byte
		n    int
		drop Drop
	}{
		{"nothing", nil, 0, Truncated},
		{"v4 first octet", []byte{0x45}, 0, Truncated},
		{"v4 header cut", v4(ProtoTCP, 0, 0)[:19], 0, Truncated},
		{"v4 header alone", v4(ProtoTCP, 0, 0), 20, Kept},
		{"v4 something behind", long(v4(ProtoTCP, 0, 0, 1, 2), 30), 22, Kept},
		{"v4 cut", v4(ProtoTCP, 0, 0, 1, 2)[:21], 0, Truncated},
		{"v4 options cut", v4(ProtoTCP, 0, 40)[:59], 0, Truncated},
		{"v4 IHL 4", set(v4(ProtoTCP, 0, 0), 0, 0x44), 0, BadLength},
		{"v4 IHL 0", set(v4(ProtoTCP, 0, 0), 0, 0x40), 0, BadLength},
		{"v4 header longer than packet", set(v4(ProtoTCP, 0, 0), 0, 0x4f), 0, BadLength},
		{"v4 length 19", set(v4(ProtoTCP, 0, 0), 3, 19), 0, BadLength},
		{"v6 first octet", []byte{0x60}, 0, Truncated},
		{"v6 header cut", v6(ProtoTCP)[:39], 0, Truncated},
		{"v6 header alone", v6(ProtoTCP), 40, Kept},
		{"v6 something behind", long(v6(ProtoTCP, 1, 2), 1), 42, Kept},
		{"v6 cut", v6(ProtoTCP, 1, 2)[:41], 0, Truncated},
		{"version 0", make([]byte, 60), 0, BadVersion},
		{"version 5", set(v4(ProtoTCP, 0, 0), 0, 0x55), 0, BadVersion},
		{"version 15", []byte{0xff}, 0, BadVersion},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if n, d := IPLength(tt.b); n != tt.n || d != tt.drop {
				t.Errorf("got %d, %s; want %d, %s", n, d, tt.n, tt.drop)
			}
		})
	}
}

func TestClassifyWholePacketOnly(t *testing.T) {
	b := Burst{Head: append(v4(ProtoICMP, 0, 0, 8, 0), 0)}
	if d := b.Classify(); d != BadLength {
		t.Errorf("an octet too many: %s", d)
	}
}

func FuzzClassify(f *testing.F) {
	f.Add(v4(ProtoTCP, 0, 4, 1, 2, 3, 4))
	f.Add(v4(ProtoUDP, 0x2001, 0, 1))
	f.Add(v6(ProtoHopByHop, join(ext(ProtoFragment, 1), fragment(ProtoTCP, 0, true), []byte{1, 2, 3, 4})...))
	f.Add(v6(ProtoICMPv6, 1))
	f.Fuzz(func(t *testing.T, pkt []byte) {
		for _, seg := range []Segmentation{Lone, TCP, UDP} {
			b := Burst{Seg: seg, Head: pkt, Segs: [][]byte{{1, 2}, {3}}}
			if b.Classify() != Kept {
				continue
			}
			if b.H.L4 < IPv4HeaderLen || b.H.L4 > len(pkt) {
				t.Fatalf("upper layer at %d of %d", b.H.L4, len(pkt))
			}
			b.CsumOff = map[Segmentation]int{TCP: 16, UDP: 6}[seg]
			for k := range b.Len() {
				b.CopyPacket(make([]byte, b.PacketLen(k)), k)
			}
			if b.H.V == 4 {
				continue
			}
			if TOS(pkt) != pkt[0]<<4|pkt[1]>>4 {
				t.Fatal("traffic class")
			}
		}
	})
}

func TestSetTOS(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := segment{v6: rapid.Bool().Draw(t, "v6"), udp: true, tos: rapid.Byte().Draw(t, "from"), ttl: 3,
			id: rapid.Uint16().Draw(t, "id"), label: 0xabcde, port: 9, payload: []byte("x")}
		pkt := s.build(t)
		if got := TOS(pkt); got != s.tos {
			t.Fatalf("TOS %#02x, want %#02x", got, s.tos)
		}
		s.tos = rapid.Byte().Draw(t, "to")
		SetTOS(pkt, s.tos)
		if diff := cmp.Diff(s.build(t), pkt); diff != "" {
			t.Fatalf("(-want +got)\n%s", diff)
		}
	})
}

func TestDecrementTTL(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := segment{v6: rapid.Bool().Draw(t, "v6"), udp: true, ttl: rapid.Byte().Draw(t, "ttl"),
			id: rapid.Uint16().Draw(t, "id"), port: 9, payload: []byte("x")}
		pkt := s.build(t)
		left := s.ttl > 1
		if left {
			s.ttl--
		}
		if DecrementTTL(pkt) != left {
			t.Fatalf("the other of %v", left)
		}
		if diff := cmp.Diff(s.build(t), pkt); diff != "" {
			t.Fatalf("(-want +got)\n%s", diff)
		}
	})
}

func TestPutIPv4(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := IPv4{TOS: rapid.Byte().Draw(t, "tos"), TTL: rapid.Byte().Draw(t, "ttl"), Proto: ProtoESP,
			DF: rapid.Bool().Draw(t, "df"), ID: rapid.Uint16().Draw(t, "id"),
			Src: AddrFrom4(src4), Dst: AddrFrom4(dst4)}
		n := rapid.IntRange(28, 1500).Draw(t, "n")
		pkt := make([]byte, n)
		for i := range pkt {
			pkt[i] = 0xee // of the packet before
		}
		h.Put(pkt, n)
		ip := decode(t, pkt).NetworkLayer().(*layers.IPv4)
		got := IPv4{ip.TOS, ip.TTL, uint8(ip.Protocol), ip.Flags == layers.IPv4DontFragment, ip.Id,
			AddrFrom4(ip.SrcIP), AddrFrom4(ip.DstIP)}
		if got != h || int(ip.Length) != n || ip.IHL != 5 || ip.FragOffset != 0 || ip.Flags&^layers.IPv4DontFragment != 0 {
			t.Fatalf("got %+v in %v, want %+v", got, ip, h)
		}
	})
}

func TestPutIPv6(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := IPv6{TOS: rapid.Byte().Draw(t, "tos"), FlowLabel: rapid.Uint32Range(0, 0xfffff).Draw(t, "label"),
			HopLimit: rapid.Byte().Draw(t, "hops"), Next: ProtoESP, Src: Addr(src6), Dst: Addr(dst6)}
		n := rapid.IntRange(48, 1500).Draw(t, "n")
		pkt := make([]byte, n)
		h.Put(pkt, n)
		ip := decode(t, pkt).NetworkLayer().(*layers.IPv6)
		got := IPv6{ip.TrafficClass, ip.FlowLabel, ip.HopLimit, uint8(ip.NextHeader), Addr(ip.SrcIP), Addr(ip.DstIP)}
		if got != h || int(ip.Length) != n-40 || ip.Version != 6 {
			t.Fatalf("got %+v in %v, want %+v", got, ip, h)
		}
	})
}

func TestAddr(t *testing.T) {
	for _, s := range []string{"192.0.2.1", "2001:db8::1", "::"} {
		if got := AddrFrom(netip.MustParseAddr(s)); got.String() != s {
			t.Errorf("%s comes back as %s", s, got)
		}
	}
	if AddrFrom4(src4) != AddrFrom(netip.MustParseAddr("::ffff:192.0.2.1")) {
		t.Error("the mapped form differs")
	}
}

// Every field that tells flows apart changes the hash, and so does the seed.
func TestFlowHash(t *testing.T) {
	f := Flow{Src: Addr(src6), Dst: Addr(dst6), SrcPort: 1, DstPort: 2, Proto: 6, V: 6}
	seen := map[uint64]bool{f.Hash(1): true, f.Hash(2): true}
	changes := []func(*Flow){
		func(f *Flow) { f.Src[0]++ }, func(f *Flow) { f.Src[15]++ }, func(f *Flow) { f.Dst[0]++ },
		func(f *Flow) { f.Dst[15]++ }, func(f *Flow) { f.SrcPort++ }, func(f *Flow) { f.DstPort++ },
		func(f *Flow) { f.Proto++ }, func(f *Flow) { f.V = 4 }, func(f *Flow) { f.Src, f.Dst = f.Dst, f.Src },
	}
	for _, change := range changes {
		g := f
		change(&g)
		seen[g.Hash(1)] = true
	}
	if len(seen) != len(changes)+2 {
		t.Errorf("%d hashes of %d flows", len(seen), len(changes)+2)
	}
}
