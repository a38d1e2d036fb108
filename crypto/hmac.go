package crypto

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"hash"

	"ipsecd/crypto/alg"
)

// mac is HMAC, cut off to the ICV: HMAC-SHA-1-96 (RFC 2404), HMAC-SHA-256-128,
// -384-192 and -512-256 (RFC 4868). For the use of one worker.
type mac struct {
	hash hash.Hash
	icv  int // octets
	esn  bool
	hi   [4]byte
	sum  [sha512.Size]byte // the longest
}

var hashes = map[uint8]func() hash.Hash{
	alg.HMACSHA1:     sha1.New,
	alg.HMACSHA2_256: sha256.New,
	alg.HMACSHA2_384: sha512.New384,
	alg.HMACSHA2_512: sha512.New,
}

func newMAC(auth uint8, key []byte, icv int, esn bool) *mac {
	m := &mac{hash: hmac.New(hashes[auth], key), icv: icv, esn: esn}
	m.hash.Reset() // the first one allocates: it keeps the state to come back to
	return m
}

// tag is the ICV of b, which ends with the text. With ESN the high half of the
// sequence number follows it, and is not sent (RFC 4303 2.2.1). The result is
// good until the next call.
func (m *mac) tag(b []byte, hi uint32) []byte {
	m.hash.Reset()
	m.hash.Write(b)
	if m.esn {
		binary.BigEndian.PutUint32(m.hi[:], hi)
		m.hash.Write(m.hi[:])
	}
	return m.hash.Sum(m.sum[:0])[:m.icv]
}
