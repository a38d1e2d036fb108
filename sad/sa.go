package sad

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"ipsecd/crypto"
	"ipsecd/packet"
	"ipsecd/sad/replay"
)

// ErrSpec is wrapped by what NewSA and SetEncap refuse for other reasons than
// algorithms.
var ErrSpec = errors.New("invalid SA")

// SA is one security association: what was said of it, ready to use. There may
// be a million of them that rest: a test holds their size down.
//
// Locks: [I] immutable once NewSA returned, [A] set before DB.Add published the
// SA, [a] atomic, [k] SA.keyMu, [m] DB.mu.
type SA struct {
	spec  Spec          // [I] without keys
	Suite *crypto.Suite // [I]

	// Src and Dst are the addresses as 16 octets, IPv4 mapped.
	Src, Dst [16]byte // [I]

	Window replay.Window // [a] of received sequence numbers

	seq atomic.Uint64 // [a] last sequence number sent, and retiredBit
	iv  *ivCounter    // [A] of the key, shared by all SAs that have it

	packets, bytes atomic.Uint64 // [a]
	first, last    atomic.Int64  // [a] use, Unix seconds; 0 never

	drops atomic.Pointer[packet.Counters] // [a] nil until the first

	older      atomic.Pointer[SA] // [a] of the same pair; see pair.go
	newer      *SA                // [m]
	prev, next *SA                // [m] insertion order

	keyMu sync.Mutex
	keys  []byte // [k] encryption, then authentication; nil once wiped. The Suite has the same octets.

	encap    atomic.Uint32 // [a] source port, destination port
	encLen   uint16        // [I] octets of keys that encrypt
	fromHigh bool          // [I] Src is above Dst: bit 63 of every IV
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
	spec.Src, spec.Dst = spec.Src.Unmap(), spec.Dst.Unmap()
	if err := spec.check(); err != nil {
		return nil, err
	}
	sa := &SA{Src: spec.Src.As16(), Dst: spec.Dst.As16(), fromHigh: spec.Src.Compare(spec.Dst) > 0}
	if err := sa.Window.Init(spec.Replay); err != nil {
		return nil, err
	}
	if err := sa.setKeys(&spec); err != nil {
		return nil, err
	}
	sa.encap.Store(spec.Encap.word())
	spec.EncKey, spec.AuthKey = nil, nil
	sa.spec = spec
	return sa, nil
}

// check refuses what has nothing to do with algorithms.
func (s *Spec) check() error {
	switch {
	case s.Proto != ProtoESP:
		return fmt.Errorf("%w: protocol %d; 50 (ESP) is the one supported", ErrSpec, s.Proto)
	case s.SPI < 256:
		return fmt.Errorf("%w: SPI %d is reserved; 256 to 4294967295 are free to use", ErrSpec, s.SPI)
	case !s.Src.IsValid() || !s.Dst.IsValid() || s.Src.Is4() != s.Dst.Is4():
		return fmt.Errorf("%w: source and destination must be addresses of one family", ErrSpec)
	case s.Encap != (Encap{}):
		return s.Encap.check()
	}
	return nil
}

// Spec returns what the SA was made from, without the keys. It is not to be
// changed.
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

// Count adds a burst to the counters; now is in Unix seconds.
func (sa *SA) Count(packets, octets int, now int64) {
	sa.packets.Add(uint64(packets))
	sa.bytes.Add(uint64(octets))
	if sa.last.Load() != now {
		sa.last.Store(now)
		sa.first.CompareAndSwap(0, now)
	}
}

// Drop counts n packets of the SA that went no further. The first allocates.
func (sa *SA) Drop(d packet.Drop, n int) {
	if d == packet.Kept || n <= 0 {
		return
	}
	if sa.drops.Load() == nil {
		sa.drops.CompareAndSwap(nil, new(packet.Counters))
	}
	sa.drops.Load().Add(d, n)
}

// Drops returns the SA's drops by reason, nil when there were none.
func (sa *SA) Drops() *packet.Counters { return sa.drops.Load() }
