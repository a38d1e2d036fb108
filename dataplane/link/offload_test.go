package link

import (
	"bytes"
	"encoding/binary"
	"fmt"
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
				sizes := []int{100 + k%2}
				if k < 4 || k == GSOSegs {
					sizes = []int{1, 2, 100, 101, 536, 900}
				}
				for _, size := range sizes {
					for _, last := range []int{size, max(1, size-1), 1} {
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
			_, start, _ := s.unfinished(t)
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
			pkt, start, _ := s.unfinished(t)
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
