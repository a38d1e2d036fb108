package crypto

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"ipsecd/crypto/alg"
)

// suites are all combinations of algorithm and key length.
var suites = []struct {
	name      string
	enc, auth uint8
	key, mac  int // octets
}{
	{"aes-gcm-16 128", alg.AESGCM16, alg.NullAuth, 20, 0},
	{"aes-gcm-16 192", alg.AESGCM16, alg.NullAuth, 28, 0},
	{"aes-gcm-16 256", alg.AESGCM16, alg.NullAuth, 36, 0},
	{"aes-cbc 128", alg.AESCBC, alg.HMACSHA2_256, 16, 32},
	{"aes-cbc 192", alg.AESCBC, alg.HMACSHA2_256, 24, 32},
	{"aes-cbc 256", alg.AESCBC, alg.HMACSHA2_256, 32, 32},
}

// octets are n octets that look like a key.
func octets(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = seed + byte(i)*53
	}
	return b
}

// unsealed is an ESP packet with text as text, ready for Seal.
func unsealed(s *Suite, spi, seq uint32, text []byte) []byte {
	esp := make([]byte, HeaderLen+s.IVLen+len(text)+s.ICVLen)
	binary.BigEndian.PutUint32(esp, spi)
	binary.BigEndian.PutUint32(esp[4:], seq)
	copy(esp[HeaderLen+s.IVLen:], text)
	return esp
}

// byHand makes the same packet of the standard library's primitives.
func byHand(t fataler, enc uint8, key, authKey []byte, header []byte, n uint64, text []byte) []byte {
	if enc == alg.AESGCM16 {
		// RFC 4106: nonce = salt IV, AAD = SPI sequence.
		block, err := aes.NewCipher(key[:len(key)-4])
		if err != nil {
			t.Fatalf("%v", err)
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			t.Fatalf("%v", err)
		}
		iv := binary.BigEndian.AppendUint64(nil, n)
		return join(header, iv, aead.Seal(nil, join(key[len(key)-4:], iv), text, header))
	}
	// RFC 3602 with an unpredictable IV, RFC 4868 over all of it.
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatalf("%v", err)
	}
	iv := make([]byte, 16)
	block.Encrypt(iv, binary.BigEndian.AppendUint64(make([]byte, 8), n))
	sealed := make([]byte, len(text))
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(sealed, text)
	mac := hmac.New(sha256.New, authKey)
	mac.Write(join(header, iv, sealed))
	return join(header, iv, sealed, mac.Sum(nil)[:16])
}

type fataler interface{ Fatalf(string, ...any) }

func TestSealAndOpen(t *testing.T) {
	for _, tt := range suites {
		t.Run(tt.name, func(t *testing.T) {
			key, mac := octets(tt.key, 1), octets(tt.mac, 9)
			s, c := newCipher(t, tt.enc, key, tt.auth, mac)
			var scratch Scratch
			rapid.Check(t, func(t *rapid.T) {
				text := rapid.SliceOfN(rapid.Byte(), 1, 20).Draw(t, "text")
				text = bytes.Repeat(text, s.Block)[:(len(text)+s.Block-1)/s.Block*s.Block]
				n := rapid.Uint64().Draw(t, "n")
				esp := unsealed(s, rapid.Uint32().Draw(t, "spi"), rapid.Uint32().Draw(t, "seq"), text)
				header := bytes.Clone(esp[:HeaderLen])
				c.Seal(&scratch, esp, n)
				if want := byHand(t, tt.enc, key, mac, header, n, text); !bytes.Equal(esp, want) {
					t.Fatalf("got  %x\nwant %x", esp, want)
				}
				if !c.Open(&scratch, esp) {
					t.Fatalf("%x does not open", esp)
				}
				if !bytes.Equal(esp[HeaderLen+s.IVLen:len(esp)-s.ICVLen], text) || !bytes.Equal(esp[:HeaderLen], header) {
					t.Fatalf("opened to %x, want %x", esp, text)
				}
			})
		})
	}
}

// The text of a packet may be empty: a suite without padding to do would send
// that.
func TestEmptyText(t *testing.T) {
	for _, tt := range suites {
		s, c := newCipher(t, tt.enc, octets(tt.key, 1), tt.auth, octets(tt.mac, 9))
		esp := unsealed(s, 256, 1, nil)
		c.Seal(new(Scratch), esp, 1)
		if !c.Open(new(Scratch), esp) {
			t.Errorf("%s: does not open", tt.name)
		}
	}
}

func TestEveryFlippedBitIsRejected(t *testing.T) {
	for _, tt := range suites {
		t.Run(tt.name, func(t *testing.T) {
			s, c := newCipher(t, tt.enc, octets(tt.key, 1), tt.auth, octets(tt.mac, 9))
			sealed := unsealed(s, 0x12345678, 9, octets(48, 3))
			c.Seal(new(Scratch), sealed, 77)
			for bit := range len(sealed) * 8 {
				esp := bytes.Clone(sealed)
				esp[bit/8] ^= 1 << (bit % 8)
				if c.Open(new(Scratch), esp) {
					t.Errorf("bit %d of octet %d", bit%8, bit/8)
				}
			}
			if !c.Open(new(Scratch), sealed) {
				t.Error("and then the right one is refused")
			}
		})
	}
}

// Other keys, of cipher, salt and MAC, do not open.
func TestOtherKeyIsRejected(t *testing.T) {
	for _, tt := range suites {
		key, mac := octets(tt.key, 1), octets(tt.mac, 9)
		s, c := newCipher(t, tt.enc, key, tt.auth, mac)
		sealed := unsealed(s, 256, 9, octets(48, 3))
		c.Seal(new(Scratch), sealed, 77)
		changed := mac // with CBC the cipher's key is not what authenticates
		if tt.mac == 0 {
			changed = key
		}
		for i := range changed {
			changed[i] ^= 1
			_, other := newCipher(t, tt.enc, key, tt.auth, mac)
			changed[i] ^= 1
			if other.Open(new(Scratch), bytes.Clone(sealed)) {
				t.Errorf("%s: octet %d of the key does not matter", tt.name, i)
			}
		}
	}
}

// Keys are used during the call and not kept: the caller may wipe them.
func TestSuiteKeepsNoKey(t *testing.T) {
	for _, tt := range suites {
		key, mac := octets(tt.key, 1), octets(tt.mac, 9)
		s, err := NewSuite(tt.enc, key, tt.auth, mac)
		if err != nil {
			t.Fatal(err)
		}
		clear(key)
		clear(mac)
		c, err := s.NewCipher()
		if err != nil {
			t.Fatal(err)
		}
		esp := unsealed(s, 256, 1, octets(16, 3))
		header := bytes.Clone(esp[:HeaderLen])
		c.Seal(new(Scratch), esp, 5)
		if want := byHand(t, tt.enc, octets(tt.key, 1), octets(tt.mac, 9), header, 5, octets(16, 3)); !bytes.Equal(esp, want) {
			t.Errorf("%s: got %x, want %x", tt.name, esp, want)
		}
	}
}

func TestIVDiffersPerCounter(t *testing.T) {
	for _, tt := range suites {
		s, c := newCipher(t, tt.enc, octets(tt.key, 1), tt.auth, octets(tt.mac, 9))
		seen := map[string]uint64{}
		for n := range uint64(1000) {
			for _, n := range []uint64{n, 1<<63 | n, n << 20} {
				esp := unsealed(s, 256, 1, octets(16, 3))
				c.Seal(new(Scratch), esp, n)
				iv := string(esp[HeaderLen : HeaderLen+s.IVLen])
				if m, ok := seen[iv]; ok && m != n {
					t.Fatalf("%s: counters %#x and %#x make the same IV", tt.name, m, n)
				}
				seen[iv] = n
			}
		}
	}
}

// RFC 3602 section 3: the IV of one packet does not foretell that of the next.
func TestCBCIVIsNotTheCounter(t *testing.T) {
	s, c := newCipher(t, alg.AESCBC, octets(16, 1), alg.HMACSHA2_256, octets(32, 9))
	iv := func(n uint64) []byte {
		esp := unsealed(s, 256, 1, octets(16, 3))
		c.Seal(new(Scratch), esp, n)
		return esp[HeaderLen : HeaderLen+s.IVLen]
	}
	same := 0
	a, b := iv(1), iv(2)
	for i := range a {
		if a[i] == b[i] {
			same++
		}
	}
	if same > 4 {
		t.Errorf("%x is followed by %x", a, b)
	}
}

// PayloadFor is the inverse of SealedLen, from below.
func TestSealedLenAndPayloadFor(t *testing.T) {
	for _, tt := range suites {
		s, _ := newCipher(t, tt.enc, octets(tt.key, 1), tt.auth, octets(tt.mac, 9))
		for n := range 3000 {
			sealed := s.SealedLen(n)
			text := sealed - HeaderLen - s.IVLen - s.ICVLen
			if text%s.Block != 0 || text%4 != 0 || text < n+2 || text >= n+2+s.Block {
				t.Fatalf("%s: %d octets make %d of text", tt.name, n, text)
			}
			if p := s.PayloadFor(sealed); p < n || s.SealedLen(p) != sealed {
				t.Fatalf("%s: %d octets seal to %d, which has room for %d", tt.name, n, sealed, p)
			}
			if p := s.PayloadFor(n); p >= 0 && (s.SealedLen(p) > n || s.SealedLen(p+1) <= n) || p < 0 && s.SealedLen(0) <= n {
				t.Fatalf("%s: %d octets have room for %d", tt.name, n, p)
			}
		}
	}
}

func TestNewSuiteErrors(t *testing.T) {
	tests := []struct {
		name      string
		enc       uint8
		key       int
		auth      uint8
		authKey   int
		want      string
		supported bool
	}{
		{"no encryption", 0, 0, alg.HMACSHA2_256, 32, "encryption algorithm 0: not supported", false},
		{"unknown encryption", 99, 16, alg.NullAuth, 0, "encryption algorithm 99: not supported", false},
		{"gcm without salt", alg.AESGCM16, 16, alg.NullAuth, 0,
			"aes-gcm-16 takes a key of 160, 224 or 288 bits, not 128: the last 32 bits are the salt", true},
		{"gcm of other length", alg.AESGCM16, 21, alg.NullAuth, 0,
			"aes-gcm-16 takes a key of 160, 224 or 288 bits (the last 32 are the salt), not 168", true},
		{"gcm without key", alg.AESGCM16, 0, alg.NullAuth, 0,
			"aes-gcm-16 takes a key of 160, 224 or 288 bits (the last 32 are the salt), not 0", true},
		{"gcm with authentication", alg.AESGCM16, 20, alg.HMACSHA2_256, 32,
			"aes-gcm-16 authenticates by itself and takes no authentication algorithm", true},
		{"cbc of other length", alg.AESCBC, 17, alg.HMACSHA2_256, 32, "aes-cbc takes a key of 128, 192 or 256 bits, not 136", true},
		{"cbc alone", alg.AESCBC, 16, alg.NullAuth, 0, "aes-cbc needs an authentication algorithm, and 0: not supported", false},
		{"cbc with an unknown MAC", alg.AESCBC, 16, 77, 32, "aes-cbc needs an authentication algorithm, and 77: not supported", false},
		{"hmac of other length", alg.AESCBC, 16, alg.HMACSHA2_256, 20, "hmac-sha2-256 takes a key of 256 bits, not 160", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := NewSuite(tt.enc, octets(tt.key, 1), tt.auth, octets(tt.authKey, 9))
			if err == nil || s != nil {
				t.Fatalf("made %v", s)
			}
			if err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			if errors.Is(err, ErrUnsupported) == tt.supported {
				t.Errorf("%v: ErrUnsupported is wrong", err)
			}
			if k := fmt.Sprintf("%x", octets(8, 1)); strings.Contains(err.Error(), k) {
				t.Error("the error shows the key")
			}
		})
	}
}

// An AEAD serves all workers at once; what keeps state is one worker's own.
func TestSharedCiphers(t *testing.T) {
	for _, tt := range suites {
		s, first := newCipher(t, tt.enc, octets(tt.key, 1), tt.auth, octets(tt.mac, 9))
		second, err := s.NewCipher()
		if err != nil {
			t.Fatal(err)
		}
		if tt.mac == 0 && (s.Shared() != first || first != second) {
			t.Errorf("%s: not one for all", tt.name)
		}
		if tt.mac != 0 && (s.Shared() != nil || first == second) {
			t.Errorf("%s: not one each", tt.name)
		}
		var wg sync.WaitGroup
		for i := range 4 {
			c, err := s.NewCipher()
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				var scratch Scratch
				for n := range uint64(200) {
					esp := unsealed(s, 256, uint32(n), octets(64, 3))
					c.Seal(&scratch, esp, n<<8|uint64(i))
					if !c.Open(&scratch, esp) || !bytes.Equal(esp[HeaderLen+s.IVLen:][:64], octets(64, 3)) {
						t.Errorf("%s: worker %d, packet %d", tt.name, i, n)
						return
					}
				}
			})
		}
		wg.Wait()
	}
}

func TestNoAllocations(t *testing.T) {
	for _, tt := range suites {
		s, c := newCipher(t, tt.enc, octets(tt.key, 1), tt.auth, octets(tt.mac, 9))
		esp := unsealed(s, 256, 1, octets(1408, 3))
		scratch, n := new(Scratch), uint64(0)
		allocs := testing.AllocsPerRun(100, func() {
			c.Seal(scratch, esp, n)
			if n++; !c.Open(scratch, esp) {
				t.Fatal("does not open")
			}
			esp[0] ^= 1 // refused ones neither
			c.Open(scratch, esp)
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations", tt.name, allocs)
		}
	}
}
