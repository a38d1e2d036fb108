package crypto

import (
	"crypto/subtle"

	"ipsecd/crypto/alg"
)

// etm encrypts, then authenticates from the SPI to the end of the text (RFC
// 4303 3.3.2.1). It keeps state while it works on a packet: one worker's.
type etm struct {
	enc encryption
	mac *mac
}

// encryption is the half of etm that keeps the text secret. body is what
// stands between header and ICV:
//
//	IV(IVLen) text
type encryption interface {
	// encrypt writes the IV, which it makes from n, and encrypts the text.
	encrypt(body []byte, n uint64)
	decrypt(body []byte)
}

// null leaves the text as it is, and has no IV (RFC 2410). Its key, if there
// is one, means nothing.
type null struct{}

func (null) encrypt([]byte, uint64) {}
func (null) decrypt([]byte)         {}

var encryptions = map[uint8]func(key []byte) encryption{
	alg.NullEnc: func([]byte) encryption { return null{} },
	alg.AESCBC:  func(key []byte) encryption { return newCBC(key) },
}

func newETM(k *Keys, icv int) *etm {
	return &etm{enc: encryptions[k.Enc](k.EncKey), mac: newMAC(k.Auth, k.AuthKey, icv, k.ESN)}
}

func (c *etm) Seal(_ *Scratch, esp []byte, hi uint32, n uint64) {
	end := len(esp) - c.mac.icv
	c.enc.encrypt(esp[HeaderLen:end], n)
	copy(esp[end:], c.mac.tag(esp[:end], hi))
}

func (c *etm) Open(_ *Scratch, esp []byte, hi uint32) bool {
	end := len(esp) - c.mac.icv
	if subtle.ConstantTimeCompare(c.mac.tag(esp[:end], hi), esp[end:]) != 1 {
		return false
	}
	c.enc.decrypt(esp[HeaderLen:end])
	return true
}
