package crypto

import (
	"bytes"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"ipsecd/crypto/alg"
)

// combination is one of algorithms and key lengths.
type combination struct {
	name      string
	enc, auth uint8
	key, mac  int // octets
}

// combinations are all that NewSuite takes, except that null stands with two
// lengths of key.
var combinations = func() []combination {
	all := []combination{
		{"aes-gcm-16 128", alg.AESGCM16, alg.NullAuth, 20, 0},
		{"aes-gcm-16 192", alg.AESGCM16, alg.NullAuth, 28, 0},
		{"aes-gcm-16 256", alg.AESGCM16, alg.NullAuth, 36, 0},
	}
	for _, enc := range []combination{
		{"null", alg.NullEnc, 0, 0, 0},
		{"null with key", alg.NullEnc, 0, 256, 0},
		{"aes-cbc 128", alg.AESCBC, 0, 16, 0},
		{"aes-cbc 192", alg.AESCBC, 0, 24, 0},
		{"aes-cbc 256", alg.AESCBC, 0, 32, 0},
	} {
		for _, a := range alg.All(alg.Auth) {
			all = append(all, combination{enc.name + " " + a.Name, enc.enc, a.ID, enc.key, a.KeyBits[0] / 8})
		}
	}
	return all
}()

// keys are new ones, the same at each call.
func (c combination) keys(esn bool) Keys {
	return Keys{Enc: c.enc, EncKey: octets(c.key, 1), Auth: c.auth, AuthKey: octets(c.mac, 9), ESN: esn}
}

// eachSuite runs f for all combinations without and with ESN.
func eachSuite(t *testing.T, f func(t *testing.T, c combination, esn bool)) {
	for _, c := range combinations {
		t.Run(c.name, func(t *testing.T) { f(t, c, false) })
		t.Run(c.name+" esn", func(t *testing.T) { f(t, c, true) })
	}
}

// octets are n octets that look like a key.
func octets(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = seed + byte(i)*53
	}
	return b
}

// newCipher makes a suite and a cipher of it.
func newCipher(t testing.TB, k Keys) (*Suite, Cipher) {
	t.Helper()
	s, err := NewSuite(k)
	if err != nil {
		t.Fatal(err)
	}
	return s, s.NewCipher()
}

// What package alg knows, this package can do.
func TestCombinationsAreComplete(t *testing.T) {
	seen := map[*alg.Info]bool{}
	for _, c := range combinations {
		seen[alg.ByID(alg.Enc, c.enc)] = true
		seen[alg.ByID(alg.Auth, c.auth)] = true
	}
	for _, a := range slices.Concat(alg.All(alg.Enc), alg.All(alg.Auth)) {
		if !seen[a] {
			t.Errorf("%s is in no combination", a.Name)
		}
	}
}

// What goes on the wire besides the text: RFC 4106, RFC 3602, RFC 2410, RFC
// 2404 and RFC 4868.
func TestSizes(t *testing.T) {
	icv := map[uint8]int{alg.NullAuth: 16, alg.HMACSHA1: 12, alg.HMACSHA2_256: 16, alg.HMACSHA2_384: 24, alg.HMACSHA2_512: 32}
	type enc struct{ iv, block int }
	encs := map[uint8]enc{alg.AESGCM16: {8, 4}, alg.NullEnc: {0, 4}, alg.AESCBC: {16, 16}}
	for _, c := range combinations {
		s, _ := newCipher(t, c.keys(false))
		if s.ICVLen != icv[c.auth] || (enc{s.IVLen, s.Block}) != encs[c.enc] {
			t.Errorf("%s: IV %d, block %d, ICV %d", c.name, s.IVLen, s.Block, s.ICVLen)
		}
	}
}

// PayloadFor is the inverse of SealedLen, from below.
func TestSealedLenAndPayloadFor(t *testing.T) {
	for _, c := range combinations {
		s, _ := newCipher(t, c.keys(false))
		for n := range 3000 {
			sealed := s.SealedLen(n)
			text := sealed - HeaderLen - s.IVLen - s.ICVLen
			if text%s.Block != 0 || text%4 != 0 || text < n+2 || text >= n+2+s.Block {
				t.Fatalf("%s: %d octets make %d of text", c.name, n, text)
			}
			if p := s.PayloadFor(sealed); p < n || s.SealedLen(p) != sealed {
				t.Fatalf("%s: %d octets seal to %d, which has room for %d", c.name, n, sealed, p)
			}
			if p := s.PayloadFor(n); p >= 0 && (s.SealedLen(p) > n || s.SealedLen(p+1) <= n) || p < 0 && s.SealedLen(0) <= n {
				t.Fatalf("%s: %d octets have room for %d", c.name, n, p)
			}
		}
	}
}

func TestNewSuiteErrors(t *testing.T) {
	tests := []struct {
		name        string
		enc         uint8
		key         int
		auth        uint8
		authKey     int
		want        string
		unsupported bool
	}{
		{"no encryption", 0, 0, alg.HMACSHA2_256, 32, "encryption algorithm 0: not supported", true},
		{"unknown encryption", 99, 16, alg.NullAuth, 0, "encryption algorithm 99: not supported", true},
		{"gcm without salt", alg.AESGCM16, 16, alg.NullAuth, 0,
			"aes-gcm-16 takes a key of 160, 224 or 288 bits, not 128: the last 32 bits are the salt", false},
		{"gcm of other length", alg.AESGCM16, 21, alg.NullAuth, 0,
			"aes-gcm-16 takes a key of 160, 224 or 288 bits (the last 32 are the salt), not 168", false},
		{"gcm without key", alg.AESGCM16, 0, alg.NullAuth, 0,
			"aes-gcm-16 takes a key of 160, 224 or 288 bits (the last 32 are the salt), not 0", false},
		{"gcm with authentication", alg.AESGCM16, 20, alg.HMACSHA2_256, 32,
			"aes-gcm-16 authenticates by itself and takes no authentication algorithm", false},
		{"cbc of other length", alg.AESCBC, 17, alg.HMACSHA2_256, 32, "aes-cbc takes a key of 128, 192 or 256 bits, not 136", false},
		{"cbc alone", alg.AESCBC, 16, alg.NullAuth, 0, "aes-cbc needs an authentication algorithm, and 0: not supported", true},
		{"cbc with an unknown MAC", alg.AESCBC, 16, 77, 32, "aes-cbc needs an authentication algorithm, and 77: not supported", true},
		{"null alone", alg.NullEnc, 0, alg.NullAuth, 0, "null needs an authentication algorithm, and 0: not supported", true},
		{"null with too long a key", alg.NullEnc, 257, alg.HMACSHA1, 20, "null takes a key of 0, 8, ... 2048 bits, not 2056", false},
		{"sha1 of other length", alg.NullEnc, 0, alg.HMACSHA1, 16, "hmac-sha1 takes a key of 160 bits, not 128", false},
		{"sha256 of other length", alg.AESCBC, 16, alg.HMACSHA2_256, 20, "hmac-sha2-256 takes a key of 256 bits, not 160", false},
		{"sha384 of other length", alg.AESCBC, 16, alg.HMACSHA2_384, 32, "hmac-sha2-384 takes a key of 384 bits, not 256", false},
		{"sha512 without key", alg.AESCBC, 16, alg.HMACSHA2_512, 0, "hmac-sha2-512 takes a key of 512 bits, not 0", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := NewSuite(combination{enc: tt.enc, auth: tt.auth, key: tt.key, mac: tt.authKey}.keys(false))
			if err == nil || s != nil {
				t.Fatalf("made %p, error %v", s, err)
			}
			if err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			if errors.Is(err, ErrUnsupported) != tt.unsupported {
				t.Errorf("%v: ErrUnsupported is wrong", err)
			}
		})
	}
}

// An AEAD serves all workers at once; what keeps state is one worker's own.
func TestSharedCiphers(t *testing.T) {
	for _, c := range combinations {
		s, first := newCipher(t, c.keys(false))
		second := s.NewCipher()
		if c.mac == 0 && (s.Shared() != first || first != second) {
			t.Errorf("%s: not one for all", c.name)
		}
		if c.mac != 0 && (s.Shared() != nil || first == second) {
			t.Errorf("%s: workers share state", c.name)
		}
	}
}

// Workers that ask for the shared cipher at the same time get the same one.
func TestSharedIsBuiltOnce(t *testing.T) {
	for range 50 {
		s, err := NewSuite(combinations[0].keys(false))
		if err != nil {
			t.Fatal(err)
		}
		if s.shared.Load() != nil {
			t.Fatal("built before anybody asked")
		}
		var got [8]Cipher
		var wg sync.WaitGroup
		for i := range got {
			wg.Go(func() { got[i] = s.Shared() })
		}
		wg.Wait()
		for _, c := range got {
			if c == nil || c != got[0] {
				t.Fatalf("workers got %p and %p", c, got[0])
			}
		}
	}
}

// Workers seal and open at once, each with what NewCipher gave it.
func TestWorkersAtOnce(t *testing.T) {
	for _, c := range combinations {
		s, _ := newCipher(t, c.keys(true))
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				cipher, scratch := s.NewCipher(), Scratch{}
				for n := range uint64(200) {
					esp := unsealed(s, 256, uint32(n), octets(64, 3))
					cipher.Seal(&scratch, esp, uint32(i), n<<8|uint64(i))
					if !cipher.Open(&scratch, esp, uint32(i)) || !bytes.Equal(textOf(s, esp), octets(64, 3)) {
						t.Errorf("%s: worker %d, packet %d", c.name, i, n)
						return
					}
				}
			})
		}
		wg.Wait()
	}
}

// A Suite is small until its SA has traffic: all of a cold SA may cost 600
// octets, and this much of it is for the ciphers and their keys.
func TestColdSuiteIsSmall(t *testing.T) {
	const suites = 1000
	if size := unsafe.Sizeof(Suite{}); size > 96 {
		t.Errorf("a Suite is %d octets", size)
	}
	for _, c := range combinations {
		kept := make([]*Suite, suites)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for i := range kept {
			kept[i], _ = NewSuite(c.keys(true))
		}
		runtime.ReadMemStats(&after)
		each := int(after.TotalAlloc-before.TotalAlloc) / suites
		t.Logf("%s: %d octets", c.name, each)
		limit := 200
		if c.enc == alg.NullEnc {
			limit += c.key // meaningless, but setkey shows it
		}
		if each > limit {
			t.Errorf("%s: a cold suite costs %d octets, of which %d are keys", c.name, each, c.key+c.mac)
		}
	}
}

func TestWipe(t *testing.T) {
	eachSuite(t, func(t *testing.T, c combination, esn bool) {
		k := c.keys(esn)
		s, cipher := newCipher(t, k)
		s.Wipe()
		for _, b := range [][]byte{k.EncKey, k.AuthKey} {
			if !bytes.Equal(b, make([]byte, len(b))) {
				t.Errorf("left %x", b)
			}
		}
		if s.shared.Load() != nil {
			t.Error("keeps the shared cipher")
		}
		if g, ok := cipher.(*gcm); ok && *g.salt != [gcmSalt]byte{} {
			t.Errorf("the shared cipher keeps the salt %x", *g.salt)
		}
		s.Wipe()
		wiped(t, func() { s.NewCipher() })
		if c.mac == 0 {
			wiped(t, func() { s.Shared() })
		}
	})
}

// wiped wants f to stop rather than to work with a key of zeros.
func wiped(t *testing.T, f func()) {
	t.Helper()
	defer func() {
		if msg, _ := recover().(string); !strings.Contains(msg, "wiped") {
			t.Errorf("a wiped suite made a cipher, or failed with %q", msg)
		}
	}()
	f()
}
