package link

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/gopacket/gopacket/layers"
	"pgregory.net/rapid"

	"ipsecd/packet"
)

// joined puts packets through a Coalescer and out as frames, as the engine and
// the TUN's writer do.
func joined(t fataler, pkts [][]byte, takesUDP bool) (frames [][]byte) {
	t.Helper()
	c := packet.Coalescer{UDP: takesUDP}
	flush := func() {
		b, ok := c.Burst()
		if !ok {
			return
		}
		frame := make([]byte, virtioLen)
		putVirtio(frame, b)
		frames = append(frames, append(append(frame, b.Head...), bytes.Join(b.Segs, nil)...))
	}
	for _, p := range pkts {
		b := packet.Burst{Head: bytes.Clone(p)}
		if d := b.Classify(); d != packet.Kept {
			t.Fatalf("%.60x: %s", p, d)
		}
		if !c.Join(b.Head, &b.H) {
			flush()
			c.Start(b.Head, &b.H)
		}
	}
	flush()
	return frames
}

// oldUDPSegments is UDP_MAX_SEGMENTS of kernels before 6.9, which refuse a
// frame of more.
const oldUDPSegments = 64

// kernelTakes checks a frame as virtio_net_hdr_to_skb does, of any kernel.
func kernelTakes(t fataler, frame []byte) {
	t.Helper()
	v, pkt := parseVnet(frame), frame[virtioLen:]
	if v == (vnet{}) {
		return
	}
	start, thlen := int(v.csumStart), 20
	udp := v.gso == virtioGSOUDPL4
	if udp {
		thlen = 8
	}
	segments := (len(pkt) - start - thlen + int(v.gsoSize) - 1) / max(1, int(v.gsoSize))
	switch {
	case v.flags != virtioNeedsCsum, v.gsoSize == 0:
		t.Fatalf("%+v", v)
	case start+int(v.csumOff)+2 > len(pkt), start+thlen > len(pkt), int(v.hdrLen) > len(pkt), int(v.hdrLen) < start+thlen:
		t.Fatalf("%+v of %d octets", v, len(pkt))
	case udp && v.csumOff != 6, !udp && v.csumOff != 16:
		t.Fatalf("%+v", v)
	case !udp && (v.gso == virtioGSOTCPv4) != (pkt[0]>>4 == 4), !udp && v.gso != virtioGSOTCPv4 && v.gso != virtioGSOTCPv6:
		t.Fatalf("%+v for IPv%d", v, pkt[0]>>4)
	case udp && segments > oldUDPSegments:
		t.Fatalf("%d datagrams in a frame", segments)
	case len(pkt) > 65535:
		t.Fatalf("%d octets", len(pkt))
	}
	if n, d := packet.IPLength(pkt); d != packet.Kept || n != len(pkt) {
		t.Fatalf("the IP header says %d of %d octets, %s", n, len(pkt), d)
	}
}

// stream draws the packets of a flow whose sender changes its mind now and
// then, and which the way to us damages.
func stream(t *rapid.T) (pkts [][]byte) {
	s := drawShape(t)
	if rapid.IntRange(0, 3).Draw(t, "plain") > 0 {
		s.ext, s.ipOptions = nil, nil
	}
	ids := uint16(1)
	if s.df {
		ids = rapid.SampledFrom([]uint16{1, 1, 0}).Draw(t, "IDs count")
	}
	mss := rapid.IntRange(1, 700).Draw(t, "MSS")
	for range rapid.IntRange(1, 90).Draw(t, "packets") {
		one, n := s, mss
		switch rapid.IntRange(0, 29).Draw(t, "change") {
		case 0:
			mss = rapid.IntRange(1, 700).Draw(t, "new MSS")
			n = mss
		case 1:
			n = rapid.IntRange(0, mss).Draw(t, "short")
		case 2:
			one.flags |= rapid.SampledFrom([]uint8{psh, fin, urg, cwr, ece, rst, syn}).Draw(t, "flag")
		case 3:
			s.ack += 1000
			one.ack = s.ack
		case 4:
			s.options = rapid.SampledFrom([][]layers.TCPOption{nil, timestamps, later, sack}).Draw(t, "new options")
			one.options = s.options
		case 5:
			one.tos ^= 3
		case 6:
			one.noSum = s.udp && !s.v6
		case 7:
			one.seq += 7
		case 8:
			one.df = !s.df
		case 9:
			one.urgent = 1
		case 10:
			s.window--
			one.window = s.window
		case 11:
			one.ttl++
		case 12:
			one.label ^= 1
		case 13:
			one.id += 5
		}
		one.payload = pattern(n, byte(len(pkts)))
		pkt := one.build(t)
		if rapid.IntRange(0, 39).Draw(t, "damage") == 0 {
			pkt[len(pkt)-1] ^= 1
		}
		pkts = append(pkts, pkt)
		s.seq += uint32(n)
		s.id += ids
	}
	return pkts
}

// What is joined for the TUN is taken by every kernel and comes apart, by the
// slow segmenter, into exactly the packets that went in.
func TestOffloadJoinedComesApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := stream(t)
		frames := joined(t, in, rapid.Bool().Draw(t, "takes UDP"))
		var out [][]byte
		for _, f := range frames {
			kernelTakes(t, f)
			out = append(out, slowSegments(f)...)
		}
		equal(t, "joined", withoutAtomicIDs(out, in), in)
	})
}

// withoutAtomicIDs gives packets with DF the ID that they had: it means nothing
// there (RFC 6864 4.1), and those of a frame count up.
func withoutAtomicIDs(pkts, had [][]byte) [][]byte {
	for i, p := range pkts {
		if i < len(had) && p[0]>>4 == 4 && p[6]&0x40 != 0 && len(p) == len(had[i]) {
			copy(p[4:6], had[i][4:6])
			p[10], p[11] = 0, 0
			binary.BigEndian.PutUint16(p[10:], ^slowSum(p[:int(p[0]&15)*4]))
		}
	}
	return pkts
}

// Frames are as long as they can be: an engine that joins nothing would pass the
// test above.
func TestOffloadJoins(t *testing.T) {
	for _, tt := range []struct {
		name    string
		of      shape
		octets  int
		count   int
		packets []int // in each frame
	}{
		{"TCP4", shape{flags: ack, df: true, options: timestamps}, 1400, 44, []int{44}},
		{"TCP4 no DF", shape{flags: ack, id: 0xfff0}, 1400, 44, []int{44}},
		{"TCP6", shape{v6: true, flags: ack, label: 9}, 1400, 44, []int{44}},
		{"TCP4 small", shape{flags: ack}, 50, 130, []int{packet.MaxBurst, 2}},
		{"UDP4", shape{udp: true}, 700, 66, []int{oldUDPSegments, 2}},
		{"UDP6", shape{v6: true, udp: true}, 100, 200, []int{64, 64, 64, 8}},
		{"as long as IP", shape{flags: ack}, 1399, 47, []int{46, 1}},
		{"as long as IPv6", shape{v6: true, udp: true}, 1400, 47, []int{46, 1}},
		{"options", shape{flags: ack, ipOptions: routerAlert}, 100, 3, []int{1, 1, 1}},
		{"extension", shape{v6: true, flags: ack, ext: []extension{hopByHop}}, 100, 3, []int{1, 1, 1}},
		{"no checksum", shape{udp: true, noSum: true}, 100, 3, []int{1, 1, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := tt.of
			s.ttl, s.port, s.payload = 64, 443, pattern(tt.octets*tt.count, 5)
			in := s.packets(t, tt.octets)
			var sizes []int
			var out [][]byte
			for _, f := range joined(t, in, true) {
				kernelTakes(t, f)
				pkts := slowSegments(f)
				sizes, out = append(sizes, len(pkts)), append(out, pkts...)
			}
			if !slices.Equal(sizes, tt.packets) {
				t.Errorf("frames of %v packets, want %v", sizes, tt.packets)
			}
			equal(t, "joined", out, in)
		})
	}
}

// Zero has two forms in one's complement. A packet with the one that would not
// have been computed verifies, but goes alone: taken apart again it would have
// the other.
func TestOffloadOtherZero(t *testing.T) {
	for name, tt := range map[string]struct {
		of    shape
		spoil func(p []byte)
	}{
		"TCP checksum 0xffff": {shape{flags: ack, df: true}, func(p []byte) {
			clear(p[36:38])
			clear(p[40:42])
			binary.BigEndian.PutUint16(p[40:], ^slowSum(append(pseudoHeader(p, packet.ProtoTCP, len(p)-20), p[20:]...)))
			p[36], p[37] = 0xff, 0xff
		}},
		"UDP checksum 0": {shape{udp: true, df: true}, func(p []byte) {
			clear(p[26:30])
			binary.BigEndian.PutUint16(p[28:], ^slowSum(append(pseudoHeader(p, packet.ProtoUDP, len(p)-20), p[20:]...)))
		}},
		"IP checksum 0xffff": {shape{flags: ack, df: true}, func(p []byte) {
			clear(p[10:12])
			clear(p[4:6])
			binary.BigEndian.PutUint16(p[4:], ^slowSum(p[:20]))
			p[10], p[11] = 0xff, 0xff
		}},
	} {
		for at := range 3 {
			s := tt.of
			s.ttl, s.port, s.payload = 64, 443, pattern(300, 5)
			in := s.packets(t, 100)
			tt.spoil(in[at])
			if slowSum(in[at][:20]) != 0xffff {
				t.Fatalf("%s: the IP header does not verify", name)
			}
			var out [][]byte
			for _, f := range joined(t, in, true) {
				kernelTakes(t, f)
				out = append(out, slowSegments(f)...)
			}
			for i, p := range out {
				if i != at { // with DF the ID means nothing
					copy(p[4:6], in[i][4:6])
					copy(p[10:12], in[i][10:12])
				}
			}
			equal(t, name, out, in)
		}
	}
}
