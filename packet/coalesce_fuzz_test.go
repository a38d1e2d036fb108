package packet

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// A packet whose options look like the TCP header of the one before, and whose
// own TCP header is cut, does not join it.
func TestJoinOptionsLikeTCP(t *testing.T) {
	s := segment{payload: pattern(100), flags: tcpACK, df: true}
	first := s.build(t)
	options := bytes.Repeat([]byte{1}, 40)
	copy(options[8:16], first[28:36]) // acknowledgement, data offset, flags, window
	second := append(append(bytes.Clone(first[:20]), options...), first[20:24]...)
	second[0] = 0x4f
	SetNext(second, 9, ProtoTCP)
	c := Coalescer{}
	var h Headers
	h.Classify(first)
	c.Start(first, &h)
	if d := h.Classify(second); d != Kept {
		t.Fatal(d)
	}
	if c.Join(second, &h) {
		t.Error("joined")
	}
}

// mend makes lengths and checksums of a packet right where how says so, as far as
// it can be understood.
func mend(p []byte, how byte) {
	if len(p) < IPv6HeaderLen {
		return
	}
	if how&1 != 0 {
		at := ipv4ProtoAt
		if p[0]>>4 == 6 {
			at = ipv6NextAt
		}
		if n := int(p[0]&15) * 4; p[0]>>4 == 6 || p[0]>>4 == 4 && n >= IPv4HeaderLen && n <= len(p) {
			SetNext(p, at, p[at])
		}
	}
	b := Burst{Head: p}
	if how&2 == 0 || b.Classify() != Kept || b.H.Opaque {
		return
	}
	at := map[uint8]int{ProtoTCP: 16, ProtoUDP: 6}[b.H.Proto]
	l4 := p[b.H.L4:]
	if at == 0 || len(l4) < at+2 {
		return
	}
	l4[at], l4[at+1] = 0, 0
	binary.BigEndian.PutUint16(l4[at:], Checksum(l4, PseudoSum(p, b.H.Proto, len(l4))))
}

// FuzzJoin hands packets to a Coalescer: what it joins comes apart again into the
// same packets, but for the IPv4 IDs of those with DF.
func FuzzJoin(f *testing.F) {
	for _, s := range []segment{
		{payload: pattern(40), flags: tcpACK}, {payload: pattern(40), flags: tcpACK, df: true}, {payload: pattern(40), flags: tcpACK, v6: true}, {payload: pattern(40), udp: true},
	} {
		first := s.build(f)
		second := bytes.Clone(first)
		if !s.udp {
			l4 := len(first) - len(s.payload) - TCPHeaderLen
			binary.BigEndian.PutUint32(second[l4+4:], binary.BigEndian.Uint32(second[l4+4:])+40)
		}
		f.Add(first, second, second, byte(0xff))
		f.Add(first, second, first, byte(0))
	}
	f.Fuzz(func(t *testing.T, p, q, r []byte, how byte) {
		c := Coalescer{UDP: true}
		var sent, got [][]byte
		var h Headers
		flush := func() {
			if b, ok := c.Burst(); ok {
				for k := range b.Len() {
					p := make([]byte, b.PacketLen(k))
					b.CopyPacket(p, k)
					got = append(got, p)
				}
			}
		}
		for i, p := range [][]byte{bytes.Clone(p), bytes.Clone(q), bytes.Clone(r)} {
			mend(p, how>>(2*i))
			b := Burst{Head: p}
			if b.Classify() != Kept {
				continue
			}
			sent, h = append(sent, bytes.Clone(p)), b.H
			if !c.Join(p, &h) {
				flush()
				c.Start(p, &h)
			}
		}
		flush()
		if len(got) != len(sent) {
			t.Fatalf("%d packets of %d", len(got), len(sent))
		}
		for i := range sent {
			if want := sent[i]; want[0]>>4 == 4 && want[6]&0x40 != 0 {
				copy(want[4:6], got[i][4:6])
				copy(want[10:12], got[i][10:12])
			}
			if !bytes.Equal(got[i], sent[i]) {
				t.Fatalf("packet %d\n got %x\nwant %x", i, got[i], sent[i])
			}
		}
	})
}
