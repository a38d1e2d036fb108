package xform

import (
	"fmt"
	"testing"

	"ipsecd/packet"
	"ipsecd/sad"
)

// forEachShape runs f for each kind of cipher in both modes; a burst of 16
// segments of 1360 octets goes through at once.
func forEachShape(b *testing.B, f func(b *testing.B, sa *sad.SA, segs *packet.Burst)) {
	for _, kind := range []string{gcm, cbc, null} {
		for mode, name := range map[sad.Mode]string{sad.ModeTunnel: "tunnel", sad.ModeTransport: "transport"} {
			b.Run(fmt.Sprintf("%s/%s", kind, name), func(b *testing.B) {
				s := specOf(false, false, kind)
				s.Mode = mode
				segs := burst(b, inner{size: 16 * 1360}.build(b), 1360)
				b.SetBytes(16 * 1360)
				b.ReportAllocs()
				f(b, newSA(b, s), segs)
			})
		}
	}
}

func BenchmarkSealESP(b *testing.B) {
	forEachShape(b, func(b *testing.B, sa *sad.SA, segs *packet.Burst) {
		w, out := NewWorker(0), packet.NewTrain(64<<10)
		for b.Loop() {
			out.Reset()
			if w.SealESP(sa, sa.Spec().Mode, sa.Reserve(16), segs, 0, out) != 16 {
				b.Fatal("not sealed")
			}
		}
	})
}

// BenchmarkOpenESP opens a packet and makes the inner one of it; each time it is
// put back as it came, which is a copy more.
func BenchmarkOpenESP(b *testing.B) {
	forEachShape(b, func(b *testing.B, sa *sad.SA, segs *packet.Burst) {
		w, room := NewWorker(0), packet.NewTrain(0)
		sealed := sealAll(b, w, sa, sa.Reserve(16), segs)[0]
		pkt := lone(b, append([]byte(nil), sealed...))
		b.SetBytes(1360)
		for b.Loop() {
			copy(pkt.Head, sealed)
			text, d := w.OpenESP(sa, pkt.Head[pkt.H.L4:], 0)
			if d != packet.Kept {
				b.Fatal(d)
			}
			payload, next, d := TakeTrailer(text)
			if d == packet.Kept && Decapsulates(sa, next) {
				_, d = OpenTunnel(payload, next, 0)
			} else if d == packet.Kept {
				OpenTransport(sa, pkt, payload, next, room)
			}
			if d != packet.Kept {
				b.Fatal(d)
			}
		}
	})
}
