package crypto

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"hash"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"ipsecd/crypto/alg"
)

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// unsealed is an ESP packet with text as text, ready for Seal: where IV and ICV
// will be is what an earlier packet left in the buffer.
func unsealed(s *Suite, spi, seq uint32, text []byte) []byte {
	esp := bytes.Repeat([]byte{0xa5}, HeaderLen+s.IVLen+len(text)+s.ICVLen)
	binary.BigEndian.PutUint32(esp, spi)
	binary.BigEndian.PutUint32(esp[4:], seq)
	copy(textOf(s, esp), text)
	return esp
}

func textOf(s *Suite, esp []byte) []byte { return esp[HeaderLen+s.IVLen : len(esp)-s.ICVLen] }

// byHand makes the same packet of the standard library's primitives.
func byHand(k Keys, header []byte, hi uint32, n uint64, text []byte) []byte {
	if k.Enc == alg.AESGCM16 {
		return gcmByHand(k, header, hi, n, text)
	}
	var iv []byte
	if k.Enc == alg.AESCBC {
		// RFC 3602 with an unpredictable IV.
		block, err := aes.NewCipher(k.EncKey)
		if err != nil {
			panic(err)
		}
		iv = make([]byte, 16)
		block.Encrypt(iv, binary.BigEndian.AppendUint64(make([]byte, 8), n))
		sealed := make([]byte, len(text))
		cipher.NewCBCEncrypter(block, iv).CryptBlocks(sealed, text)
		text = sealed
	}
	// RFC 4303 2.2.1: the high half behind the text, not sent. RFC 2404 and
	// 4868: cut off.
	form := map[uint8]struct {
		new func() hash.Hash
		icv int
	}{3: {sha1.New, 12}, 5: {sha256.New, 16}, 6: {sha512.New384, 24}, 7: {sha512.New, 32}}[k.Auth]
	mac := hmac.New(form.new, k.AuthKey)
	mac.Write(join(header, iv, text))
	if k.ESN {
		mac.Write(binary.BigEndian.AppendUint32(nil, hi))
	}
	return join(header, iv, text, mac.Sum(nil)[:form.icv])
}

// RFC 4106: nonce = salt IV; AAD = SPI, high half with ESN, sequence number.
func gcmByHand(k Keys, header []byte, hi uint32, n uint64, text []byte) []byte {
	salt := len(k.EncKey) - 4
	block, err := aes.NewCipher(k.EncKey[:salt])
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	iv, aad := binary.BigEndian.AppendUint64(nil, n), header
	if k.ESN {
		aad = join(header[:4], binary.BigEndian.AppendUint32(nil, hi), header[4:])
	}
	return join(header, iv, aead.Seal(nil, join(k.EncKey[salt:], iv), text, aad))
}

func TestSealAndOpen(t *testing.T) {
	eachSuite(t, func(t *testing.T, c combination, esn bool) {
		s, cipher := newCipher(t, c.keys(esn))
		var scratch Scratch
		rapid.Check(t, func(t *rapid.T) {
			blocks := rapid.IntRange(0, 1600/s.Block).Draw(t, "blocks")
			text := octets(blocks*s.Block, rapid.Byte().Draw(t, "text"))
			n, hi := rapid.Uint64().Draw(t, "n"), rapid.Uint32().Draw(t, "hi")
			esp := unsealed(s, rapid.Uint32().Draw(t, "spi"), rapid.Uint32().Draw(t, "seq"), text)
			header := bytes.Clone(esp[:HeaderLen])
			cipher.Seal(&scratch, esp, hi, n)
			if want := byHand(c.keys(esn), header, hi, n, text); !bytes.Equal(esp, want) {
				t.Fatalf("got  %x\nwant %x", esp, want)
			}
			if !cipher.Open(&scratch, esp, hi) {
				t.Fatalf("%x does not open", esp)
			}
			if !bytes.Equal(textOf(s, esp), text) || !bytes.Equal(esp[:HeaderLen], header) {
				t.Fatalf("opened to %x, want %x", esp, text)
			}
		})
	})
}

// Each length of text that a packet of a usual MTU can have, also none.
func TestEveryLengthOpens(t *testing.T) {
	eachSuite(t, func(t *testing.T, c combination, esn bool) {
		s, cipher := newCipher(t, c.keys(esn))
		var scratch Scratch
		for n := 0; n <= 1536; n += s.Block {
			text := octets(n, byte(n))
			esp := unsealed(s, 256, 1, text)
			cipher.Seal(&scratch, esp, 7, uint64(n))
			if !cipher.Open(&scratch, esp, 7) || !bytes.Equal(textOf(s, esp), text) {
				t.Fatalf("%d octets of text", n)
			}
		}
	})
}

// A bit flipped in each octet of the packet, and each of the high half with
// ESN, is noticed.
func TestFlippedBitsAreRefused(t *testing.T) {
	eachSuite(t, func(t *testing.T, c combination, esn bool) {
		s, cipher := newCipher(t, c.keys(esn))
		var scratch Scratch
		sealed := unsealed(s, 0x12345678, 9, octets(48, 3))
		cipher.Seal(&scratch, sealed, 5, 77)
		for octet := range sealed {
			bit := byte(1) << rand.IntN(8)
			esp := bytes.Clone(sealed)
			esp[octet] ^= bit
			if cipher.Open(&scratch, esp, 5) {
				t.Errorf("octet %d, bit %#x", octet, bit)
			}
		}
		for bit := range 32 {
			if cipher.Open(&scratch, bytes.Clone(sealed), 5^1<<bit) == esn {
				t.Errorf("bit %d of the high half", bit)
			}
		}
		if !cipher.Open(&scratch, sealed, 5) {
			t.Error("and then the right one is refused")
		}
	})
}

// A packet with ESN does not open without, nor the other way round, even where
// the high half is zero.
func TestESNIsPartOfTheSuite(t *testing.T) {
	for _, c := range combinations {
		plain, without := newCipher(t, c.keys(false))
		extended, with := newCipher(t, c.keys(true))
		esp := unsealed(plain, 256, 1, octets(16, 3))
		without.Seal(new(Scratch), esp, 0, 1)
		if with.Open(new(Scratch), esp, 0) {
			t.Errorf("%s: opens with ESN", c.name)
		}
		esp = unsealed(extended, 256, 1, octets(16, 3))
		with.Seal(new(Scratch), esp, 0, 1)
		if without.Open(new(Scratch), esp, 0) {
			t.Errorf("%s: opens without ESN", c.name)
		}
	}
}

// Other keys, of cipher, salt and MAC, do not open.
func TestOtherKeyIsRefused(t *testing.T) {
	for _, c := range combinations {
		s, cipher := newCipher(t, c.keys(false))
		sealed := unsealed(s, 256, 9, octets(48, 3))
		cipher.Seal(new(Scratch), sealed, 0, 77)
		for i := range max(c.mac, c.key*(1-min(c.mac, 1))) {
			k := c.keys(false)
			if c.mac == 0 {
				k.EncKey[i] ^= 1
			} else {
				k.AuthKey[i] ^= 1 // the cipher's key is not what authenticates
			}
			if _, other := newCipher(t, k); other.Open(new(Scratch), bytes.Clone(sealed), 0) {
				t.Errorf("%s: octet %d of the key does not matter", c.name, i)
			}
		}
	}
}

// RFC 2410: the text stays as it is, and a key means nothing.
func TestNullKeepsTheText(t *testing.T) {
	seal := func(key []byte) []byte {
		s, c := newCipher(t, Keys{Enc: alg.NullEnc, EncKey: key, Auth: alg.HMACSHA1, AuthKey: octets(20, 9)})
		esp := unsealed(s, 256, 1, octets(16, 3))
		c.Seal(new(Scratch), esp, 0, 5)
		if !bytes.Equal(textOf(s, esp), octets(16, 3)) {
			t.Errorf("text became %x", textOf(s, esp))
		}
		return esp
	}
	if a, b := seal(nil), seal(octets(8, 1)); !bytes.Equal(a, b) {
		t.Errorf("%x with a key, %x without", b, a)
	}
}

func TestIVDiffersPerCounter(t *testing.T) {
	for _, c := range combinations {
		if c.enc == alg.NullEnc {
			continue // has no IV
		}
		s, cipher := newCipher(t, c.keys(false))
		seen := map[string]uint64{}
		for n := range uint64(1000) {
			for _, n := range []uint64{n, 1<<63 | n, n << 20} {
				esp := unsealed(s, 256, 1, octets(16, 3))
				cipher.Seal(new(Scratch), esp, 0, n)
				iv := string(esp[HeaderLen : HeaderLen+s.IVLen])
				if m, ok := seen[iv]; ok && m != n {
					t.Fatalf("%s: counters %#x and %#x make the same IV", c.name, m, n)
				}
				seen[iv] = n
			}
		}
	}
}

// RFC 3602 section 3: the IV of one packet does not foretell that of the next.
func TestCBCIVIsNotTheCounter(t *testing.T) {
	s, c := newCipher(t, Keys{Enc: alg.AESCBC, EncKey: octets(16, 1), Auth: alg.HMACSHA2_256, AuthKey: octets(32, 9)})
	iv := func(n uint64) []byte {
		esp := unsealed(s, 256, 1, octets(16, 3))
		c.Seal(new(Scratch), esp, 0, n)
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

func TestNoAllocations(t *testing.T) {
	eachSuite(t, func(t *testing.T, c combination, esn bool) {
		s, cipher := newCipher(t, c.keys(esn))
		esp := unsealed(s, 256, 1, octets(1408, 3))
		scratch, n := new(Scratch), uint64(0)
		allocs := testing.AllocsPerRun(100, func() {
			cipher.Seal(scratch, esp, 5, n)
			if n++; !cipher.Open(scratch, esp, 5) {
				t.Fatal("does not open")
			}
			esp[0] ^= 1 // refused ones neither
			cipher.Open(scratch, esp, 5)
		})
		if allocs != 0 {
			t.Errorf("%v allocations", allocs)
		}
		if allocs := testing.AllocsPerRun(100, func() { s.Shared() }); allocs != 0 {
			t.Errorf("%v allocations for the shared cipher", allocs)
		}
	})
}

// The first packet of a worker allocates as little as the next.
func TestFirstPacketAllocatesNothing(t *testing.T) {
	for _, c := range combinations {
		s, _ := newCipher(t, c.keys(true))
		esp, scratch := unsealed(s, 256, 1, octets(64, 3)), new(Scratch)
		fresh := make([]Cipher, 51)
		for i := range fresh {
			fresh[i] = s.NewCipher()
		}
		next := 0
		allocs := testing.AllocsPerRun(len(fresh)-1, func() {
			fresh[next].Seal(scratch, esp, 5, uint64(next))
			next++
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations", c.name, allocs)
		}
	}
}
