package packet

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// slowChecksum is the loop of RFC 1071 4.1, word by word.
func slowChecksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
		sum = sum>>16 + sum&0xffff
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	sum = sum>>16 + sum&0xffff
	return ^uint16(sum)
}

// same takes the two forms of zero in one's complement for one.
func same(a, b uint16) bool { return a%0xffff == b%0xffff }

func TestChecksumEveryLength(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 2048)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	for n := range len(b) {
		if got, want := Checksum(b[:n], 0), slowChecksum(b[:n]); !same(got, want) {
			t.Fatalf("%d octets: %#04x, want %#04x", n, got, want)
		}
	}
}

// Octets of 0xff carry at every addition.
func TestChecksumCarries(t *testing.T) {
	b := make([]byte, 65536)
	for i := range b {
		b[i] = 0xff
	}
	for _, n := range []int{1, 2, 7, 8, 31, 32, 33, 63, 64, 1500, 65535, 65536} {
		if got, want := Checksum(b[:n], ^uint64(0)), slowChecksum(b[:n]); !same(got, want) {
			t.Errorf("%d octets: %#04x, want %#04x", n, got, want)
		}
	}
}

// The sum of pieces, all even but the last, is that of the whole.
func TestSumOfPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var whole []byte
		var sum uint64
		for range rapid.IntRange(0, 5).Draw(t, "pieces") {
			p := rapid.SliceOfN(rapid.Byte(), 0, 90).Draw(t, "piece")
			p = p[:len(p)&^1]
			whole, sum = append(whole, p...), Sum(p, sum)
		}
		last := rapid.SliceOfN(rapid.Byte(), 0, 90).Draw(t, "last")
		whole = append(whole, last...)
		if got, want := Checksum(last, sum), slowChecksum(whole); !same(got, want) {
			t.Fatalf("%#04x, want %#04x", got, want)
		}
	})
}

// RFC 1071 section 3 sums these octets to ddf2.
func TestFoldRFC1071(t *testing.T) {
	if got := Fold(Sum([]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}, 0)); got != 0xddf2 {
		t.Errorf("got %#04x", got)
	}
}

// The pseudo-headers, put together as RFC 9293 3.1 and RFC 8200 8.1 draw them.
func TestPseudoSum(t *testing.T) {
	ip4 := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 192, 0, 2, 1, 198, 51, 100, 7}
	drawn := append(append([]byte{}, ip4[12:20]...), 0, 6, 0x12, 0x34)
	if got, want := Fold(PseudoSum(ip4, 6, 0x1234)), ^slowChecksum(drawn); got != want {
		t.Errorf("IPv4: %#04x, want %#04x", got, want)
	}
	ip6 := make([]byte, 40)
	ip6[0] = 0x60
	for i := 8; i < 40; i++ {
		ip6[i] = byte(i * 37)
	}
	drawn = append(append([]byte{}, ip6[8:]...), 0, 1, 0x12, 0x34, 0, 0, 0, 17)
	if got, want := Fold(PseudoSum(ip6, 17, 0x11234)), ^slowChecksum(drawn); got != want {
		t.Errorf("IPv6: %#04x, want %#04x", got, want)
	}
}
