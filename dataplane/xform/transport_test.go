package xform

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"ipsecd/packet"
	"ipsecd/sad"
)

// withOptions puts what a header may carry besides into pkt: a record route in
// IPv4; hop-by-hop, routing and destination options in IPv6.
func withOptions(pkt []byte) []byte {
	if pkt[0]>>4 == 4 {
		route := []byte{7, 7, 4, 0, 0, 0, 0, 1}
		out := append(append(bytes.Clone(pkt[:20]), route...), pkt[20:]...)
		out[0] = 0x47
		packet.SetNext(out, 9, pkt[9])
		return out
	}
	hop := []byte{43, 0, 1, 4, 0, 0, 0, 0}
	routing := []byte{60, 0, 253, 0, 0, 0, 0, 0}
	dst := []byte{pkt[6], 0, 1, 4, 0, 0, 0, 0}
	out := bytes.Join([][]byte{pkt[:40], hop, routing, dst, pkt[40:]}, nil)
	packet.SetNext(out, 6, 0)
	return out
}

// In transport mode a packet keeps its header in front, as far as nodes on the
// way look at it, and comes out as it went in (RFC 4303 3.1.1).
func TestTransportRoundTrip(t *testing.T) {
	forEachSA(t, func(t *testing.T, s sad.Spec) {
		s.Mode = sad.ModeTransport
		sa := newSA(t, s)
		here, there := NewWorker(0), NewWorker(0)
		rapid.Check(t, func(t *rapid.T) {
			in := inner{v6: s.Dst.Is6(), tos: rapid.Byte().Draw(t, "tos"), df: rapid.Bool().Draw(t, "df"),
				id: rapid.Uint16().Draw(t, "id"), label: rapid.Uint32Range(0, 0xfffff).Draw(t, "label"),
				size: rapid.IntRange(0, 100).Draw(t, "size")}
			pkt, own := in.build(t), 20
			if in.v6 {
				own = 40
			}
			if rapid.Bool().Draw(t, "options") {
				pkt = withOptions(pkt)
				if own += 8; in.v6 {
					own += 8
				}
			}
			sealed := sealAll(t, here, sa, sa.Reserve(1), lone(t, bytes.Clone(pkt)))[0]
			checkOwnHeader(t, sealed, pkt, own, s)
			if out := open(t, there, sa, sealed); !bytes.Equal(out, pkt) {
				t.Fatalf("out comes %x\nin went %x", out, pkt)
			}
		})
	})
}

// checkOwnHeader wants sealed to begin with the header of pkt, but for length,
// checksum and next header.
func checkOwnHeader(t fataler, sealed, pkt []byte, own int, s sad.Spec) {
	t.Helper()
	n, d := packet.IPLength(sealed)
	h := lone(t, sealed).H
	front := own
	if s.Encap != (sad.Encap{}) {
		front += packet.UDPHeaderLen
	}
	if d != packet.Kept || n != len(sealed) || h.L4 != own {
		t.Fatalf("%s, %d octets of %d, header of %d, want %d", d, n, len(sealed), h.L4, own)
	}
	if sealed[0]>>4 == 4 && packet.Checksum(sealed[:own], 0) != 0 {
		t.Fatalf("header checksum of %x", sealed[:own])
	}
	if spi := sealed[front : front+4]; !bytes.Equal(spi, []byte{0, 0, 0x12, 0x34}) {
		t.Fatalf("SPI %x behind %x", spi, sealed[:front])
	}
	same := bytes.Clone(sealed[:own])
	for _, at := range varies(h) {
		same[at] = pkt[at]
	}
	if !bytes.Equal(same, pkt[:own]) {
		t.Fatalf("header %x, want %x", same, pkt[:own])
	}
}

// varies are the offsets in a header that transport mode changes.
func varies(h packet.Headers) []int {
	if h.V == 4 {
		return []int{2, 3, 9, 10, 11}
	}
	return []int{4, 5, h.ProtoAt}
}

// A burst seals in transport mode to what its packets seal to one by one.
func TestTransportBurst(t *testing.T) {
	forEachSA(t, func(t *testing.T, s sad.Spec) {
		s.Mode = sad.ModeTransport
		sa := newSA(t, s)
		b := burst(t, inner{v6: s.Dst.Is6(), tos: 3, id: 9, label: 77, size: 17*100 - 37}.build(t), 100)
		g := sa.Reserve(17)
		together := sealAll(t, NewWorker(500), sa, g, b)
		w := NewWorker(500)
		for i, p := range packets(b) {
			one := sad.Grant{Seq: g.Seq + uint64(i), IV: g.IV + uint64(i), N: 1}
			if alone := sealAll(t, w, sa, one, lone(t, p))[0]; !bytes.Equal(alone, together[i]) {
				t.Fatalf("packet %d:\n%x alone\n%x in the burst", i, alone, together[i])
			}
			if out := open(t, w, sa, together[i]); !bytes.Equal(out, p) {
				t.Fatalf("packet %d opens to %x, want %x", i, out, p)
			}
		}
	})
}

// An SA of any mode opens both, by what the trailer announces; of the other two
// each is itself alone.
func TestDecapsulates(t *testing.T) {
	for mode, want := range map[sad.Mode][3]bool{
		sad.ModeAny:       {true, true, false},
		sad.ModeTunnel:    {true, true, true},
		sad.ModeTransport: {false, false, false},
	} {
		s := specOf(false, false, gcm)
		s.Mode = mode
		sa := newSA(t, s)
		got := [3]bool{Decapsulates(sa, packet.ProtoIPv4), Decapsulates(sa, packet.ProtoIPv6), Decapsulates(sa, packet.ProtoTCP)}
		if got != want {
			t.Errorf("mode %d: %v, want %v", mode, got, want)
		}
	}
}

// OpenTransport says when there is no room for what cannot be made in place.
func TestTransportRoom(t *testing.T) {
	s := specOf(true, true, null)
	s.Mode = sad.ModeTransport
	sa, b := newSA(t, s), lone(t, inner{v6: true, size: 30}.build(t))
	b.Seg = packet.UDP
	if p := OpenTransport(sa, b, make([]byte, 100), packet.ProtoTCP, packet.NewTrain(139)); p != nil {
		t.Errorf("%d octets in a room of 139", len(p))
	}
	if p := OpenTransport(sa, b, make([]byte, 100), packet.ProtoTCP, packet.NewTrain(140)); len(p) != 140 {
		t.Errorf("%d octets", len(p))
	}
}
