package link

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/gopacket/gopacket/layers"
	"pgregory.net/rapid"

	"ipsecd/packet"
)

// read is the way of a frame from the TUN on: what the engine would seal, and
// Kept, or the reason to drop it.
func read(frame []byte) ([][]byte, packet.Drop) {
	var b packet.Burst
	fromVirtio(&b, bytes.Clone(frame))
	if d := b.Classify(); d != packet.Kept {
		return nil, d
	}
	var out [][]byte
	for k := range b.Len() {
		p := bytes.Repeat([]byte{0xee}, b.PacketLen(k))
		b.CopyPacket(p, k)
		out = append(out, p)
	}
	return out, packet.Kept
}

// equal compares packets octet for octet.
func equal(t fataler, what string, got, want [][]byte) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("%s: packet %d of %d, %d octets, is\n%.110x, want %d octets\n%.110x", what, i, len(want), len(got[i]), got[i], len(want[i]), want[i])
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%s: %d packets, want %d", what, len(got), len(want))
	}
}

// shapes are what programs and forwarded streams bring to a TUN.
var shapes = map[string]shape{
	"TSO4":                     {df: true, seq: 0xfffffe00, flags: ack, window: 501, options: timestamps},
	"TSO4 no DF, ID wraps":     {id: 0xfffe, flags: ack},
	"TSO4 router alert":        {id: 7, flags: ack, ipOptions: routerAlert},
	"TSO4 source route":        {id: 7, flags: ack, ipOptions: sourceRoute},
	"TSO4 SACK":                {flags: ack, options: sack},
	"TSO4 FIN PSH":             {flags: ack | fin | psh},
	"TSO4 CWR":                 {tos: 2, flags: ack | cwr},
	"TSO4 CWR ECE FIN":         {tos: 1, flags: ack | cwr | ece | fin},
	"TSO4 URG":                 {flags: ack | urg | psh, urgent: 17},
	"TSO6":                     {v6: true, tos: 0xb9, label: 0xabcde, flags: ack, options: timestamps},
	"TSO6 CWR PSH":             {v6: true, tos: 2, flags: ack | cwr | psh},
	"TSO6 hop-by-hop":          {v6: true, flags: ack, ext: []extension{hopByHop}},
	"TSO6 destination options": {v6: true, flags: ack | fin, ext: []extension{dstOpts}, options: sack},
	"TSO6 routing header":      {v6: true, flags: ack, ext: []extension{routing}},
	"TSO6 all extensions":      {v6: true, flags: ack, ext: []extension{hopByHop, dstOpts, routing, dstOpts}},
	"USO4":                     {udp: true, id: 0xffff},
	"USO4 DF":                  {udp: true, df: true, tos: 3},
	"USO4 router alert":        {udp: true, ipOptions: routerAlert},
	"USO4 source route":        {udp: true, ipOptions: sourceRoute},
	"USO6":                     {v6: true, udp: true, label: 5},
	"USO6 routing header":      {v6: true, udp: true, ext: []extension{routing}},
}

// A frame with k segments, for every k that the kernel makes and the last one
// whole, shorter and of a single octet, is what a sender without offload would
// have sent. The two slow ways agree, too.
func TestOffloadSegments(t *testing.T) {
	for name, s := range shapes {
		t.Run(name, func(t *testing.T) {
			s.ttl, s.port = 63, 443
			for k := 1; k <= GSOSegs; k++ {
				for _, size := range []int{100, 101, 536} {
					for _, last := range []int{size, size - 1, 1} {
						s.payload = pattern((k-1)*size+last, byte(k))
						frame := s.offloaded(t, size)
						want := slowSegments(frame)
						equal(t, "the slow segmenter", want, s.packets(t, size))
						got, d := read(frame)
						if d != packet.Kept {
							t.Fatalf("%d segments of %d: %s", k, size, d)
						}
						equal(t, fmt.Sprintf("%d segments of %d, the last %d", k, size, last), got, want)
					}
				}
			}
		})
	}
}

// A frame without segmentation: the checksum is finished where the kernel asks
// for that, and otherwise nothing is touched, right or wrong.
func TestOffloadLone(t *testing.T) {
	for name, s := range shapes {
		t.Run(name, func(t *testing.T) {
			s.ttl, s.port = 63, 443
			for n := range 70 {
				s.payload = pattern(n, byte(n))
				whole := s.build(t)
				pkt, start, off := s.unfinished(t)
				partial := vnet{flags: virtioNeedsCsum, csumStart: uint16(start), csumOff: uint16(off), hdrLen: uint16(n)}
				wrong := bytes.Clone(whole)
				wrong[start+off] ^= 0x55
				for frame, want := range map[string][]byte{
					string(vnet{}.before(whole)):                     whole,
					string(vnet{flags: 2}.before(whole)):             whole, // VIRTIO_NET_HDR_F_DATA_VALID
					string(vnet{}.before(wrong)):                     wrong,
					string(partial.before(pkt)):                      whole,
					string(vnet{hdrLen: 65535}.before(pkt)):          pkt,
					string(vnet{gsoSize: 9, csumOff: 9}.before(pkt)): pkt,
				} {
					got, d := read([]byte(frame))
					if d != packet.Kept {
						t.Fatal(d)
					}
					equal(t, fmt.Sprintf("%d octets", n), got, [][]byte{want})
					equal(t, "the slow segmenter", slowSegments([]byte(frame)), [][]byte{want})
				}
			}
		})
	}
}

// UDP over IPv4 without a checksum stays without (RFC 768).
func TestOffloadNoUDPChecksum(t *testing.T) {
	s := shape{udp: true, noSum: true, ttl: 9, port: 53, payload: pattern(99, 1)}
	pkt := s.build(t)
	got, d := read(vnet{}.before(pkt))
	if d != packet.Kept || binary.BigEndian.Uint16(got[0][26:]) != 0 {
		t.Fatalf("%s: %x", d, got)
	}
	equal(t, "alone", got, [][]byte{pkt})
}

// A checksum that computes to zero: UDP writes all ones in its place (RFC 768),
// in a train and alone; TCP in a train writes zero, and alone what a device does
// that does not look at the protocol.
func TestOffloadZeroChecksum(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, udp := range []bool{false, true} {
			s := shape{v6: v6, udp: udp, ttl: 9, port: 443, flags: ack, payload: pattern(60, 2)}
			off := 16
			if udp {
				off = 6
			}
			copy(s.payload, []byte{0, 0})
			pkt, start, _ := s.unfinished(t)
			copy(s.payload, s.build(t)[start+off:][:2]) // makes the sum of the packet all ones
			s.payload = append(s.payload, s.payload...)
			if !udp { // the next sequence number is 60 more
				binary.BigEndian.PutUint16(s.payload[62:], binary.BigEndian.Uint16(s.payload[62:])-60)
			}
			frame := s.offloaded(t, 60)
			want := slowSegments(frame)
			for i, p := range want {
				if sum := binary.BigEndian.Uint16(p[start+off:]); udp && sum != 0xffff || !udp && i == 0 && sum != 0 {
					t.Fatalf("IPv6 %v, UDP %v: the slow segmenter's checksum %d is %#x", v6, udp, i, sum)
				}
			}
			got, _ := read(frame)
			equal(t, fmt.Sprintf("IPv6 %v, UDP %v", v6, udp), got, want)

			s.payload = s.payload[:60]
			pkt, start, _ = s.unfinished(t)
			frame = vnet{flags: virtioNeedsCsum, csumStart: uint16(start), csumOff: uint16(off)}.before(pkt)
			got, _ = read(frame)
			equal(t, fmt.Sprintf("alone, IPv6 %v, UDP %v", v6, udp), got, slowSegments(frame))
		}
	}
}

// hdr_len is what the kernel happened to have in one piece: it says nothing.
func TestOffloadHeaderLengthLies(t *testing.T) {
	for name, s := range shapes {
		s.ttl, s.port, s.payload = 63, 443, pattern(950, 3)
		frame := s.offloaded(t, 100)
		want := slowSegments(frame)
		for _, lie := range []uint16{0, 1, 20, 40, 54, 200, 1000, 65535} {
			binary.NativeEndian.PutUint16(frame[2:], lie)
			got, d := read(frame)
			if d != packet.Kept {
				t.Fatalf("%s, header length %d: %s", name, lie, d)
			}
			equal(t, name, got, want)
		}
	}
}

// Frames that contradict themselves are dropped, each with a reason; none is
// taken apart into something.
func TestOffloadContradictions(t *testing.T) {
	for name, s := range shapes {
		s.ttl, s.port, s.payload = 63, 443, pattern(950, 3)
		_, start, off := s.unfinished(t)
		field := func(at int, v int) func([]byte) []byte {
			return func(f []byte) []byte { binary.NativeEndian.PutUint16(f[at:], uint16(v)); return f }
		}
		for what, spoil := range map[string]func([]byte) []byte{
			"gso_size 0":               field(4, 0),
			"too many segments":        field(4, 950/(packet.MaxBurst+1)),
			"csum_start off by one":    field(6, start+1),
			"csum_start off by four":   field(6, start+4),
			"csum_start 0":             field(6, 0),
			"csum_start beyond":        field(6, 65000),
			"csum_offset of the other": field(8, 22-off),
			"csum_offset beyond":       field(8, 65000),
			"no NEEDS_CSUM":            func(f []byte) []byte { f[0] = 0; return f },
			"unknown type":             func(f []byte) []byte { f[1] = 3; return f },
			"tunnel type":              func(f []byte) []byte { f[1] |= 0x20; return f },
			"no payload":               func(f []byte) []byte { return f[:len(f)-950] },
			"half the headers":         func(f []byte) []byte { return f[:virtioLen+start+5] },
			"IP header alone":          func(f []byte) []byte { return f[:virtioLen+20] },
			"virtio header alone":      func(f []byte) []byte { return f[:virtioLen] },
			"version":                  func(f []byte) []byte { f[virtioLen] ^= 0xf0; return f },
		} {
			frame := spoil(s.offloaded(t, 100))
			if got, d := read(frame); d == packet.Kept {
				t.Errorf("%s, %s: %d packets, the first\n%.100x", name, what, len(got), got[0])
			}
		}
	}
}

// The other transport's type: a device that says TCP of UDP is not believed.
func TestOffloadWrongTransport(t *testing.T) {
	for name, s := range shapes {
		s.ttl, s.port, s.payload = 63, 443, pattern(950, 3)
		frame := s.offloaded(t, 100)
		if s.udp {
			frame[1] = virtioGSOTCPv4
		} else {
			frame[1] = virtioGSOUDPL4
		}
		if got, d := read(frame); d == packet.Kept {
			t.Errorf("%s: %d packets", name, len(got))
		}
	}
}

// One burst follows another in the same buffers, of other sizes and kinds:
// nothing of the one before is left.
func TestOffloadFramesFollowEachOther(t *testing.T) {
	var b packet.Burst
	buf := make([]byte, virtioLen+maxIP+1)
	rapid.Check(t, func(t *rapid.T) {
		s := drawShape(t)
		s.payload = pattern(rapid.IntRange(1, 20000).Draw(t, "octets"), 9)
		least := (len(s.payload) + GSOSegs - 1) / GSOSegs
		size := rapid.IntRange(least, least+1500).Draw(t, "MSS")
		frame := s.offloaded(t, size)
		if rapid.IntRange(0, 3).Draw(t, "alone") == 0 {
			pkt, start, off := s.unfinished(t)
			frame = vnet{flags: virtioNeedsCsum, csumStart: uint16(start), csumOff: uint16(off)}.before(pkt)
		}
		fromVirtio(&b, buf[:copy(buf, frame)])
		if d := b.Classify(); d != packet.Kept {
			t.Fatalf("%s", d)
		}
		equal(t, "burst", whole(&b), slowSegments(frame))
	})
}

// drawShape draws headers of every kind there is.
func drawShape(t *rapid.T) shape {
	s := shape{v6: rapid.Bool().Draw(t, "v6"), udp: rapid.Bool().Draw(t, "udp"), tos: rapid.Byte().Draw(t, "tos"),
		ttl: rapid.Byte().Draw(t, "ttl"), id: rapid.Uint16().Draw(t, "id"), df: rapid.Bool().Draw(t, "df"),
		label: rapid.Uint32Range(0, 0xfffff).Draw(t, "label"), port: rapid.Uint16().Draw(t, "port"),
		seq: rapid.Uint32().Draw(t, "seq"), ack: rapid.Uint32().Draw(t, "ack"), window: rapid.Uint16().Draw(t, "window"),
		flags:   ack | rapid.SampledFrom([]uint8{0, 0, 0, 0, psh, fin, urg, cwr, ece, fin | psh | cwr}).Draw(t, "flags"),
		options: rapid.SampledFrom([][]layers.TCPOption{nil, timestamps, sack}).Draw(t, "options")}
	if s.v6 {
		s.ext = rapid.SampledFrom([][]extension{nil, nil, {hopByHop}, {dstOpts}, {routing}, {hopByHop, routing, dstOpts}}).Draw(t, "extensions")
	} else {
		s.ipOptions = rapid.SampledFrom([][]layers.IPv4Option{nil, nil, routerAlert, sourceRoute}).Draw(t, "IP options")
	}
	return s
}

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
