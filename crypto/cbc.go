package crypto

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
)

// cbc is AES-CBC (RFC 3602), for the use of one worker.
type cbc struct {
	block    cipher.Block
	enc, dec ivSetter
}

// ivSetter is what crypto/cipher's CBC modes are besides a BlockMode: one
// object serves all packets of an SA.
type ivSetter interface {
	cipher.BlockMode
	SetIV([]byte)
}

func newCBC(key []byte) *cbc {
	block := aesBlock(key)
	var zero [aes.BlockSize]byte
	return &cbc{
		block: block,
		enc:   cipher.NewCBCEncrypter(block, zero[:]).(ivSetter),
		dec:   cipher.NewCBCDecrypter(block, zero[:]).(ivSetter),
	}
}

// aesBlock is AES under a key of a length that it has.
func aesBlock(key []byte) cipher.Block {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // NewSuite checked the length
	}
	return block
}

// encrypt makes the IV by encrypting the counter: RFC 3602 section 3 wants it
// unpredictable, and a nonce under the same key is (NIST SP 800-38A, appendix
// C, first method).
func (c *cbc) encrypt(body []byte, n uint64) {
	iv, text := body[:aes.BlockSize], body[aes.BlockSize:]
	clear(iv)
	binary.BigEndian.PutUint64(iv[aes.BlockSize-8:], n)
	c.block.Encrypt(iv, iv)
	c.enc.SetIV(iv)
	c.enc.CryptBlocks(text, text)
}

func (c *cbc) decrypt(body []byte) {
	iv, text := body[:aes.BlockSize], body[aes.BlockSize:]
	c.dec.SetIV(iv)
	c.dec.CryptBlocks(text, text)
}
