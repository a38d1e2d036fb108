// Package crypto turns algorithm numbers and key octets into something that
// protects an ESP packet in place.
//
// A Suite is made once per SA and is immutable. What seals and opens is a
// Cipher: one for all workers where the algorithm keeps no state (AEADs), or
// one per worker where it does (CBC, HMAC). Neither allocates per packet; the
// little memory that a packet needs is the worker's Scratch.
//
// RFC 4303 (layout), RFC 4106 (AES-GCM), RFC 3602 (AES-CBC), RFC 4868
// (HMAC-SHA-256-128).
package crypto

import (
	"errors"
	"fmt"

	"ipsecd/crypto/alg"
)

// ErrUnsupported is wrapped by errors about algorithms, and combinations of
// them, that this build cannot do.
var ErrUnsupported = errors.New("not supported")

// HeaderLen is the ESP header in front of the IV: SPI and sequence number.
const HeaderLen = 8

// Scratch is memory that a Cipher needs while it works on one packet. Each
// worker has one.
type Scratch struct {
	nonce [12]byte
}

// Cipher protects and opens ESP packets in place. esp is the packet from the
// SPI to the end of the ICV:
//
//	SPI(4) Sequence(4) IV(IVLen) text ICV(ICVLen)
//
// The text is a multiple of the Suite's Block long.
type Cipher interface {
	// Seal writes the IV, which it makes from n, encrypts the text and
	// writes the ICV. n must never come twice under one key.
	Seal(s *Scratch, esp []byte, n uint64)

	// Open verifies the ICV and decrypts the text. It reports false, and the
	// text is of no use any more, when the ICV is wrong.
	Open(s *Scratch, esp []byte) bool
}

// Suite is the algorithms and keys of one SA.
type Suite struct {
	IVLen, ICVLen int // octets
	Block         int // the text with its padding is a multiple of this

	shared Cipher                 // nil where the algorithm keeps state
	build  func() (Cipher, error) // makes a worker's own
}

// NewSuite checks the numbers and keys of an ESP SA. The key octets are used
// during the call, and by NewCipher, and must not change.
func NewSuite(enc uint8, encKey []byte, auth uint8, authKey []byte) (*Suite, error) {
	e := alg.ByID(alg.Enc, enc)
	if e == nil {
		return nil, fmt.Errorf("encryption algorithm %d: %w", enc, ErrUnsupported)
	}
	if err := e.CheckKey(8 * len(encKey)); err != nil {
		return nil, err
	}
	if e.Combined() {
		if auth != alg.NullAuth {
			return nil, fmt.Errorf("%s authenticates by itself and takes no authentication algorithm", e.Name)
		}
		return newGCM(e, encKey)
	}
	a := alg.ByID(alg.Auth, auth)
	if a == nil {
		return nil, fmt.Errorf("%s needs an authentication algorithm, and %d: %w", e.Name, auth, ErrUnsupported)
	}
	if err := a.CheckKey(8 * len(authKey)); err != nil {
		return nil, err
	}
	return newCBC(e, encKey, a, authKey)
}

// Shared returns the Cipher that all workers may use at once, or nil: then
// each worker keeps its own from NewCipher.
func (s *Suite) Shared() Cipher { return s.shared }

// NewCipher returns a Cipher for the use of one worker.
func (s *Suite) NewCipher() (Cipher, error) {
	if s.shared != nil {
		return s.shared, nil
	}
	return s.build()
}

// SealedLen is the length of the ESP packet that n octets of payload become:
// header, IV, payload, padding with its two octets of trailer, ICV (RFC 4303
// 2.4).
func (s *Suite) SealedLen(n int) int {
	return HeaderLen + s.IVLen + (n+2+s.Block-1)/s.Block*s.Block + s.ICVLen
}

// PayloadFor is the most octets of payload that become an ESP packet of at
// most n octets; below zero when not even an empty one fits.
func (s *Suite) PayloadFor(n int) int {
	return (n-HeaderLen-s.IVLen-s.ICVLen)/s.Block*s.Block - 2
}
