package crypto

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"

	"ipsecd/crypto/alg"
)

// gcm is AES-GCM with a 16-octet ICV (RFC 4106). The nonce is salt(4) IV(8);
// the IV is the counter n as it stands; the AAD is SPI and sequence number.
type gcm struct {
	aead cipher.AEAD
	salt [4]byte
}

const (
	gcmIV  = 8
	gcmICV = 16
)

func newGCM(e *alg.Info, key []byte) (*Suite, error) {
	salt := len(key) - e.Salt/8
	block, err := aes.NewCipher(key[:salt])
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	g := &gcm{aead: aead, salt: [4]byte(key[salt:])}
	return &Suite{IVLen: e.IV, ICVLen: e.ICV, Block: e.Block, shared: g}, nil
}

func (g *gcm) nonce(s *Scratch, iv []byte) []byte {
	copy(s.nonce[:], g.salt[:])
	copy(s.nonce[4:], iv)
	return s.nonce[:]
}

func (g *gcm) Seal(s *Scratch, esp []byte, n uint64) {
	iv := esp[HeaderLen : HeaderLen+gcmIV]
	binary.BigEndian.PutUint64(iv, n)
	text := esp[HeaderLen+gcmIV : len(esp)-gcmICV]
	g.aead.Seal(text[:0], g.nonce(s, iv), text, esp[:HeaderLen])
}

func (g *gcm) Open(s *Scratch, esp []byte) bool {
	iv, sealed := esp[HeaderLen:HeaderLen+gcmIV], esp[HeaderLen+gcmIV:]
	_, err := g.aead.Open(sealed[:0], g.nonce(s, iv), sealed, esp[:HeaderLen])
	return err == nil
}
