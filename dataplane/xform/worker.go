// Package xform is the transforms: verbs that act on packets under an SA. It
// looks nothing up, does no I/O and logs nothing.
//
// A Worker belongs to one goroutine. It allocates when it meets an SA whose
// ciphers keep state for the first time, never per packet.
//
// RFC 4303 (ESP), RFC 4301 5.1.2 (tunnel headers), RFC 6040 (ECN in tunnels),
// RFC 3948 (UDP encapsulation).
package xform

import (
	"ipsecd/crypto"
	"ipsecd/sad"
)

// cipherSlots bounds the stateful ciphers that a worker keeps, about 1 KiB
// each.
const cipherSlots = 256

// Worker holds what one goroutine needs to seal and to open.
type Worker struct {
	scratch crypto.Scratch
	id      uint16 // of the last IPv4 header made

	// ciphers is a direct-mapped cache: an SA's slot is fixed by its SPI, and
	// one SA may push out another.
	ciphers [cipherSlots]struct {
		sa *sad.SA
		c  crypto.Cipher
	}
}

// NewWorker returns a worker whose IPv4 IDs count up from the one behind seed.
func NewWorker(seed uint16) *Worker { return &Worker{id: seed} }

// cipher returns what seals and opens under sa here.
func (w *Worker) cipher(sa *sad.SA) crypto.Cipher {
	if c := sa.Suite.Shared(); c != nil {
		return c
	}
	slot := &w.ciphers[sa.Spec().SPI%cipherSlots]
	if slot.sa != sa {
		c, err := sa.Suite.NewCipher()
		if err != nil {
			return nil
		}
		slot.sa, slot.c = sa, c
	}
	return slot.c
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
