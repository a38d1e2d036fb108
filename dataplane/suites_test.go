package dataplane_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"ipsecd/packet"
)

// Every suite in every shape, raw and in UDP, with ESN and without, opens what it
// sealed; and nothing of it when a bit changed, whichever octet of ESP that is in.
func TestEverySuite(t *testing.T) {
	for _, c := range interopCases() {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			in := c.packets(t)
			sealed := c.seal(t, in)
			front := packet.IPv4HeaderLen
			if c.outer.v6() {
				front = packet.IPv6HeaderLen
			}
			if c.udp {
				front += packet.UDPHeaderLen
			}
			var spoilt [][]byte
			for at := front; at < len(sealed[0]); at++ {
				spoilt = append(spoilt, edit(sealed[0], at, sealed[0][at]^1<<rand.IntN(8)))
			}
			e := c.engine(t, "in")
			if out := e.open(spoilt...); len(out) != 0 {
				t.Errorf("%d of %d spoilt packets came out", len(out), len(spoilt))
			}
			out := e.open(sealed...)
			if len(out) != len(in) {
				t.Fatalf("%d of %d came out: %v", len(out), len(in), dropsOf(e))
			}
			for i := range in {
				if !bytes.Equal(out[i], in[i].octets) {
					t.Fatalf("packet %d:\n got %x\nwant %x", i, out[i], in[i].octets)
				}
			}
		})
	}
}

// No IV comes twice under a key, also of a burst that leaves in several trains or
// whose numbers are granted in two parts.
func TestIVsOfLongBursts(t *testing.T) {
	for _, w := range ways() {
		if w.encKey == 0 {
			continue
		}
		start := uint64(5)
		if w.esn {
			start = 1<<32 - 20
		}
		r := rand.New(rand.NewPCG(9, 9))
		f := talk{way: &w, udp: true, port: 1}
		b, _ := f.say(t, r, packet.MaxBurst, 4500, 17, tcpFlags{})
		from := w.end(t, start, 64)
		n := from.sa.Suite.IVLen
		seen := map[string]int{}
		sealed := append(from.seal(t, b), from.seal(t, b)...)
		for i, p := range sealed {
			iv := w.espOf(p)[8 : 8+n]
			if k, ok := seen[string(iv)]; ok {
				t.Fatalf("%v: packets %d and %d, of number %d, have the IV %x", &w, k, i, binary.BigEndian.Uint32(w.espOf(p)[4:]), iv)
			}
			seen[string(iv)] = i
		}
		if len(seen) != 2*packet.MaxBurst {
			t.Errorf("%v: %d IVs", &w, len(seen))
		}
	}
}
