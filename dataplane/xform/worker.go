// Package xform is the transforms: verbs that act on packets under an SA. It
// looks nothing up, does no I/O and logs nothing. SealESP and OpenESP are ESP
// itself; frame.go, tunnel.go and transport.go are the headers round it in the
// two modes.
//
// A Worker belongs to one goroutine; it owns a cache of ciphers and the memory
// that sealing and opening need, and the packets it makes lie in their caller's
// buffers. It allocates when it meets an SA whose ciphers keep state for the first
// time, never per packet.
//
// RFC 4303 (ESP; 3.1.1 transport and 3.1.2 tunnel mode), RFC 4301 5.1.2 (tunnel
// headers), RFC 6040 (ECN in tunnels), RFC 3948 (UDP encapsulation).
package xform

import (
	cryptorand "crypto/rand"
	"math/rand/v2"

	"ipsecd/crypto"
	"ipsecd/sad"
)

// cipherSets times cipherWays bounds the stateful ciphers that a worker keeps,
// about 2.4 KiB each.
const (
	setBits    = 6
	cipherSets = 1 << setBits
	cipherWays = 4
)

// Worker holds what one goroutine needs to seal and to open.
type Worker struct {
	scratch crypto.Scratch
	id      uint16        // of the last IPv4 header made
	random  *rand.ChaCha8 // padding, where an SA wants it random

	// ciphers is a cache: an SA's set is fixed by its SPI, hashed since people
	// count SPIs in round steps. The first of a set was made last; the last makes
	// room.
	ciphers [cipherSets][cipherWays]cached
}

type cached struct {
	sa *sad.SA
	c  crypto.Cipher
}

// NewWorker returns a worker whose IPv4 IDs count up from the one behind seed.
func NewWorker(seed uint16) *Worker {
	var key [32]byte
	cryptorand.Read(key[:])
	return &Worker{id: seed, random: rand.NewChaCha8(key)}
}

// cipher returns what seals and opens under sa here.
func (w *Worker) cipher(sa *sad.SA) crypto.Cipher {
	if c := sa.Suite.Shared(); c != nil {
		return c
	}
	set := w.set(sa)
	for i := range set {
		if set[i].sa == sa {
			return set[i].c
		}
	}
	copy(set[1:], set[:])
	set[0] = cached{sa, sa.Suite.NewCipher()}
	return set[0].c
}

// set is where an SA's cipher is, or would be.
func (w *Worker) set(sa *sad.SA) *[cipherWays]cached {
	const golden = 0x9e3779b1 // 2^32 divided by the golden ratio spreads steps of any size
	return &w.ciphers[sa.Spec().SPI*golden>>(32-setBits)]
}

// Forget lets go of the ciphers of SAs that were removed. Their keys, as the
// library expanded them, are the collector's then.
func (w *Worker) Forget() {
	for i := range w.ciphers {
		for k := range w.ciphers[i] {
			if slot := &w.ciphers[i][k]; slot.sa != nil && slot.sa.Retired() {
				*slot = cached{}
			}
		}
	}
}

// nextID makes the ID of an IPv4 header: never 0, which the kernel would
// replace.
func (w *Worker) nextID() uint16 {
	w.id++
	if w.id == 0 {
		w.id = 1
	}
	return w.id
}
