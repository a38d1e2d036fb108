package xform

import (
	"bytes"
	"testing"

	"ipsecd/packet"
)

// RFC 6040 4.2, figure 4, whole: rows are the inner codepoint, columns the
// outer one, in the RFC's order.
func TestDecapsulateECN(t *testing.T) {
	const drop = 0xff
	outers := []uint8{notECT, ect0, ect1, ce}
	for inner, row := range map[uint8][4]uint8{
		notECT: {notECT, notECT, notECT, drop},
		ect0:   {ect0, ect0, ect1, ce},
		ect1:   {ect1, ect1, ect1, ce},
		ce:     {ce, ce, ce, ce},
	} {
		for i, want := range row {
			got, ok := decapsulateECN(inner, outers[i])
			if !ok {
				got = drop
			}
			if got != want {
				t.Errorf("inner %d, outer %d: %#x, want %#x", inner, outers[i], got, want)
			}
		}
	}
}

// The same by whole packets: of the octet nothing but ECN changes, whatever
// DSCP either header has, and the checksum goes with it.
func TestOpenTunnelTOS(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		next := uint8(packet.ProtoIPv4)
		if v6 {
			next = packet.ProtoIPv6
		}
		for in := range 256 {
			for ecn := range uint8(4) {
				pkt := inner{v6: v6, tos: uint8(in), label: 0xabcde, size: 5}.build(t)
				want, ok := decapsulateECN(uint8(in)&3, ecn)
				got, d := OpenTunnel(bytes.Clone(pkt), next, 0xb8|ecn)
				if !ok {
					if d != packet.ECN || got != nil {
						t.Errorf("inner %#x, outer ECN %d: %s", in, ecn, d)
					}
					continue
				}
				expect := inner{v6: v6, tos: uint8(in)&^3 | want, label: 0xabcde, size: 5}.build(t)
				if d != packet.Kept || !bytes.Equal(got, expect) {
					t.Fatalf("inner %#x, outer ECN %d: %s\n%x, want\n%x", in, ecn, d, got, expect)
				}
			}
		}
	}
}

func TestOpenTunnelPayload(t *testing.T) {
	p4, p6 := inner{size: 30}.build(t), inner{v6: true, size: 30}.build(t)
	changed := func(p []byte, at int, to byte) []byte { p = bytes.Clone(p); p[at] = to; return p }
	tests := []struct {
		name    string
		payload []byte
		next    uint8
		want    []byte
		drop    packet.Drop
	}{
		{"IPv4", p4, 4, p4, packet.Kept},
		{"IPv6", p6, 41, p6, packet.Kept},
		{"TFC padding behind IPv4", append(bytes.Clone(p4), make([]byte, 500)...), 4, p4, packet.Kept},
		{"TFC padding behind IPv6", append(bytes.Clone(p6), make([]byte, 500)...), 41, p6, packet.Kept},
		{"dummy", p4, 59, nil, packet.BadInner},
		{"transport mode's", p4, 6, nil, packet.BadInner},
		{"next header 0", p4, 0, nil, packet.BadInner},
		{"IPv6 announced as IPv4", p6, 4, nil, packet.BadInner},
		{"IPv4 announced as IPv6", p4, 41, nil, packet.BadInner},
		{"nothing", nil, 4, nil, packet.BadInner},
		{"version 0", changed(p4, 0, 0x05), 4, nil, packet.BadInner},
		{"IHL 4", changed(p4, 0, 0x44), 4, nil, packet.BadInner},
		{"total length below the header", changed(p4, 3, 19), 4, nil, packet.BadInner},
		{"total length beyond", changed(p4, 2, 0xff), 4, nil, packet.BadInner},
		{"payload length beyond", changed(p6, 4, 0xff), 41, nil, packet.BadInner},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, d := OpenTunnel(bytes.Clone(tt.payload), tt.next, 0)
			if d != tt.drop || !bytes.Equal(got, tt.want) {
				t.Errorf("%s, %x; want %s, %x", d, got, tt.drop, tt.want)
			}
			if cap(got) != len(got) {
				t.Error("what stands behind the packet can be reached from it")
			}
		})
	}
	for n := range p4 {
		if _, d := OpenTunnel(bytes.Clone(p4[:n]), 4, 0); d != packet.BadInner {
			t.Errorf("%d octets of IPv4: %s", n, d)
		}
	}
	for n := range p6 {
		if _, d := OpenTunnel(bytes.Clone(p6[:n]), 41, 0); d != packet.BadInner {
			t.Errorf("%d octets of IPv6: %s", n, d)
		}
	}
}
