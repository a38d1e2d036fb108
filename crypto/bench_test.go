package crypto

import (
	"strconv"
	"testing"

	"ipsecd/crypto/alg"
)

// benchmark runs f for each suite with ESN and texts of a small packet and of
// a full one; the lengths are rounded up to the block.
func benchmark(b *testing.B, f func(b *testing.B, s *Suite, c Cipher, esp []byte)) {
	for _, comb := range combinations {
		if comb.enc == alg.NullEnc && comb.key > 0 {
			continue // as fast as without
		}
		for _, size := range []int{64, 1360} {
			b.Run(comb.name+"/"+strconv.Itoa(size), func(b *testing.B) {
				s, c := newCipher(b, comb.keys(true))
				esp := unsealed(s, 256, 1, octets((size+s.Block-1)/s.Block*s.Block, 3))
				b.SetBytes(int64(size))
				b.ReportAllocs()
				f(b, s, c, esp)
			})
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	benchmark(b, func(b *testing.B, _ *Suite, c Cipher, esp []byte) {
		var scratch Scratch
		n := uint64(0)
		for b.Loop() {
			c.Seal(&scratch, esp, 1, n)
			n++
		}
	})
}

// BenchmarkOpen opens the same packet again and again; putting it back is part
// of the time, a copy of its length.
func BenchmarkOpen(b *testing.B) {
	benchmark(b, func(b *testing.B, _ *Suite, c Cipher, esp []byte) {
		var scratch Scratch
		c.Seal(&scratch, esp, 1, 1)
		sealed := append([]byte(nil), esp...)
		for b.Loop() {
			copy(esp, sealed)
			if !c.Open(&scratch, esp, 1) {
				b.Fatal("does not open")
			}
		}
	})
}

// BenchmarkNewSuite is what an SA costs before it has traffic.
func BenchmarkNewSuite(b *testing.B) {
	for _, comb := range combinations {
		b.Run(comb.name, func(b *testing.B) {
			k := comb.keys(true)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := NewSuite(k); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
