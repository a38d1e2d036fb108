package packet

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/gopacket/gopacket/layers"
	"pgregory.net/rapid"
)

// unfinish leaves the pseudo-header's sum in a packet's checksum, as the kernel
// does for a device that computes checksums, and says where.
func unfinish(t fataler, pkt []byte) (start, off int) {
	t.Helper()
	b := Burst{Head: pkt}
	if d := b.Classify(); d != Kept {
		t.Fatalf("%x: %s", pkt, d)
	}
	start, off = b.H.L4, 16
	if b.H.Proto == ProtoUDP {
		off = 6
	}
	binary.BigEndian.PutUint16(pkt[start+off:], Fold(PseudoSum(pkt, b.H.Proto, len(pkt)-start)))
	return start, off
}

// offloaded is what a device with segmentation offload is handed: one packet
// with the payload of all.
func offloaded(t fataler, s segment, size int) *Burst {
	t.Helper()
	pkt := s.build(t)
	hlen := len(pkt) - len(s.payload)
	b := &Burst{Seg: TCP, Head: pkt[:hlen:hlen], Partial: true}
	if s.udp {
		b.Seg = UDP
	}
	b.CsumStart, b.CsumOff = unfinish(t, pkt)
	if !b.Split(pkt[hlen:], size) {
		t.Fatalf("%d octets do not split by %d", len(s.payload), size)
	}
	if d := b.Classify(); d != Kept {
		t.Fatalf("burst: %s", d)
	}
	return b
}

func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7 + i>>8)
	}
	return p
}

// Segmentation as RFC 9293, RFC 3168 6.1.2 and RFC 768 have it: packet k of a
// burst is the packet that a sender without offload would have built.
func TestCopyPacketSegments(t *testing.T) {
	options := []layers.TCPOption{{OptionType: layers.TCPOptionKindNop}, {OptionType: layers.TCPOptionKindNop},
		{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: []byte("abcdefgh")}}
	for _, tt := range []struct {
		name string
		segment
	}{
		{"TSO4", segment{tos: 0x2a, ttl: 63, id: 0xfff0, df: true, port: 80, seq: 0xfffff000, ack: 7, window: 99, options: options}},
		{"TSO4 no DF", segment{ttl: 1, id: 7, port: 80, seq: 5, ack: 7, window: 99}},
		{"TSO6", segment{v6: true, tos: 0xb9, ttl: 3, label: 0xabcde, port: 80, seq: 1, ack: 7, window: 99, options: options}},
		{"USO4", segment{udp: true, ttl: 9, id: 0xffff, port: 443}},
		{"USO6", segment{v6: true, udp: true, ttl: 9, label: 5, port: 443}},
	} {
		for _, flags := range []uint8{tcpACK, tcpACK | tcpPSH, tcpACK | tcpPSH | tcpFIN | tcpCWR, tcpACK | tcpCWR} {
			for k := 1; k <= 64; k++ {
				s, size := tt.segment, 101
				s.flags, s.payload = flags, pattern(k*size-k%7) // the last is shorter by up to 6
				b := offloaded(t, s, size)
				if b.Len() != k {
					t.Fatalf("%s: %d packets, want %d", tt.name, b.Len(), k)
				}
				checkSegments(t, fmt.Sprintf("%s flags %#x, %d segments", tt.name, flags, k), b, s, size)
			}
		}
	}
}

// checkSegments compares every packet of b with one that gopacket builds.
func checkSegments(t *testing.T, name string, b *Burst, s segment, size int) {
	t.Helper()
	total := 0
	for k := range b.Len() {
		want := s
		want.payload = s.payload[k*size : min(len(s.payload), (k+1)*size)]
		want.id += uint16(k)
		want.seq += uint32(k * size)
		if k < b.Len()-1 {
			want.flags &^= tcpFIN | tcpPSH
		}
		if k > 0 {
			want.flags &^= tcpCWR
		}
		got := bytes.Repeat([]byte{0xee}, b.PacketLen(k))
		b.CopyPacket(got, k)
		decode(t, got)
		if !bytes.Equal(got, want.build(t)) {
			t.Fatalf("%s: packet %d is\n%.90x, want\n%.90x", name, k, got, want.build(t))
		}
		total += len(got)
	}
	if b.Octets() != total {
		t.Errorf("%s: %d octets, want %d", name, b.Octets(), total)
	}
}

// A lone packet with an unfinished checksum is finished; any other is copied.
func TestCopyPacketLone(t *testing.T) {
	for _, s := range []segment{
		{udp: true, ttl: 9, port: 443, payload: pattern(33)},
		{v6: true, udp: true, ttl: 9, port: 443, payload: pattern(34)},
		{ttl: 9, port: 443, flags: 2},
		{v6: true, ttl: 9, port: 443, flags: tcpACK, payload: pattern(1)},
	} {
		want := s.build(t)
		b := Burst{Head: bytes.Clone(want)}
		got := make([]byte, b.PacketLen(0))
		if b.CopyPacket(got, 0); !bytes.Equal(got, want) {
			t.Errorf("finished: %x, want %x", got, want)
		}
		b.CsumStart, b.CsumOff = unfinish(t, b.Head)
		b.Partial = true
		if b.CopyPacket(got, 0); !bytes.Equal(got, want) {
			t.Errorf("unfinished: %x, want %x", got, want)
		}
		if b.Len() != 1 || b.Octets() != len(want) {
			t.Errorf("%d packets, %d octets", b.Len(), b.Octets())
		}
	}
}

// RFC 768: a UDP checksum that computes to 0 is sent as 0xffff, in a burst and
// alone.
func TestCopyPacketZeroUDPChecksum(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		s := segment{v6: v6, udp: true, ttl: 9, port: 443, payload: []byte{0, 0, 'x', 'y'}}
		sum := classifiedChecksum(t, s.build(t))
		s.payload[0], s.payload[1] = byte(sum>>8), byte(sum)
		whole := s.build(t)
		double := s
		double.payload = append(append([]byte{}, s.payload...), s.payload...)
		b := offloaded(t, double, len(s.payload))
		lone := Burst{Head: bytes.Clone(whole), Partial: true}
		lone.CsumStart, lone.CsumOff = unfinish(t, lone.Head)
		for _, b := range []*Burst{b, &lone} {
			got := make([]byte, b.PacketLen(0))
			b.CopyPacket(got, 0)
			if sum := classifiedChecksum(t, got); sum != 0xffff {
				t.Errorf("IPv6 %v, burst of %d: checksum %#04x", v6, b.Len(), sum)
			}
		}
	}
}

// classifiedChecksum is what stands in the checksum of a UDP packet.
func classifiedChecksum(t *testing.T, pkt []byte) uint16 {
	return binary.BigEndian.Uint16(pkt[classified(t, pkt).L4+6:])
}

func TestSplit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		payload := pattern(rapid.IntRange(0, 2000).Draw(t, "octets"))
		size := rapid.IntRange(-1, 200).Draw(t, "size")
		var b Burst
		ok := b.Split(payload, size)
		if want := size > 0 && len(payload) > 0 && len(payload) <= MaxBurst*size; ok != want {
			t.Fatalf("split is %v, want %v", ok, want)
		}
		if !ok {
			return
		}
		for i, s := range b.Segs {
			if len(s) != size && i < len(b.Segs)-1 || len(s) == 0 || len(s) > size || cap(s) > size && i < len(b.Segs)-1 {
				t.Fatalf("segment %d of %d has %d octets", i, len(b.Segs), len(s))
			}
		}
		if !bytes.Equal(bytes.Join(b.Segs, nil), payload) {
			t.Fatal("the segments are not the payload")
		}
	})
}

// A burst whose headers contradict what it is said to be is refused: else
// CopyPacket would write beside them.
func TestClassifySharedHeaders(t *testing.T) {
	tcp := offloaded(t, segment{ttl: 9, flags: tcpACK, port: 1, payload: pattern(30)}, 10)
	udp := offloaded(t, segment{v6: true, udp: true, ttl: 9, port: 1, payload: pattern(30)}, 10)
	tests := []struct {
		name   string
		of     *Burst
		change func(*Burst)
		want   Drop
	}{
		{"tcp", tcp, func(*Burst) {}, Kept},
		{"udp", udp, func(*Burst) {}, Kept},
		{"from a socket", udp, func(b *Burst) { b.Partial, b.CsumStart = false, 0 }, Kept},
		{"no headers", tcp, func(b *Burst) { b.Head = nil }, Truncated},
		{"IP header cut", tcp, func(b *Burst) { b.Head = b.Head[:19] }, Truncated},
		{"IPv6 header cut", udp, func(b *Burst) { b.Head = b.Head[:39] }, Truncated},
		{"IP options cut", tcp, func(b *Burst) { b.Head[0] = 0x4f }, Truncated},
		{"IHL", tcp, func(b *Burst) { b.Head[0] = 0x44 }, BadLength},
		{"version", tcp, func(b *Burst) { b.Head[0] = 0x55 }, BadVersion},
		{"TCP header cut", tcp, func(b *Burst) { b.Head = b.Head[:39] }, BadLength},
		{"UDP header cut", udp, func(b *Burst) { b.Head = b.Head[:47] }, BadLength},
		{"ports cut", tcp, func(b *Burst) { b.Head = b.Head[:23] }, Truncated},
		{"UDP in a TCP burst", tcp, func(b *Burst) { b.Head[9] = ProtoUDP }, BadLength},
		{"TCP in a UDP burst", udp, func(b *Burst) { b.Head[6] = ProtoTCP }, BadLength},
		{"fragment", tcp, func(b *Burst) { b.Head[6] = 0x20 }, BadLength},
		{"later fragment", tcp, func(b *Burst) { b.Head[7] = 1 }, BadLength},
		{"checksum elsewhere", tcp, func(b *Burst) { b.CsumStart = 24 }, BadLength},
		{"checksum offset", tcp, func(b *Burst) { b.CsumOff = 6 }, BadLength},
		{"checksum offset, UDP", udp, func(b *Burst) { b.CsumOff = 16 }, BadLength},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := *tt.of
			b.Head = bytes.Clone(b.Head)
			tt.change(&b)
			if got := b.Classify(); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestTrain(t *testing.T) {
	tr := NewTrain(1000)
	for range 2 {
		first, second := tr.Next(400), tr.Next(600)
		if len(first) != 400 || len(second) != 600 || cap(first) != 400 {
			t.Fatalf("%d and %d octets", len(first), len(second))
		}
		if tr.Next(1) != nil || len(tr.Pkts) != 2 {
			t.Fatalf("full, and took another: %d", len(tr.Pkts))
		}
		tr.Reset()
	}
	for range MaxBurst {
		if tr.Next(0) == nil {
			t.Fatal("not MaxBurst packets")
		}
	}
	if tr.Next(0) != nil {
		t.Fatal("more than MaxBurst packets")
	}
}

func TestNoAllocations(t *testing.T) {
	s := segment{ttl: 9, id: 5, port: 80, flags: tcpACK, payload: pattern(30 * 1000)}
	b := offloaded(t, s, 1000)
	dst := make([]byte, b.PacketLen(0))
	lone := Burst{Head: s.build(t)}
	var pkts [4][]byte
	for k := range pkts {
		pkts[k] = make([]byte, b.PacketLen(k))
		b.CopyPacket(pkts[k], k)
	}
	h := classified(t, pkts[0])
	var c Coalescer
	var n Counters
	payload := pattern(1 << 16)
	for name, f := range map[string]func(){
		"Classify":        func() { lone.Classify() },
		"Classify, burst": func() { b.Classify() },
		"CopyPacket":      func() { b.CopyPacket(dst, 7) },
		"Split":           func() { b.Split(payload, 1000) },
		"Counters":        func() { n.Add(NoSA, 1) },
		"Hash":            func() { h.Hash(3) },
		"Coalescer": func() {
			c.Start(pkts[0], h)
			for _, p := range pkts[1:] {
				c.Join(p, h)
			}
			c.Burst()
		},
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}
