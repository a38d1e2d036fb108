package packet

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

// The pseudo-header's sum that the host handed over stays what it is but for the
// length, although it is not that of the addresses in the header: with a routing
// header it is of where the packet goes in the end.
func TestOffloadKeepsThePseudoHeader(t *testing.T) {
	for _, udp := range []bool{false, true} {
		s := segment{v6: true, udp: udp, ttl: 9, port: 443, flags: tcpACK, payload: pattern(1234)}
		b := offloaded(t, s, 100)
		field := b.CsumStart + b.CsumOff
		const more = 0x1234 // that the final address sums to beyond the one in the header
		sum := uint32(binary.BigEndian.Uint16(b.Head[field:])) + more
		binary.BigEndian.PutUint16(b.Head[field:], uint16(sum>>16+sum))
		for k := range b.Len() {
			p := make([]byte, b.PacketLen(k))
			b.CopyPacket(p, k)
			l4 := p[b.H.L4:]
			if got := Fold(Sum(l4, PseudoSum(p, b.H.Proto, len(l4)))); got != 0xffff-more {
				t.Errorf("UDP %v, packet %d sums to %#x, want %#x", udp, k, got, 0xffff-more)
			}
		}
	}
}

// A burst of UDP datagrams is no longer than the kernels take that take them from
// a TUN at all.
func TestOffloadJoinsUDPForOldKernels(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		s := segment{v6: v6, udp: true, ttl: 9, df: true, port: 443, payload: pattern(40)}
		in := slices.Repeat([][]byte{s.build(t)}, 2*maxJoinedUDP+3)
		c := Coalescer{UDP: true}
		if _, bursts := coalesce(t, &c, in); !slices.Equal(bursts, []int{64, 64, 3}) {
			t.Errorf("IPv6 %v: bursts of %v", v6, bursts)
		}
	}
}

// A checksum of 0xffff verifies in the place of 0, and would come back as 0: such
// a packet goes alone.
func TestOffloadOtherZeroGoesAlone(t *testing.T) {
	s := segment{ttl: 9, df: true, port: 443, flags: tcpACK, payload: pattern(40)}
	var in [][]byte
	for range 3 {
		in = append(in, s.build(t))
		s.seq += 40
	}
	p, h := in[1], classified(t, bytes.Clone(in[1]))
	p[h.L4+20], p[h.L4+21] = 0, 0 // make the rest sum up to zero
	fixTCP(p, h)
	copy(p[h.L4+20:], p[h.L4+16:h.L4+18])
	p[h.L4+16], p[h.L4+17] = 0xff, 0xff
	if sum := Fold(Sum(p[h.L4:], PseudoSum(p, h.Proto, len(p)-h.L4))); sum != 0xffff {
		t.Fatalf("sums to %#x", sum)
	}
	var c Coalescer
	out, bursts := coalesce(t, &c, in)
	if !slices.Equal(bursts, []int{1, 1, 1}) || !bytes.Equal(out[1], p) {
		t.Errorf("bursts of %v", bursts)
	}
}
