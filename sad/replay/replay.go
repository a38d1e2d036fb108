// Package replay is the anti-replay window of RFC 4303 section 3.4.3, of any
// size up to MaxSize packets, over numbers of 64 bits.
//
// A Window may be used by several goroutines at once without a lock. Check
// before the ICV is verified, Accept after: Accept alone decides and moves the
// window, so that nothing unauthenticated changes state and of two copies
// checked together one is accepted. The first Accept (or Resume) allocates the
// bitmap, two to four bits a packet, so that an SA that never receives costs
// little; Succeed, by which one Window takes over from another at work, a word
// more; nothing else allocates.
//
// The bitmap is a ring of words. Each holds 32 bits for 32 consecutive
// sequence numbers and, in its upper half, which 32 these are; so a word needs
// no clearing when the window moves on, and setting a bit is one compare and
// swap. RFC 6479 has the ring of words and its spare word; the tag is ours. It
// is cut to 32 bits: a number may look seen when that a multiple of 2^37 before
// it was the last use of its word, which takes a step of nearly that length.
// All other steps are exact, up to 2^64-1, and no number is ever accepted twice.
package replay

import (
	"errors"
	"math/bits"
	"sync/atomic"
)

// MaxSize is the largest window in packets: 32768 octets of bitmap, setkey -r.
const MaxSize = 32768 * 8

// ErrSize is returned for a window over MaxSize.
var ErrSize = errors.New("replay window must be 0 to 262144 packets (0 to 32768 octets)")

const wordBits = 32

// Window remembers which of the last Size sequence numbers were accepted. The
// zero value has size 0: it accepts everything (RFC 4303 3.4.3: without
// anti-replay there are no checks).
type Window struct {
	top  atomic.Uint64        // [a] highest sequence number accepted
	ring atomic.Pointer[ring] // [a] nil until the first is accepted
	size uint32               // [I] packets
}

// ring is a power of two of words: tag<<32 | bits, tag = low 32 bits of seq/32,
// bits 0 for a word that was never used. In a Window that another succeeds it is
// one without words, which names the heir.
type ring struct {
	words []atomic.Uint64
	heir  *Window
}

// between stands in a Window that another is about to succeed, or that was
// released.
var between = new(ring)

// New returns a window of size packets.
func New(size uint32) (*Window, error) {
	w := new(Window)
	return w, w.Init(size)
}

// Init sets the size in packets of a zero Window.
func (w *Window) Init(size uint32) error {
	if size > MaxSize {
		return ErrSize
	}
	w.size = size
	return nil
}

// Size is the window in packets.
func (w *Window) Size() uint32 { return w.size }

// Top is the highest sequence number accepted so far, 0 for none.
func (w *Window) Top() uint64 { return w.top.Load() }

// Resume makes all numbers up to top, of a Window that nobody uses yet, count
// as accepted.
func (w *Window) Resume(top uint64) {
	w.top.Store(top)
	if w.size == 0 || top == 0 {
		return
	}
	r := w.made()
	last := top / wordBits
	for i := range min(uint64(len(r.words)), last+1) {
		r.at(last - i).Store((last-i)<<32 | (1<<wordBits - 1))
	}
	r.at(last).Store(last<<32 | (2<<(top%wordBits) - 1))
}

// Succeed makes w, which nobody uses yet, take over from old, which may be in
// use: all numbers up to old's top count as accepted, as with Resume, and old
// leaves it to w to accept any more. Meanwhile, for the time that Resume takes,
// neither does.
func (w *Window) Succeed(old *Window) {
	old.ring.Store(between)
	w.Resume(max(old.Top(), w.Top()))
	old.ring.Store(&ring{heir: w})
}

// Release lets go of the bitmap, and of the heir, of a Window that nobody uses any
// more. It accepts nothing from then on.
func (w *Window) Release() { w.ring.Store(between) }

// made returns the ring, new when there is none; nil if a window of size 0 has
// none.
func (w *Window) made() *ring {
	if r := w.ring.Load(); r != nil || w.size == 0 {
		return r
	}
	// A window of n numbers touches up to n/32+1 words; the ring is a power
	// of two above that.
	r := &ring{words: make([]atomic.Uint64, 1<<bits.Len32((w.size+wordBits-1)/wordBits))}
	w.ring.CompareAndSwap(nil, r)
	return w.ring.Load()
}

// at is the word for 32 numbers from 32*block on.
func (r *ring) at(block uint64) *atomic.Uint64 { return &r.words[block&uint64(len(r.words)-1)] }

// Check says whether seq could be accepted: it is not 0, not left of the
// window, and not seen; or there is no window. It changes nothing.
func (w *Window) Check(seq uint64) bool {
	r := w.ring.Load()
	switch {
	case r != nil && r.heir != nil:
		return r.heir.Check(seq)
	case w.size == 0:
		return true
	case seq == 0 || w.left(seq):
		return false
	case r == nil || r == between:
		return true
	}
	_, fresh := w.mark(seq, r.at(seq/wordBits).Load())
	return fresh
}

// Accept marks seq as seen and moves the window to it, and reports whether it
// was fresh: only one call ever says so of a number.
func (w *Window) Accept(seq uint64) bool {
	if seq == 0 && w.size > 0 {
		return false
	}
	// The top goes first: see mark.
	w.raise(seq)
	// The ring is read behind it. Who succeeds w takes the ring away and then
	// reads the top, and so knows of all that is decided here.
	r := w.made()
	switch {
	case r == nil:
		return true
	case r == between:
		return false
	case r.heir != nil:
		return r.heir.Accept(seq)
	}
	slot := r.at(seq / wordBits)
	for {
		word := slot.Load()
		next, fresh := w.mark(seq, word)
		if !fresh || slot.CompareAndSwap(word, next) {
			return fresh
		}
	}
}

// left says that seq is left of the window.
func (w *Window) left(seq uint64) bool {
	top := w.top.Load()
	return w.size > 0 && seq < top && top-seq >= uint64(w.size)
}

// mark returns a word of the ring with seq marked in it, and whether seq is
// fresh. The word was loaded before the call: every number in it raised the top
// before it was marked, so none is above the top as it is now. Then a word that
// holds other 32 numbers than seq's holds older ones and gives way: with newer
// ones, a whole ring ahead, seq would be left of the window.
func (w *Window) mark(seq, word uint64) (next uint64, fresh bool) {
	if w.left(seq) {
		return 0, false
	}
	block, bit := seq/wordBits, uint64(1)<<(seq%wordBits)
	if uint32(word) == 0 || word>>32 != uint64(uint32(block)) {
		return block<<32 | bit, true
	}
	return word | bit, word&bit == 0
}

func (w *Window) raise(seq uint64) {
	for {
		top := w.top.Load()
		if seq <= top || w.top.CompareAndSwap(top, seq) {
			return
		}
	}
}
