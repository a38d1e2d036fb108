package crypto

import (
	"crypto/cipher"
	"encoding/binary"
)

// gcm is AES-GCM with a 16-octet ICV (RFC 4106). The nonce is salt(4) IV(8);
// the IV is the counter n as it stands; the AAD is the SPI and the sequence
// number, of which all 64 bits with ESN.
type gcm struct {
	aead cipher.AEAD
	salt *[gcmSalt]byte // within the Suite's key, so that Wipe reaches it
	esn  bool
}

const (
	gcmSalt = 4
	gcmIV   = 8
	gcmICV  = 16
)

func newGCM(k *Keys) *gcm {
	n := len(k.EncKey) - gcmSalt
	return &gcm{aead: aesGCM(k.EncKey[:n]), salt: (*[gcmSalt]byte)(k.EncKey[n:]), esn: k.ESN}
}

// aesGCM is AES-GCM under a key of a length that AES has.
func aesGCM(key []byte) cipher.AEAD {
	aead, err := cipher.NewGCM(aesBlock(key))
	if err != nil {
		panic(err) // only for other blocks than 16 octets
	}
	return aead
}

func (g *gcm) Seal(s *Scratch, esp []byte, hi uint32, n uint64) {
	iv := esp[HeaderLen : HeaderLen+gcmIV]
	binary.BigEndian.PutUint64(iv, n)
	text := esp[HeaderLen+gcmIV : len(esp)-gcmICV]
	g.aead.Seal(text[:0], g.nonce(s, iv), text, g.aad(s, esp, hi))
}

func (g *gcm) Open(s *Scratch, esp []byte, hi uint32) bool {
	iv, sealed := esp[HeaderLen:HeaderLen+gcmIV], esp[HeaderLen+gcmIV:]
	_, err := g.aead.Open(sealed[:0], g.nonce(s, iv), sealed, g.aad(s, esp, hi))
	return err == nil
}

// nonce is RFC 4106 section 4.
func (g *gcm) nonce(s *Scratch, iv []byte) []byte {
	copy(s.nonce[:], g.salt[:])
	copy(s.nonce[gcmSalt:], iv)
	return s.nonce[:]
}

// aad is RFC 4106 section 5: with ESN the high half of the sequence number
// stands between SPI and low half.
func (g *gcm) aad(s *Scratch, esp []byte, hi uint32) []byte {
	if !g.esn {
		return esp[:HeaderLen]
	}
	copy(s.aad[:4], esp[:4])
	binary.BigEndian.PutUint32(s.aad[4:8], hi)
	copy(s.aad[8:], esp[4:8])
	return s.aad[:]
}
