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

// cipherSlots bounds the stateful ciphers that a worker keeps, about 1 KiB
// each.
const cipherSlots = 256

// Worker holds what one goroutine needs to seal and to open.
type Worker struct {
	scratch crypto.Scratch
	id      uint16        // of the last IPv4 header made
	random  *rand.ChaCha8 // padding, where an SA wants it random

	// ciphers is a direct-mapped cache: an SA's slot is fixed by its SPI, and
	// one SA may push out another.
	ciphers [cipherSlots]struct {
		sa *sad.SA
		c  crypto.Cipher
	}
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
	slot := &w.ciphers[sa.Spec().SPI%cipherSlots]
	if slot.sa != sa {
		slot.sa, slot.c = sa, sa.Suite.NewCipher()
	}
	return slot.c
}

// Forget lets go of the ciphers of SAs that were removed. Their keys, as the
// library expanded them, are the collector's then.
func (w *Worker) Forget() {
	for i := range w.ciphers {
		if slot := &w.ciphers[i]; slot.sa != nil && slot.sa.Retired() {
			slot.sa, slot.c = nil, nil
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
