package xform

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"ipsecd/crypto"
	"ipsecd/crypto/alg"
	"ipsecd/packet"
	"ipsecd/sad"
)

// forEachSA runs f for every outer family, encapsulation, kind of cipher, and
// with ESN.
func forEachSA(t *testing.T, f func(t *testing.T, s sad.Spec)) {
	for i := range 2 * 2 * 3 * 2 {
		v6, encap, kind, esn := i&1 != 0, i&2 != 0, []string{gcm, cbc, null}[i/4%3], i >= 12
		t.Run(fmt.Sprintf("IPv6 %v, UDP %v, %s, ESN %v", v6, encap, kind, esn), func(t *testing.T) {
			s := specOf(v6, encap, kind)
			s.ESN = esn
			f(t, s)
		})
	}
}

// Any packet comes out of the tunnel as it went in, and every header field in
// front of it is what RFC 4301 5.1.2 and RFC 6040 4.1 want.
func TestTunnelRoundTrip(t *testing.T) {
	forEachSA(t, func(t *testing.T, s sad.Spec) {
		sa := newSA(t, s)
		here, there := NewWorker(0), NewWorker(0)
		rapid.Check(t, func(t *rapid.T) {
			in := inner{v6: rapid.Bool().Draw(t, "v6"), tos: rapid.Byte().Draw(t, "tos"), df: rapid.Bool().Draw(t, "df"),
				id: rapid.Uint16().Draw(t, "id"), label: rapid.Uint32Range(0, 0xfffff).Draw(t, "label"),
				size: rapid.IntRange(0, 100).Draw(t, "size")}
			pkt := in.build(t)
			g := sa.Reserve(1)
			sealed := sealAll(t, here, sa, g, lone(t, bytes.Clone(pkt)))[0]
			got := decodeOuter(t, sealed)
			want := outer{V: 4, TOS: in.tos, TTL: 64, DF: in.df || in.v6, ID: got.ID, Src: s.Src.String(), Dst: s.Dst.String(),
				Ports: [2]uint16{s.Encap.SrcPort, s.Encap.DstPort}, SPI: s.SPI, Seq: uint32(g.Seq), lengthsAgree: true}
			if s.Dst.Is6() {
				want.V, want.DF = 6, false
				if in.v6 {
					want.Label = in.label
				}
			} else if got.ID == 0 {
				t.Fatal("ID 0")
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(outer{}), cmpopts.IgnoreFields(outer{}, "esp")); diff != "" {
				t.Fatalf("(-want +got)\n%s", diff)
			}
			if shown := bytes.Contains(sealed, pkt[len(pkt)-20:]); len(got.esp) != sa.Suite.SealedLen(len(pkt)) || shown != (s.Enc == alg.NullEnc) {
				t.Fatalf("%d octets seal to %d", len(pkt), len(got.esp))
			}
			if out := open(t, there, sa, sealed); !bytes.Equal(out, pkt) {
				t.Fatalf("out comes %x\nin went %x", out, pkt)
			}
		})
	})
}

// RFC 4303 2.4: padding 1, 2, 3..., its length, and the next header, right
// aligned.
func TestPadding(t *testing.T) {
	forEachSA(t, func(t *testing.T, s sad.Spec) {
		sa, w := newSA(t, s), NewWorker(0)
		c := sa.Suite.NewCipher()
		for size := range 40 {
			v6 := size%2 == 1
			pkt := inner{v6: v6, size: size}.build(t)
			esp := decodeOuter(t, sealAll(t, w, sa, sa.Reserve(1), lone(t, pkt))[0]).esp
			if !c.Open(new(crypto.Scratch), esp, highHalf(sa)) {
				t.Fatal("does not open")
			}
			text := esp[8+sa.Suite.IVLen : len(esp)-sa.Suite.ICVLen]
			want := bytes.Clone(pkt)
			pad := (sa.Suite.Block - (len(pkt)+2)%sa.Suite.Block) % sa.Suite.Block
			for i := range pad {
				want = append(want, byte(i+1))
			}
			next := byte(4)
			if v6 {
				next = 41
			}
			if want = append(want, byte(pad), next); !bytes.Equal(text, want) {
				t.Fatalf("text\n%x, want\n%x", text, want)
			}
		}
	})
}

// A burst seals to what its packets seal to one by one.
func TestBurstEqualsLonePackets(t *testing.T) {
	forEachSA(t, func(t *testing.T, s sad.Spec) {
		sa := newSA(t, s)
		for _, v6 := range []bool{false, true} {
			for _, k := range []int{1, 2, 7, 64} {
				b := burst(t, inner{v6: v6, tos: 3, id: 9, label: 77, size: k*100 - 37}.build(t), 100)
				g := sa.Reserve(k)
				together := sealAll(t, NewWorker(500), sa, g, b)
				w := NewWorker(500)
				for i, p := range packets(b) {
					one := sad.Grant{Seq: g.Seq + uint64(i), IV: g.IV + uint64(i), N: 1}
					alone := sealAll(t, w, sa, one, lone(t, p))[0]
					if !bytes.Equal(alone, together[i]) {
						t.Fatalf("packet %d of %d:\n%x alone\n%x in the burst", i, k, alone, together[i])
					}
					if out := open(t, w, sa, together[i]); !bytes.Equal(out, p) {
						t.Fatalf("packet %d of %d opens to %x, want %x", i, k, out, p)
					}
				}
			}
		}
	})
}

// SealESP goes on where it stopped: at the end of the grant or of the train.
func TestSealInParts(t *testing.T) {
	sa := newSA(t, specOf(false, false, gcm))
	b := burst(t, inner{size: 1000}.build(t), 100)
	g := sa.Reserve(10)
	whole := sealAll(t, NewWorker(1), sa, g, b)
	w, out := NewWorker(1), packet.NewTrain(len(whole[0])*3+50)
	for k := 0; k < 10; {
		out.Reset()
		n := w.SealESP(sa, sad.ModeTunnel, sad.Grant{Seq: g.Seq + uint64(k), IV: g.IV + uint64(k), N: min(4, 10-k)}, b, k, out)
		if want := min(3, 10-k); n != want || len(out.Pkts) != want {
			t.Fatalf("at %d: sealed %d, %d packets, want %d", k, n, len(out.Pkts), want)
		}
		for i, p := range out.Pkts {
			if !bytes.Equal(p, whole[k+i]) {
				t.Fatalf("packet %d is another", k+i)
			}
		}
		k += n
	}
	if n := w.SealESP(sa, sad.ModeTunnel, sad.Grant{}, b, 0, out); n != 0 {
		t.Errorf("%d sealed without a grant", n)
	}
	if n := w.SealESP(sa, sad.ModeTunnel, g, b, 0, packet.NewTrain(50)); n != 0 {
		t.Errorf("%d sealed into nothing", n)
	}
}

// IDs count up and leave 0 out, which the kernel would replace.
func TestIDs(t *testing.T) {
	w := NewWorker(0xfffd)
	for _, want := range []uint16{0xfffe, 0xffff, 1, 2} {
		if got := w.nextID(); got != want {
			t.Errorf("got %#x, want %#x", got, want)
		}
	}
	if got := NewWorker(0).nextID(); got != 1 {
		t.Errorf("the first is %d", got)
	}
}

// opened is OpenESP and TakeTrailer.
func opened(w *Worker, sa *sad.SA, esp []byte) (payload []byte, next uint8, d packet.Drop) {
	text, d := w.OpenESP(sa, esp, highHalf(sa))
	if d != packet.Kept {
		return nil, 0, d
	}
	return TakeTrailer(text)
}

// What the trailer of a packet whose ICV is right may say wrongly.
func TestOpenTrailer(t *testing.T) {
	forEachSA(t, func(t *testing.T, s sad.Spec) {
		sa, w := newSA(t, s), NewWorker(0)
		for _, tt := range []struct {
			name      string
			pad, next byte
			want      packet.Drop
			left      int
		}{
			{"no padding", 0, 4, packet.Kept, 30},
			{"some", 7, 41, packet.Kept, 23},
			{"all padding", 30, 59, packet.Kept, 0},
			{"one too many", 31, 4, packet.BadPadding, 0},
			{"most", 255, 4, packet.BadPadding, 0},
		} {
			text := bytes.Repeat([]byte{0xaa}, 30) // what padding holds does not matter
			payload, next, d := opened(w, sa, handMade(t, sa, append(text, tt.pad, tt.next)))
			if d != tt.want || len(payload) != tt.left || d == packet.Kept && next != tt.next {
				t.Errorf("%s: %d octets, next %d, %s", tt.name, len(payload), next, d)
			}
		}
	})
}

// A packet cut or grown to any length is refused, and nothing panics.
func TestOpenEveryLength(t *testing.T) {
	forEachSA(t, func(t *testing.T, s sad.Spec) {
		sa, w := newSA(t, s), NewWorker(0)
		whole := decodeOuter(t, sealAll(t, w, sa, sa.Reserve(1), lone(t, inner{size: 60}.build(t)))[0]).esp
		fixed := crypto.HeaderLen + sa.Suite.IVLen + sa.Suite.ICVLen
		for n := range len(whole) + 40 {
			esp := bytes.Clone(append(bytes.Clone(whole), make([]byte, 40)...)[:n])
			want := packet.BadICV
			switch {
			case n == len(whole):
				want = packet.Kept
			case n < fixed+trailerLen:
				want = packet.Truncated
			case (n-fixed)%sa.Suite.Block != 0:
				want = packet.BadLength
			}
			if _, d := w.OpenESP(sa, esp, highHalf(sa)); d != want {
				t.Errorf("%d octets of %d: %s, want %s", n, len(whole), d, want)
			}
		}
	})
}

func FuzzOpen(f *testing.F) {
	sa := newSA(f, specOf(false, false, gcm))
	f.Add([]byte{}, uint8(0))
	f.Add(inner{size: 9}.build(f), uint8(3))
	f.Fuzz(func(t *testing.T, text []byte, tos uint8) {
		w := NewWorker(0)
		w.OpenESP(sa, bytes.Clone(text), 0) // not sealed
		text = text[:len(text)/4*4]
		payload, next, d := opened(w, sa, handMade(t, sa, text))
		if d != packet.Kept {
			return
		}
		in, d := OpenTunnel(payload, next, tos)
		if d != packet.Kept {
			return
		}
		var h packet.Headers
		h.Classify(in)
		if n, d := packet.IPLength(in); d != packet.Kept || n != len(in) {
			t.Fatalf("%d octets that claim %d: %s", len(in), n, d)
		}
	})
}

func TestNoAllocations(t *testing.T) {
	forEachSA(t, func(t *testing.T, s sad.Spec) {
		sa, w := newSA(t, s), NewWorker(0)
		b := burst(t, inner{size: 3000}.build(t), 1000)
		out := packet.NewTrain(8 << 10)
		front := 20
		if s.Dst.Is6() {
			front = 40
		}
		if s.Encap != (sad.Encap{}) {
			front += 8
		}
		n := testing.AllocsPerRun(100, func() {
			out.Reset()
			if w.SealESP(sa, sad.ModeTunnel, sa.Reserve(3), b, 0, out) != 3 {
				t.Fatal("not sealed")
			}
			for _, p := range out.Pkts {
				payload, next, d := opened(w, sa, p[front:])
				if d != packet.Kept {
					t.Fatal(d)
				}
				if _, d := OpenTunnel(payload, next, 3); d != packet.ECN {
					t.Fatal(d)
				}
			}
		})
		if n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}
