package control

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"

	"ipsecd/crypto/alg"
	"ipsecd/sad"
)

// keyUses counts the live SAs of each key, to warn of shared ones. It knows keys
// by a keyed hash that is worth nothing outside of this process. Two keys may
// share a hash of 64 bits; that costs a needless warning.
type keyUses struct {
	hash hash.Hash
	sum  []byte
	uses map[uint64]keyUse
}

type keyUse struct {
	spis uint32 // exclusive or of the SPIs of all SAs with this key: where one is left, its SPI
	n    uint32
}

func newKeyUses() keyUses {
	var secret [32]byte
	rand.Read(secret[:])
	return keyUses{hash: hmac.New(sha256.New, secret[:]), uses: make(map[uint64]keyUse)}
}

// fingerprint is of the encryption key with its salt, or of the authentication
// key where nothing is encrypted; false without any.
func (k *keyUses) fingerprint(sa *sad.SA) (uint64, bool) {
	s := sa.Spec()
	enc, auth := sa.Keys()
	defer clear(enc)
	defer clear(auth)
	kind, number, key := byte('e'), s.Enc, enc
	if s.Enc == alg.NullEnc {
		kind, number, key = 'a', s.Auth, auth
	}
	if len(key) == 0 {
		return 0, false
	}
	k.hash.Reset()
	k.hash.Write([]byte{kind, number})
	k.hash.Write(key)
	k.sum = k.hash.Sum(k.sum[:0])
	return binary.NativeEndian.Uint64(k.sum), true
}

// remember counts an SA that goes live. When it is the second of its key, it
// returns the SPI of the other and true.
func (k *keyUses) remember(sa *sad.SA) (uint32, bool) {
	f, ok := k.fingerprint(sa)
	if !ok {
		return 0, false
	}
	use := k.uses[f]
	other := use.spis
	use.spis ^= sa.Spec().SPI
	use.n++
	k.uses[f] = use
	return other, use.n == 2
}

// forget counts an SA that goes, before it does.
func (k *keyUses) forget(sa *sad.SA) {
	f, ok := k.fingerprint(sa)
	if !ok {
		return
	}
	use := k.uses[f]
	if use.n <= 1 {
		delete(k.uses, f)
		return
	}
	use.spis ^= sa.Spec().SPI
	use.n--
	k.uses[f] = use
}

// name shows an SA in a log.
func name(id sad.ID) string {
	return fmt.Sprintf("esp to %v spi %#x", id.Dst, id.SPI)
}
