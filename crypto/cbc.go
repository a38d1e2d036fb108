package crypto

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"hash"
	"slices"

	"ipsecd/crypto/alg"
)

// cbc is AES-CBC (RFC 3602) with HMAC-SHA-256-128 (RFC 4868): encrypt, then
// authenticate from the SPI to the end of the text.
type cbc struct {
	block    cipher.Block
	enc, dec ivSetter
	mac      hash.Hash
	sum      [sha256.Size]byte
	icv      int
}

// ivSetter is what crypto/cipher's CBC modes are besides a BlockMode: one
// object serves all packets of an SA.
type ivSetter interface {
	cipher.BlockMode
	SetIV([]byte)
}

func newCBC(e *alg.Info, key []byte, a *alg.Info, authKey []byte) (*Suite, error) {
	key, authKey = slices.Clone(key), slices.Clone(authKey)
	build := func() (Cipher, error) {
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, err
		}
		var zero [aes.BlockSize]byte
		return &cbc{
			block: block,
			enc:   cipher.NewCBCEncrypter(block, zero[:]).(ivSetter),
			dec:   cipher.NewCBCDecrypter(block, zero[:]).(ivSetter),
			mac:   hmac.New(sha256.New, authKey),
			icv:   a.ICV,
		}, nil
	}
	return &Suite{IVLen: e.IV, ICVLen: a.ICV, Block: e.Block, build: build}, nil
}

// Seal makes the IV by encrypting the counter: RFC 3602 section 3 wants it
// unpredictable, and a nonce under the same key is (NIST SP 800-38A, appendix
// C, first method).
func (c *cbc) Seal(_ *Scratch, esp []byte, n uint64) {
	iv := esp[HeaderLen : HeaderLen+aes.BlockSize]
	clear(iv)
	binary.BigEndian.PutUint64(iv[aes.BlockSize-8:], n)
	c.block.Encrypt(iv, iv)
	end := len(esp) - c.icv
	text := esp[HeaderLen+aes.BlockSize : end]
	c.enc.SetIV(iv)
	c.enc.CryptBlocks(text, text)
	copy(esp[end:], c.tag(esp[:end]))
}

func (c *cbc) Open(_ *Scratch, esp []byte) bool {
	end := len(esp) - c.icv
	if subtle.ConstantTimeCompare(c.tag(esp[:end]), esp[end:]) != 1 {
		return false
	}
	text := esp[HeaderLen+aes.BlockSize : end]
	c.dec.SetIV(esp[HeaderLen : HeaderLen+aes.BlockSize])
	c.dec.CryptBlocks(text, text)
	return true
}

func (c *cbc) tag(b []byte) []byte {
	c.mac.Reset()
	c.mac.Write(b)
	return c.mac.Sum(c.sum[:0])[:c.icv]
}
