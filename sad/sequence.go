package sad

import "math"

const (
	// maxSeq is the last sequence number without ESN (RFC 4303 3.3.3), and
	// maxESN the last that we send with it.
	maxSeq = math.MaxUint32
	maxESN = retiredBit - 1

	// retiredBit in SA.seq stops Reserve for good. It shares the word with the
	// number, so that who deletes an SA learns the last number ever granted.
	retiredBit = 1 << 63
)

// lastSeq is the last sequence number that the SA sends.
func (sa *SA) lastSeq() uint64 {
	if sa.spec.ESN {
		return maxESN
	}
	return maxSeq
}

// Grant is a run of sequence numbers and the IV counters that go with them,
// for N packets: Seq, Seq+1, ... and IV, IV+1, ... All numbers of a grant have
// the same high half.
type Grant struct {
	Seq uint64
	IV  uint64
	N   int
}

// Reserve grants sequence numbers and IVs for up to n packets. The grant may
// be smaller, since it ends before a multiple of 2^32, and is empty once the SA
// is Retired or the numbers are used up: then it needs another key. What is
// granted is never granted again. Only for an SA that a DB took, and within a
// Reader's burst when others may remove it.
func (sa *SA) Reserve(n int) Grant {
	end := sa.lastSeq()
	for {
		last := sa.seq.Load()
		if n <= 0 || last >= end {
			return Grant{}
		}
		m := min(uint64(n), end-last, 1<<32-uint64(uint32(last+1)))
		if sa.seq.CompareAndSwap(last, last+m) {
			return Grant{Seq: last + 1, IV: sa.takeIV(m), N: int(m)}
		}
	}
}

// Retired reports whether the SA was deleted or replaced.
func (sa *SA) Retired() bool { return sa.seq.Load()&retiredBit != 0 }

// retire stops Reserve and returns the last number granted.
func (sa *SA) retire() uint64 { return sa.seq.Or(retiredBit) &^ retiredBit }

// Resume makes an SA that no DB has yet go on where another left off: sent is
// the last number that was sent, and all numbers up to accepted count as seen.
func (sa *SA) Resume(sent, accepted uint64) {
	sa.seq.Store(min(sent, sa.lastSeq()))
	sa.Window.Resume(accepted)
}

// succeed makes an SA that no DB has yet go on where old is, which is retired
// and has the same keys.
func (sa *SA) succeed(old *SA) {
	sent := old.seq.Load() &^ retiredBit
	sa.seq.Store(max(sent, sa.seq.Load()))
	sa.Window.Succeed(&old.Window)
}

// nearby stands for the size of the window where there is none: the numbers
// that half of 2^32 lies on either side of.
const nearby = 1 << 31

// Sequence returns the number of a packet that arrived with lo in its header:
// lo itself or, with ESN, the least one from the left edge of the window on
// that ends in lo. That is RFC 4303 appendix A2.2 with both of its cases, the
// window in one subspace of 2^32 numbers or across two: what is left of the
// edge in the header must be of the next subspace. The edge is never below 0,
// and so no number is. The ICV tells whether it is right.
func (sa *SA) Sequence(lo uint32) uint64 {
	if !sa.spec.ESN {
		return uint64(lo)
	}
	top, size := sa.Window.Top(), uint64(sa.Window.Size())
	if size == 0 {
		size = nearby
	}
	edge := top - min(top, size-1)
	return edge + uint64(lo-uint32(edge))
}
