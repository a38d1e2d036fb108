package control

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"ipsecd/sad"
)

// keyUses counts the live SAs of each key, to warn of shared ones. It knows keys
// by a keyed hash that is worth nothing outside of this process. Two keys may
// share a hash of 64 bits; that costs a needless warning.
type keyUses struct {
	secret [32]byte
	uses   map[uint64]keyUse
}

type keyUse struct {
	spi uint32 // of the first SA with this key
	n   uint32
}

func newKeyUses() keyUses {
	k := keyUses{uses: make(map[uint64]keyUse)}
	rand.Read(k.secret[:])
	return k
}

// fingerprint is of the encryption key with its salt, or of the authentication
// key where there is no other; false without any.
func (k *keyUses) fingerprint(s *sad.Spec) (uint64, bool) {
	kind, number, key := byte('e'), s.Enc, s.EncKey
	if len(key) == 0 {
		kind, number, key = 'a', s.Auth, s.AuthKey
	}
	if len(key) == 0 {
		return 0, false
	}
	h := hmac.New(sha256.New, k.secret[:])
	h.Write([]byte{kind, number})
	h.Write(key)
	return binary.NativeEndian.Uint64(h.Sum(nil)), true
}

// remember counts an SA that goes live. When it is the second of its key, it
// returns the SPI of the first and true.
func (k *keyUses) remember(s *sad.Spec) (uint32, bool) {
	f, ok := k.fingerprint(s)
	if !ok {
		return 0, false
	}
	use := k.uses[f]
	if use.n == 0 {
		use.spi = s.SPI
	}
	use.n++
	k.uses[f] = use
	return use.spi, use.n == 2
}

// forget counts an SA that goes.
func (k *keyUses) forget(s *sad.Spec) {
	f, ok := k.fingerprint(s)
	if !ok {
		return
	}
	use := k.uses[f]
	if use.n <= 1 {
		delete(k.uses, f)
		return
	}
	use.n--
	k.uses[f] = use
}

// name shows an SA in a log.
func name(id sad.ID) string {
	return fmt.Sprintf("esp to %v spi %#x", id.Dst, id.SPI)
}
