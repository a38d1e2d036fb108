package crypto

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"ipsecd/crypto/alg"
)

// unhex reads octets written with blanks between them.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// newCipher makes a suite and a cipher of it.
func newCipher(t testing.TB, enc uint8, key []byte, auth uint8, authKey []byte) (*Suite, Cipher) {
	t.Helper()
	s, err := NewSuite(enc, key, auth, authKey)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.NewCipher()
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

// AES-CBC of RFC 3602 section 4, cases 1 and 2, behind the ICV that RFC 4868
// gives them in an ESP packet.
func TestOpenRFC3602(t *testing.T) {
	tests := []struct{ name, key, iv, plain, sealed string }{
		{"case 1", "06a9214036b8a15b512e03d534120006", "3dafba429d9eb430b422da802c9fac41",
			hex.EncodeToString([]byte("Single block msg")), "e353779c1079aeb82708942dbe77181a"},
		{"case 2", "c286696d887c9aa0611bbb3e2025a45a", "562e17996d093d28ddb3ba695a2e6f58",
			"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
			"d296cd94c2cccf8a3a863028b5e1dc0a 7586602d253cfff91b8266bea6d61ab1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			authKey := bytes.Repeat([]byte{7}, 32)
			s, c := newCipher(t, alg.AESCBC, unhex(t, tt.key), alg.HMACSHA2_256, authKey)
			esp := join(unhex(t, "00001000 00000001"), unhex(t, tt.iv), unhex(t, tt.sealed))
			mac := hmac.New(sha256.New, authKey)
			mac.Write(esp)
			esp = append(esp, mac.Sum(nil)[:16]...)
			if !c.Open(new(Scratch), esp) {
				t.Fatal("ICV refused")
			}
			if got := esp[HeaderLen+s.IVLen : len(esp)-s.ICVLen]; !bytes.Equal(got, unhex(t, tt.plain)) {
				t.Errorf("got %x, want %s", got, tt.plain)
			}
		})
	}
}

// HMAC-SHA-256-128 of RFC 4868 2.7.2.1, the AUTH256 cases.
func TestTagRFC4868(t *testing.T) {
	counting := make([]byte, 32)
	for i := range counting {
		counting[i] = byte(i + 1)
	}
	tests := []struct {
		name      string
		key, data []byte
		want      string
	}{
		{"AUTH256-1", bytes.Repeat([]byte{0x0b}, 32), []byte("Hi There"), "198a607eb44bfbc69903a0f1cf2bbdc5"},
		{"AUTH256-2", bytes.Repeat([]byte("Jefe"), 8), []byte("what do ya want for nothing?"), "167f928588c5cc2eef8e3093caa0e87c"},
		{"AUTH256-3", bytes.Repeat([]byte{0xaa}, 32), bytes.Repeat([]byte{0xdd}, 50), "cdcb1220d1ecccea91e53aba3092f962"},
		{"AUTH256-4", counting, bytes.Repeat([]byte{0xcd}, 50), "372efcf9b40b35c2115b1346903d2ef4"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, c := newCipher(t, alg.AESCBC, make([]byte, 16), alg.HMACSHA2_256, tt.key)
			for range 2 { // the MAC is used again
				if got := hex.EncodeToString(c.(*cbc).tag(tt.data)); got != tt.want {
					t.Errorf("got %s, want %s", got, tt.want)
				}
			}
		})
	}
}

// AES-GCM ESP of McGrew's test cases for RFC 4106 (draft-mcgrew-gcm-test-01)
// with sequence numbers of 32 bits. The key is followed by its salt.
func TestGCMESP(t *testing.T) {
	tests := []struct {
		name, key, header, plain, sealed string
		iv                               uint64
	}{
		{"128 bits", "feffe9928665731c6d6a8f9467308308 cafebabe", "0000a5f8 0000000a",
			"4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d0010000010000000000000373697009637962657263697479" +
				"02646b0000010001 0001",
			"deb22cd9b07c72c16e3a65beeb8df304a5a5897d33ae530f1ba76d5d114d2a5c3de81827c10e9a4f51330d0eec416642cfbb85a5b47e48a4ec3b9ba95d918bd1" +
				"83b70d3aa8bc6ee4c309e9d85a41ad4a",
			0xfacedbaddecaf888},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, c := newCipher(t, alg.AESGCM16, unhex(t, tt.key), alg.NullAuth, nil)
			plain := unhex(t, tt.plain)
			esp := join(unhex(t, tt.header), make([]byte, s.IVLen), plain, make([]byte, s.ICVLen))
			c.Seal(new(Scratch), esp, tt.iv)
			if got := hex.EncodeToString(esp[HeaderLen+s.IVLen:]); got != tt.sealed {
				t.Fatalf("got %s, want %s", got, tt.sealed)
			}
			if !c.Open(new(Scratch), esp) || !bytes.Equal(esp[HeaderLen+s.IVLen:][:len(plain)], plain) {
				t.Errorf("does not open again: %x", esp)
			}
		})
	}
}
