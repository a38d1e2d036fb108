// Package replay is the anti-replay window of RFC 4303 section 3.4.3, of any
// size up to MaxSize packets.
//
// A Window may be used by several goroutines at once without a lock, and
// allocates nothing after New. Check before the ICV is verified, Accept after:
// Accept alone decides and moves the window, so that nothing unauthenticated
// changes state and of two copies checked together one is accepted.
//
// The bitmap is a ring of words. Each holds 32 bits for 32 consecutive
// sequence numbers and, in its upper half, which 32 these are; so a word needs
// no clearing when the window moves on, and setting a bit is one compare and
// swap. RFC 6479 has the ring of words and its spare word; the tag is ours. It is
// cut to 32 bits: a gap of more than 2^36 numbers in one step may make fresh
// numbers look seen, never the reverse.
package replay

import (
	"errors"
	"math/bits"
	"sync/atomic"
)

// MaxSize is the largest window in packets: 32768 octets of bitmap, setkey -r.
const MaxSize = 32768 * 8

// ErrSize is returned for a window over MaxSize.
var ErrSize = errors.New("replay window is larger than 262144 packets (32768 octets)")

const wordBits = 32

// Window remembers which of the last Size sequence numbers were accepted. The
// zero value has size 0: it accepts everything but 0.
type Window struct {
	size  uint64          // [I] packets
	mask  uint64          // [I] len(words)-1
	words []atomic.Uint64 // [a] tag<<32 | bits, tag = low 32 bits of seq/32
	top   atomic.Uint64   // [a] highest sequence number accepted
}

// New returns a window of size packets.
func New(size uint32) (*Window, error) {
	w := new(Window)
	return w, w.Init(size)
}

// Init makes w a new window of size packets, nothing accepted.
func (w *Window) Init(size uint32) error {
	if size > MaxSize {
		return ErrSize
	}
	*w = Window{size: uint64(size)}
	if size == 0 {
		return nil
	}
	// A window of n numbers touches up to n/32+1 words; the ring is a power
	// of two above that.
	n := uint64(1) << bits.Len64((uint64(size)+wordBits-1)/wordBits)
	w.words, w.mask = make([]atomic.Uint64, n), n-1
	return nil
}

// Size is the window in packets.
func (w *Window) Size() uint32 { return uint32(w.size) }

// Top is the highest sequence number accepted so far, 0 for none.
func (w *Window) Top() uint64 { return w.top.Load() }

// Check says whether seq could be accepted: it is not 0, not left of the
// window, and not seen. It changes nothing.
func (w *Window) Check(seq uint64) bool {
	if seq == 0 {
		return false
	}
	if w.size == 0 {
		return true
	}
	if seq+w.size <= w.top.Load() {
		return false
	}
	block := seq / wordBits
	word := w.words[block&w.mask].Load()
	age := age(block, word)
	return age > 0 || age == 0 && word&(1<<(seq%wordBits)) == 0
}

// age is how many blocks of 32 numbers lie from the one that word holds to
// block: 0 when it is that one, positive when word holds an older one or none.
func age(block, word uint64) int32 {
	if uint32(word) == 0 {
		return 1
	}
	return int32(uint32(block) - uint32(word>>32))
}

// Accept marks seq as seen and moves the window to it, if it could be
// accepted; else it reports false and changes nothing.
func (w *Window) Accept(seq uint64) bool {
	if seq == 0 {
		return false
	}
	if w.size == 0 {
		w.raise(seq)
		return true
	}
	if seq+w.size <= w.top.Load() {
		return false
	}
	block, bit := seq/wordBits, uint64(1)<<(seq%wordBits)
	slot := &w.words[block&w.mask]
	for {
		word := slot.Load()
		age, next := age(block, word), word|bit
		if age > 0 {
			next = block<<32 | bit
		}
		if age < 0 || next == word {
			return false
		}
		if slot.CompareAndSwap(word, next) {
			w.raise(seq)
			return true
		}
	}
}

func (w *Window) raise(seq uint64) {
	for {
		top := w.top.Load()
		if seq <= top || w.top.CompareAndSwap(top, seq) {
			return
		}
	}
}
