package sad

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"

	"ipsecd/crypto"
	"ipsecd/sad/replay"
)

// ErrSpec is wrapped by what NewSA refuses for other reasons than its
// algorithms.
var ErrSpec = errors.New("invalid SA")

// maxSeq is the last sequence number without ESN (RFC 4303 3.3.3).
const maxSeq = math.MaxUint32

// retiredBit in SA.seq stops Reserve for good. It shares the word with the
// number, so that who deletes an SA learns the last number ever granted.
const retiredBit = 1 << 63

// SA is one security association: what was said of it, ready to use.
//
// Locks: [I] immutable once NewSA returned, [A] set by DB.Add before the SA is
// published, [a] atomic.
type SA struct {
	spec  Spec          // [I]
	Suite *crypto.Suite // [I]

	// Src and Dst are the addresses as 16 octets, IPv4 mapped.
	Src, Dst [16]byte // [I]

	Window replay.Window // [a] of received sequence numbers

	seq   atomic.Uint64 // [a] last sequence number sent, and retiredBit
	iv    *ivCounter    // [A] of the key, shared by all SAs that have it
	ivDir uint64        // [I] bit 63 of every IV

	packets, bytes atomic.Uint64 // [a]
	first, last    atomic.Int64  // [a] use, Unix seconds; 0 never

	prev, next *SA // [m] insertion order, DB.mu
}

// Usage is what an SA has done so far.
type Usage struct {
	Seq      uint64 // last sent; for an SA that only receives the highest accepted
	Packets  uint64
	Bytes    uint64 // outbound whole packets, inbound what came out of them
	FirstUse int64  // Unix seconds, 0 never
	LastUse  int64
}

// NewSA makes an SA from spec. It refuses what the algorithms and RFC 4303 do
// not allow, with an error that says what would be right and shows no key.
func NewSA(spec Spec) (*SA, error) {
	s := spec.clone()
	s.Src, s.Dst = s.Src.Unmap(), s.Dst.Unmap()
	switch {
	case s.Proto != ProtoESP:
		return nil, fmt.Errorf("%w: protocol %d; 50 (ESP) is the one supported", ErrSpec, s.Proto)
	case s.SPI < 256:
		return nil, fmt.Errorf("%w: SPI %d is reserved; 256 to 4294967295 are free to use", ErrSpec, s.SPI)
	case !s.Src.IsValid() || !s.Dst.IsValid() || s.Src.Is4() != s.Dst.Is4():
		return nil, fmt.Errorf("%w: source and destination must be addresses of one family", ErrSpec)
	case s.Encap != (Encap{}) && (s.Encap.SrcPort == 0 || s.Encap.DstPort == 0):
		return nil, fmt.Errorf("%w: UDP encapsulation needs both ports", ErrSpec)
	}
	suite, err := crypto.NewSuite(s.Enc, s.EncKey, s.Auth, s.AuthKey)
	if err != nil {
		return nil, err
	}
	sa := &SA{spec: s, Suite: suite, Src: s.Src.As16(), Dst: s.Dst.As16()}
	if err := sa.Window.Init(s.Replay); err != nil {
		return nil, err
	}
	if s.Src.Compare(s.Dst) > 0 {
		sa.ivDir = 1 << 63
	}
	return sa, nil
}

// Spec returns what the SA was made from. It is not to be changed; the keys
// are in it.
func (sa *SA) Spec() *Spec { return &sa.spec }

// Usage returns the counters. They are read one by one, not at one instant.
func (sa *SA) Usage() Usage {
	return Usage{
		Seq:      max(sa.seq.Load()&^retiredBit, sa.Window.Top()),
		Packets:  sa.packets.Load(),
		Bytes:    sa.bytes.Load(),
		FirstUse: sa.first.Load(),
		LastUse:  sa.last.Load(),
	}
}

// Grant is a run of sequence numbers and the IV counters that go with them,
// for N packets: Seq, Seq+1, ... and IV, IV+1, ...
type Grant struct {
	Seq uint64
	IV  uint64
	N   int
}

// Reserve grants sequence numbers and IVs for up to n packets. The grant may
// be smaller, and is empty once the SA is Retired or the numbers are used up:
// then it needs another key. What is granted is never granted again. Only for an
// SA that a DB took.
func (sa *SA) Reserve(n int) Grant {
	for {
		last := sa.seq.Load()
		if n <= 0 || last >= maxSeq {
			return Grant{}
		}
		m := min(uint64(n), maxSeq-last)
		if sa.seq.CompareAndSwap(last, last+m) {
			return Grant{Seq: last + 1, IV: sa.ivDir | sa.iv.take(m), N: int(m)}
		}
	}
}

// Retired reports whether the SA was deleted or replaced.
func (sa *SA) Retired() bool { return sa.seq.Load()&retiredBit != 0 }

// retire stops Reserve and returns the last number granted.
func (sa *SA) retire() uint64 { return sa.seq.Or(retiredBit) &^ retiredBit }

// Count adds a burst to the counters; now is in Unix seconds.
func (sa *SA) Count(packets, octets int, now int64) {
	sa.packets.Add(uint64(packets))
	sa.bytes.Add(uint64(octets))
	if sa.last.Load() != now {
		sa.last.Store(now)
		sa.first.CompareAndSwap(0, now)
	}
}
