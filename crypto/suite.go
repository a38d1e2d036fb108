// Package crypto turns algorithm numbers and key octets into something that
// protects an ESP packet in place.
//
// A Suite is made once per SA; until the SA has traffic it is little more than
// its keys. What seals and opens is a Cipher: one for all workers where the
// algorithm keeps no state (AES-GCM), or one per worker where it does (AES-CBC
// or null, with HMAC). None allocates per packet; the little memory that a
// packet needs is the worker's Scratch.
//
// All of a Suite but Wipe may be called by any goroutine at any time.
//
// RFC 4303 (layout, extended sequence numbers), RFC 4106 (AES-GCM), RFC 3602
// (AES-CBC), RFC 2410 (null), RFC 2404 (HMAC-SHA-1-96), RFC 4868 (HMAC-SHA-2).
package crypto

import (
	"errors"
	"fmt"
	"sync/atomic"

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
	aad   [12]byte
}

// Cipher protects and opens ESP packets in place. esp is the packet from the
// SPI to the end of the ICV:
//
//	SPI(4) Sequence(4) IV(IVLen) text ICV(ICVLen)
//
// The text is a multiple of the Suite's Block long. hi is the high half of the
// sequence number: it is not in the packet, but the ICV covers it when the
// Suite has ESN (RFC 4303 2.2.1), and it is ignored when not.
type Cipher interface {
	// Seal writes the IV, which it makes from n, encrypts the text and
	// writes the ICV. n must never come twice under one key.
	Seal(s *Scratch, esp []byte, hi uint32, n uint64)

	// Open verifies the ICV and decrypts the text. It reports false, and the
	// text is of no use any more, when the ICV is wrong.
	Open(s *Scratch, esp []byte, hi uint32) bool
}

// Keys are the algorithms of an ESP SA by their PF_KEY numbers, the octets of
// their keys, and whether its sequence numbers are extended. The key of an
// AEAD is followed by its salt.
type Keys struct {
	Enc, Auth       uint8
	EncKey, AuthKey []byte
	ESN             bool
}

// Suite is the algorithms and keys of one SA.
type Suite struct {
	IVLen, ICVLen int // octets
	Block         int // the text with its padding is a multiple of this

	keys   Keys
	shared atomic.Pointer[gcm] // nil until Shared is called, and without an AEAD
}

// NewSuite checks the numbers and keys of an ESP SA, and computes nothing yet.
// The key octets are the Suite's from the call on, and wiped in place by Wipe.
func NewSuite(k Keys) (*Suite, error) {
	e := alg.ByID(alg.Enc, k.Enc)
	if e == nil {
		return nil, fmt.Errorf("encryption algorithm %d: %w", k.Enc, ErrUnsupported)
	}
	if err := e.CheckKey(8 * len(k.EncKey)); err != nil {
		return nil, err
	}
	if e.Combined() {
		if k.Auth != alg.NullAuth {
			return nil, fmt.Errorf("%s authenticates by itself and takes no authentication algorithm", e.Name)
		}
		return &Suite{IVLen: e.IV, ICVLen: e.ICV, Block: e.Block, keys: k}, nil
	}
	a := alg.ByID(alg.Auth, k.Auth)
	if a == nil {
		return nil, fmt.Errorf("%s needs an authentication algorithm, and %d: %w", e.Name, k.Auth, ErrUnsupported)
	}
	if err := a.CheckKey(8 * len(k.AuthKey)); err != nil {
		return nil, err
	}
	return &Suite{IVLen: e.IV, ICVLen: a.ICV, Block: e.Block, keys: k}, nil
}

// Shared returns the Cipher that all workers may use at once, or nil: then
// each worker keeps its own from NewCipher. The first call builds it.
func (s *Suite) Shared() Cipher {
	if g := s.shared.Load(); g != nil {
		return g
	}
	if s.keys.Auth != alg.NullAuth {
		return nil
	}
	return s.share()
}

// share builds the shared cipher. Who comes second in a race drops his own.
func (s *Suite) share() Cipher {
	s.shared.CompareAndSwap(nil, newGCM(s.live()))
	return s.shared.Load()
}

// NewCipher returns a Cipher for the use of one worker: the shared one where
// there is one.
func (s *Suite) NewCipher() Cipher {
	if c := s.Shared(); c != nil {
		return c
	}
	return newETM(s.live(), s.ICVLen)
}

// live returns the keys. Ciphers of a Suite that was wiped would protect
// nothing, so asking for one is a bug that must not go on.
func (s *Suite) live() *Keys {
	if s.keys.Enc == 0 {
		panic("crypto: a cipher of a suite that was wiped")
	}
	return &s.keys
}

// Wipe zeroes the key octets where they are and drops the shared cipher. It is
// called once nobody uses the Suite any more; a second call does nothing.
//
// What the standard library made of the keys stays in memory until the garbage
// collector hands it out again: the round keys of AES, the hash subkey of GCM
// and the padded keys and inner states of HMAC are in unexported fields, and a
// process can do no more about them than to let go of them. That is this
// shared cipher, and each Cipher that NewCipher returned to a worker.
func (s *Suite) Wipe() {
	clear(s.keys.EncKey)
	clear(s.keys.AuthKey)
	s.keys = Keys{}
	s.shared.Store(nil)
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
