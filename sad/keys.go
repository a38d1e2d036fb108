package sad

import (
	"bytes"
	"crypto/subtle"

	"ipsecd/crypto"
)

// setKeys copies the keys of s and makes the Suite of them. There is one copy,
// which the Suite uses as well.
func (sa *SA) setKeys(s *Spec) (err error) {
	n := len(s.EncKey)
	keys := make([]byte, n+len(s.AuthKey))
	enc, auth := keys[:n:n], keys[n:]
	copy(enc, s.EncKey)
	copy(auth, s.AuthKey)
	sa.Suite, err = crypto.NewSuite(crypto.Keys{Enc: s.Enc, Auth: s.Auth, EncKey: enc, AuthKey: auth, ESN: s.ESN})
	if err != nil {
		clear(keys)
		return err
	}
	sa.keys, sa.encLen = keys, uint16(n)
	return nil
}

// Keys returns copies of the keys, nil where there is none or the SA is gone
// and wiped. It may be called at any time, by anybody.
func (sa *SA) Keys() (enc, auth []byte) {
	sa.keyMu.Lock()
	defer sa.keyMu.Unlock()
	enc, auth = sa.split()
	return bytes.Clone(enc), bytes.Clone(auth)
}

// split returns the keys themselves, for who holds keyMu or DB.mu: whoever
// wipes holds both.
func (sa *SA) split() (enc, auth []byte) {
	if sa.encLen > 0 && len(sa.keys) > 0 {
		enc = sa.keys[:sa.encLen]
	}
	if len(sa.keys) > int(sa.encLen) {
		auth = sa.keys[sa.encLen:]
	}
	return enc, auth
}

// sameKeys reports whether two SAs have the same keys and algorithms, ESN too:
// whether numbers of one mean something to the other. DB.mu is held.
func (sa *SA) sameKeys(o *SA) bool {
	a, b := &sa.spec, &o.spec
	return a.Enc == b.Enc && a.Auth == b.Auth && a.ESN == b.ESN &&
		sa.encLen == o.encLen && subtle.ConstantTimeCompare(sa.keys, o.keys) == 1
}

// wipe zeroes the keys of an SA that nobody works with any more. Of what the
// standard library's ciphers hold of a key only the reference is dropped: it
// offers no way to clear it.
func (sa *SA) wipe() {
	sa.keyMu.Lock()
	defer sa.keyMu.Unlock()
	clear(sa.keys)
	sa.keys = nil
	sa.Suite.Wipe()
}
