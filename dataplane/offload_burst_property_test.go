package dataplane_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"ipsecd/dataplane/link"
	"ipsecd/packet"
	"ipsecd/sad"
)

// Bursts of 1 to 64 packets, and of the most there can be, seal to what their
// packets seal to one by one: as many, as long, in the same order, numbered one
// behind the other, under headers that differ in nothing but ID and checksum.
// Another engine opens both to the packets that went in.
func TestOffloadBurstsEqualLonePackets(t *testing.T) {
	for _, w := range ways() {
		t.Run(w.String(), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(1, 2))
			start := uint64(1000)
			if w.esn {
				start = 1<<32 - 700 // on the way the low half wraps
			}
			var bursts []packet.Burst
			var plain [][]byte
			for i, k := range append(numbers(1, 64), packet.MaxBurst) {
				f := talk{way: &w, udp: i%2 == 1, tos: uint8(i*4 + i%3), df: i%4 > 1, id: uint16(r.Uint32()), seq: r.Uint32(), port: 2000}
				size := 20 + r.IntN(400)
				b, pkts := f.say(t, r, k, size, r.IntN(size), tcpFlags{i%3 == 0, i%2 == 0, i%5 == 0})
				bursts, plain = append(bursts, b), append(plain, pkts...)
			}
			together := w.end(t, start, 64).seal(t, bursts...)
			apart := w.end(t, start, 64).seal(t, alone(plain)...)
			if len(together) != len(plain) || len(apart) != len(plain) {
				t.Fatalf("%d packets in bursts, %d alone, want %d", len(together), len(apart), len(plain))
			}
			for i := range plain {
				if seq := binary.BigEndian.Uint32(w.espOf(together[i])[4:]); seq != uint32(start)+uint32(i)+1 {
					t.Fatalf("packet %d has number %d", i, seq)
				}
				if got, want := w.front(together[i]), w.front(apart[i]); !bytes.Equal(got, want) || len(together[i]) != len(apart[i]) {
					t.Fatalf("packet %d, %d octets, has the headers\n%x, alone, %d octets,\n%x", i, len(together[i]), got, len(apart[i]), want)
				}
			}
			for name, sealed := range map[string][][]byte{"bursts": together, "alone": apart} {
				to := w.end(t, start, 64)
				out, joined := to.open(t, r, sealed)
				samePackets(t, name, w.comparable(out), w.comparable(plain))
				if to.dropped() != 0 || to.sa.Usage().Packets != uint64(len(plain)) {
					t.Errorf("%d dropped, %d counted", to.dropped(), to.sa.Usage().Packets)
				}
				if joined < len(plain)/2 {
					t.Errorf("only %d of %d came joined", joined, len(plain))
				}
			}
		})
	}
}

func numbers(from, to int) (all []int) {
	for n := from; n <= to; n++ {
		all = append(all, n)
	}
	return all
}

// front is a sealed packet up to the sequence number, without ID and checksum
// of an outer IPv4 header. In transport mode the ID is the packet's own.
func (w *way) front(pkt []byte) []byte {
	f := bytes.Clone(pkt[:len(pkt)-len(w.espOf(pkt))+8])
	if f[0]>>4 == 4 && !w.transport {
		clear(f[4:6])
		clear(f[10:12])
	}
	return f
}

// A burst whose numbers end on the way: what got one is sealed, in order, the
// rest is dropped as seq-exhausted, and so is all that follows. With ESN the
// numbers go on across 2^32, and end at the last that fits.
func TestOffloadBurstAtTheLastNumber(t *testing.T) {
	for _, w := range ways() {
		last := uint64(1<<32 - 1)
		if w.esn {
			last = 1<<63 - 1
		}
		for _, left := range []int{0, 1, 5, 63, 64} {
			from := w.end(t, last-uint64(left), 64)
			r := rand.New(rand.NewPCG(uint64(left), 1))
			f := talk{way: &w, port: 1}
			b, plain := f.say(t, r, 64, 90, 3, tcpFlags{})
			again, _ := f.say(t, r, 7, 90, 3, tcpFlags{})
			sealed := from.seal(t, b, again, packet.Burst{Head: plain[0]})
			if len(sealed) != left {
				t.Fatalf("%v: %d sealed with %d numbers left", &w, len(sealed), left)
			}
			if n := from.Drops.Get(packet.SeqExhausted); n != uint64(64+7+1-left) || from.dropped() != int(n) {
				t.Errorf("%v: %d dropped as seq-exhausted of %d", &w, n, from.dropped())
			}
			for i, p := range sealed {
				if seq := binary.BigEndian.Uint32(w.espOf(p)[4:]); seq != uint32(last)-uint32(left-i-1) {
					t.Fatalf("%v: packet %d has number %d", &w, i, seq)
				}
			}
			to := w.end(t, last-uint64(left), 64)
			out, _ := to.open(t, r, sealed)
			samePackets(t, w.String(), w.comparable(out), w.comparable(plain[:left]))
		}
	}
}

// A burst across 2^32 with ESN: on the wire the low halves wrap, and none comes
// twice or is lost, whatever the window.
func TestOffloadBurstAcrossESN(t *testing.T) {
	for _, w := range ways() {
		if !w.esn {
			continue
		}
		for _, before := range []uint64{1, 31, 64} {
			for _, window := range []uint32{32, 4096} {
				for _, high := range []uint64{1, 1 << 30} {
					start := high<<32 - before - 1
					r := rand.New(rand.NewPCG(before, uint64(window)))
					f := talk{way: &w, udp: true, port: 1}
					b, plain := f.say(t, r, 64, 33, 1, tcpFlags{})
					sealed := w.end(t, start, window).seal(t, b)
					for i, p := range sealed {
						if seq := binary.BigEndian.Uint32(w.espOf(p)[4:]); seq != uint32(start)+uint32(i)+1 {
							t.Fatalf("%v: packet %d has number %#x", &w, i, seq)
						}
					}
					to := w.end(t, start, window)
					twice := append(slices.Clone(sealed), sealed...)
					out, _ := to.open(t, r, twice)
					samePackets(t, w.String(), w.comparable(out), w.comparable(plain))
					// What is left of the window counts as of the next 2^32 (RFC 4303 A2.2).
					if n := to.Drops.Get(packet.Replayed); n != uint64(min(64, window)) || to.dropped() != 64 {
						t.Errorf("%v, %d before 2^32, window %d: %d replayed of %d dropped", &w, before, window, n, to.dropped())
					}
				}
			}
		}
	}
}

// A burst that has not room in one train of packets leaves in several, with the
// numbers of one.
func TestOffloadBurstOverflowsTheTrain(t *testing.T) {
	for _, w := range ways() {
		r := rand.New(rand.NewPCG(9, 9))
		f := talk{way: &w, udp: true, port: 1}
		b, plain := f.say(t, r, packet.MaxBurst, 4500, 17, tcpFlags{})
		from, to := w.end(t, 5, 64), w.end(t, 5, 64)
		sealed := from.seal(t, b)
		for i, p := range sealed {
			if seq := binary.BigEndian.Uint32(w.espOf(p)[4:]); seq != uint32(6+i) {
				t.Fatalf("%v: packet %d has number %d", &w, i, seq)
			}
		}
		out, _ := to.open(t, r, sealed)
		samePackets(t, w.String(), w.comparable(out), w.comparable(plain))
	}
}

// The same datagram twice in one train, next to each other and apart, and the
// same raw packet twice in one read, come out once.
func TestOffloadDuplicateInOneRead(t *testing.T) {
	for _, w := range ways() {
		r := rand.New(rand.NewPCG(3, 4))
		f := talk{way: &w, udp: true, port: 1}
		b, plain := f.say(t, r, 8, 50, 0, tcpFlags{})
		p := w.end(t, 0, 64).seal(t, b)
		to := w.end(t, 0, 64)
		host := &hostSide{joined: new(int)}
		host.Memory = link.NewMemory(0)
		wire := &wireSide{pkts: [][]byte{p[0], p[0], p[1], p[2], p[1], p[3], p[4], p[5], p[6], p[7], p[7], p[0]},
			encap: to.sa.Encap() != sad.Encap{}, train: func() int { return packet.MaxBurst }}
		if err := to.NewOutside(wire, host).Run(); err != nil {
			t.Fatal(err)
		}
		samePackets(t, w.String(), w.comparable(host.Written()), w.comparable(plain))
		if n := to.Drops.Get(packet.Replayed); n != 4 || to.dropped() != 4 {
			t.Errorf("%v: %d replayed of %d dropped", &w, n, to.dropped())
		}
		// RFC 4303 3.4.3: looked at before the ICV, which costs more.
		spoilt := bytes.Clone(p[3])
		spoilt[len(spoilt)-1] ^= 1
		to.open(t, r, [][]byte{spoilt})
		if n := to.Drops.Get(packet.Replayed); n != 5 || to.dropped() != 5 {
			t.Errorf("%v: %d replayed of %d dropped, the last spoilt", &w, n, to.dropped())
		}
	}
}
