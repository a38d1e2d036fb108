package packet

import (
	"bytes"
	"maps"
	"slices"
	"testing"

	"github.com/gopacket/gopacket/layers"
	"pgregory.net/rapid"
)

// coalesce puts pkts through a coalescer, as the engine does, and returns the
// packets that come out and the length of each burst.
func coalesce(t fataler, c *Coalescer, pkts [][]byte) (out [][]byte, bursts []int) {
	t.Helper()
	flush := func() {
		b, ok := c.Burst()
		if !ok {
			return
		}
		bursts = append(bursts, b.Len())
		checkJoined(t, b)
		for k := range b.Len() {
			p := make([]byte, b.PacketLen(k))
			b.CopyPacket(p, k)
			out = append(out, p)
		}
	}
	for _, p := range pkts {
		var h Burst
		h.Head = bytes.Clone(p)
		if d := h.Classify(); d != Kept {
			t.Fatalf("%x: %s", p, d)
		}
		if !c.Join(h.Head, &h.H) {
			flush()
			c.Start(h.Head, &h.H)
		}
	}
	flush()
	if _, ok := c.Burst(); ok {
		t.Fatalf("a burst twice")
	}
	return out, bursts
}

// checkJoined checks what the kernel is told of a burst: the joined packet is
// one packet, of the length that its header says, and its checksum is that of
// the pseudo-header.
func checkJoined(t fataler, b *Burst) {
	t.Helper()
	if b.Seg == Lone {
		if b.Partial || len(b.Segs) != 0 {
			t.Fatalf("a lone packet with %d segments, partial %v", len(b.Segs), b.Partial)
		}
		return
	}
	whole := append(bytes.Clone(b.Head), bytes.Join(b.Segs, nil)...)
	one := Burst{Head: whole}
	if d := one.Classify(); d != Kept || !b.Partial || b.Classify() != Kept {
		t.Fatalf("joined: %s, partial %v", d, b.Partial)
	}
	finishChecksum(whole, b.CsumStart, b.CsumOff)
	decode(t, whole)
}

// mutations change one packet of a stream so that it must not follow the one
// before it, or end the burst.
var mutations = map[string]func(*segment){
	"gap":     func(s *segment) { s.seq += 3 },
	"again":   func(s *segment) { s.seq -= uint32(len(s.payload)) },
	"ack":     func(s *segment) { s.ack++ },
	"window":  func(s *segment) { s.window++ },
	"ecn":     func(s *segment) { s.tos ^= 3 },
	"dscp":    func(s *segment) { s.tos ^= 0x20 },
	"ttl":     func(s *segment) { s.ttl-- },
	"df":      func(s *segment) { s.df = !s.df },
	"id":      func(s *segment) { s.id += 9 },
	"label":   func(s *segment) { s.label ^= 1 },
	"port":    func(s *segment) { s.port++ },
	"push":    func(s *segment) { s.flags |= tcpPSH },
	"fin":     func(s *segment) { s.flags |= tcpFIN },
	"syn":     func(s *segment) { s.flags |= 2 },
	"rst":     func(s *segment) { s.flags |= 4 },
	"urg":     func(s *segment) { s.flags |= 0x20 },
	"ece":     func(s *segment) { s.flags |= 0x40 },
	"cwr":     func(s *segment) { s.flags |= tcpCWR },
	"no ack":  func(s *segment) { s.flags = 0 },
	"empty":   func(s *segment) { s.payload = nil },
	"shorter": func(s *segment) { s.payload = s.payload[1:] },
	"longer":  func(s *segment) { s.payload = append(bytes.Clone(s.payload), 1) },
	"options": func(s *segment) {
		s.options = []layers.TCPOption{{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: []byte("ABCDEFGH")}}
	},
}

// ofTCP are the mutations of fields that UDP does not have.
var ofTCP = map[string]bool{"gap": true, "again": true, "ack": true, "window": true, "options": true, "push": true, "fin": true,
	"syn": true, "rst": true, "urg": true, "ece": true, "cwr": true, "no ack": true}

var mutationNames = slices.Sorted(maps.Keys(mutations))

// damage is done to the octets of a built packet.
var damage = map[string]func(p []byte, h *Headers){
	"checksum":         func(p []byte, h *Headers) { p[len(p)-1] ^= 0x40 },
	"header checksum":  func(p []byte, h *Headers) { p[10] ^= 0x40 },
	"no UDP checksum":  func(p []byte, h *Headers) { p[h.L4+6], p[h.L4+7] = 0, 0 },
	"urgent pointer":   func(p []byte, h *Headers) { p[h.L4+19]++; fixTCP(p, h) },
	"reserved bits":    func(p []byte, h *Headers) { p[h.L4+12] |= 2; fixTCP(p, h) },
	"data offset":      func(p []byte, h *Headers) { p[h.L4+12] = 0x40; fixTCP(p, h) },
	"long data offset": func(p []byte, h *Headers) { p[h.L4+12] = 0xf0; fixTCP(p, h) },
	"fragment":         func(p []byte, h *Headers) { p[6] |= 0x20; fixIP(p) },
	"later fragment":   func(p []byte, h *Headers) { p[7] = 9; fixIP(p) },
	"reserved flag":    func(p []byte, h *Headers) { p[6] |= 0x80; fixIP(p) },
	"UDP length":       func(p []byte, h *Headers) { p[h.L4+5]-- },
}

func fixIP(p []byte) {
	p[10], p[11] = 0, 0
	c := Checksum(p[:IPv4HeaderLen], 0)
	p[10], p[11] = byte(c>>8), byte(c)
}

func fixTCP(p []byte, h *Headers) {
	p[h.L4+16], p[h.L4+17] = 0, 0
	c := Checksum(p[h.L4:], PseudoSum(p, h.Proto, len(p)-h.L4))
	p[h.L4+16], p[h.L4+17] = byte(c>>8), byte(c)
}

// Whatever goes into a coalescer comes out of segmentation again, packet for
// packet; but the IDs of packets with DF, which mean nothing (RFC 6864), count
// up.
func TestCoalesceAndSegmentIsIdentity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := Coalescer{UDP: rapid.Bool().Draw(t, "device takes UDP")}
		s := segment{v6: rapid.Bool().Draw(t, "v6"), udp: rapid.Bool().Draw(t, "udp"), tos: 2, ttl: 64, port: 80,
			df: rapid.Bool().Draw(t, "df"), id: rapid.Uint16().Draw(t, "id"), label: 7,
			seq: rapid.Uint32().Draw(t, "seq"), ack: 1, flags: tcpACK, window: 500, payload: pattern(40)}
		var in [][]byte
		for range rapid.IntRange(1, 12).Draw(t, "packets") {
			now := s
			if rapid.IntRange(0, 3).Draw(t, "change") == 0 {
				mutations[rapid.SampledFrom(mutationNames).Draw(t, "mutation")](&now)
				if rapid.Bool().Draw(t, "for good") {
					now.payload = s.payload
					s = now
				}
			}
			pkt := now.build(t)
			if rapid.IntRange(0, 7).Draw(t, "damage") == 0 {
				flip := rapid.IntRange(20, len(pkt)*8-1).Draw(t, "bit")
				pkt[flip/8] ^= 1 << (flip % 8)
				if b := (Burst{Head: bytes.Clone(pkt)}); b.Classify() != Kept {
					continue
				}
			}
			in = append(in, pkt)
			s.seq += uint32(len(now.payload))
			s.id++
		}
		out, _ := coalesce(t, &c, in)
		if len(out) != len(in) {
			t.Fatalf("%d packets in, %d out", len(in), len(out))
		}
		for i := range in {
			if !bytes.Equal(withoutID(in[i]), withoutID(out[i])) {
				t.Fatalf("packet %d was\n%.90x, is\n%.90x", i, in[i], out[i])
			}
		}
	})
}

// withoutID blanks the ID of an intact packet with DF.
func withoutID(p []byte) []byte {
	if p[0] != 0x45 || p[6]&0x40 == 0 || Checksum(p[:IPv4HeaderLen], 0) != 0 {
		return p
	}
	p = bytes.Clone(p)
	p[4], p[5] = 0, 0
	fixIP(p)
	return p
}

// What follows on joins, up to the bounds of a burst and of an IP packet.
func TestCoalesceJoins(t *testing.T) {
	for _, tt := range []struct {
		name  string
		base  segment
		octet int
		count int
		want  []int
	}{
		{"TCP4", segment{ttl: 4, flags: tcpACK, port: 1}, 100, 10, []int{10}},
		{"TCP6", segment{v6: true, ttl: 4, flags: tcpACK, port: 1}, 100, 10, []int{10}},
		{"UDP4", segment{udp: true, ttl: 4, port: 1}, 100, 10, []int{10}},
		{"UDP6", segment{v6: true, udp: true, ttl: 4, port: 1}, 100, 10, []int{10}},
		{"sequence wraps", segment{ttl: 4, flags: tcpACK, port: 1, seq: 0xffffffff - 150}, 100, 5, []int{5}},
		{"ID wraps", segment{ttl: 4, flags: tcpACK, port: 1, id: 0xfffe}, 100, 5, []int{5}},
		{"MaxBurst", segment{ttl: 4, flags: tcpACK, port: 1}, 10, MaxBurst + 2, []int{MaxBurst, 2}},
		{"longest IPv4", segment{ttl: 4, flags: tcpACK, port: 1}, 1399, 47, []int{46, 1}},
		{"longest IPv6", segment{v6: true, ttl: 4, flags: tcpACK, port: 1}, 1399, 47, []int{46, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, in := tt.base, [][]byte(nil)
			s.payload = pattern(tt.octet)
			for range tt.count {
				in = append(in, s.build(t))
				s.seq += uint32(tt.octet)
				s.id++
			}
			c := Coalescer{UDP: true}
			out, bursts := coalesce(t, &c, in)
			if !slices.Equal(bursts, tt.want) {
				t.Fatalf("bursts of %v, want %v", bursts, tt.want)
			}
			for i := range in {
				if !bytes.Equal(in[i], out[i]) {
					t.Fatalf("packet %d was\n%.90x, is\n%.90x", i, in[i], out[i])
				}
			}
		})
	}
}

// A push or a shorter segment ends a burst, joined; everything else that
// differs does not join.
func TestCoalesceEnds(t *testing.T) {
	for name, mutate := range mutations {
		for _, v6 := range []bool{false, true} {
			for _, udp := range []bool{false, true} {
				want := []int{2, 1, 2}
				switch {
				case name == "push" && !udp, name == "shorter":
					want = []int{3, 2}
				case udp && ofTCP[name], v6 && (name == "df" || name == "id"), !v6 && name == "label":
					want = []int{5} // has no such field
				case name == "longer": // the next is shorter
					want = []int{2, 2, 1}
				}
				s := segment{v6: v6, udp: udp, tos: 2, ttl: 64, port: 80, flags: tcpACK, payload: pattern(40)}
				var in [][]byte
				for i := range 5 {
					now := s
					if i == 2 {
						mutate(&now)
					}
					in = append(in, now.build(t))
					s.seq += uint32(len(now.payload))
					s.id++
				}
				c := Coalescer{UDP: true}
				out, bursts := coalesce(t, &c, in)
				if !slices.Equal(bursts, want) {
					t.Errorf("%s, IPv6 %v, UDP %v: bursts of %v, want %v", name, v6, udp, bursts, want)
				}
				for i := range in {
					if !bytes.Equal(withoutID(in[i]), withoutID(out[i])) {
						t.Errorf("%s: packet %d was\n%.90x, is\n%.90x", name, i, in[i], out[i])
					}
				}
			}
		}
	}
}

// A damaged packet, or one that segmentation would not make, is never joined,
// wherever it stands, and comes out as it went in.
func TestCoalesceDamaged(t *testing.T) {
	for name, spoil := range damage {
		udp := name == "no UDP checksum" || name == "UDP length"
		for at := range 3 {
			s := segment{udp: udp, ttl: 64, port: 80, flags: tcpACK, payload: pattern(60)}
			var in [][]byte
			for i := range 3 {
				p := s.build(t)
				if i == at {
					spoil(p, classified(t, bytes.Clone(p)))
				}
				in = append(in, p)
				s.seq += 60
				s.id++
			}
			c := Coalescer{UDP: true}
			out, bursts := coalesce(t, &c, in)
			want := [][]int{{1, 2}, {1, 1, 1}, {2, 1}}[at]
			if !slices.Equal(bursts, want) {
				t.Errorf("%s at %d: bursts of %v, want %v", name, at, bursts, want)
			}
			for i := range in {
				if !bytes.Equal(in[i], out[i]) {
					t.Errorf("%s: packet %d was\n%.90x, is\n%.90x", name, i, in[i], out[i])
				}
			}
		}
	}
}

// IP options and extension headers, other protocols, and UDP for a device that
// does not take it go alone.
func TestCoalesceNotJoinable(t *testing.T) {
	udp := segment{udp: true, ttl: 64, port: 80, payload: pattern(60)}
	for name, pkt := range map[string][]byte{
		"options":   v4(ProtoTCP, 0, 4, make([]byte, 30)...),
		"extension": v6(ProtoDstOpts, append(ext(ProtoTCP, 0), make([]byte, 30)...)...),
		"icmp":      v4(ProtoICMP, 0, 0, 8, 0, 0, 0),
		"short tcp": v4(ProtoTCP, 0, 0, make([]byte, 19)...),
		"short udp": v4(ProtoUDP, 0, 0, make([]byte, 7)...),
		"udp":       udp.build(t),
	} {
		var c Coalescer
		out, bursts := coalesce(t, &c, [][]byte{pkt, pkt})
		if !slices.Equal(bursts, []int{1, 1}) || !bytes.Equal(out[0], pkt) || !bytes.Equal(out[1], pkt) {
			t.Errorf("%s: bursts of %v: %x", name, bursts, out)
		}
	}
}
