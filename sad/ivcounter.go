package sad

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"sync/atomic"
)

// ivCounter hands out the IVs of one key. Counter-mode ciphers lose all
// secrecy when an IV comes twice under one key (RFC 4106 section 9), so it
// belongs to the key: SAs with the same key share it, and it outlives them,
// for the file that is flushed and loaded again. It counts in 63 bits from the
// wall clock in nanoseconds, so that it is ahead of all that an earlier run
// could have sent; bit 63 is the SA's direction.
type ivCounter struct {
	next atomic.Uint64 // [a]
	used int32         // [m] SAs that have it
	sent bool          // [m] something was sealed under the key
}

const ivMask = 1<<63 - 1

func (c *ivCounter) take(n uint64) uint64 { return (c.next.Add(n) - n) & ivMask }

// takeIV returns the first of n IVs of the SA's key.
func (sa *SA) takeIV(n uint64) uint64 {
	iv := sa.iv.take(n)
	if sa.fromHigh {
		iv |= ivMask + 1
	}
	return iv
}

// raise moves the counter on to at least n.
func (c *ivCounter) raise(n uint64) {
	for {
		now := c.next.Load()
		if now >= n || c.next.CompareAndSwap(now, n) {
			return
		}
	}
}

// fingerprint stands for a secret without showing it. Should two ever have the
// same, they share a counter or a number to start behind, which is safe.
type fingerprint [8]byte

// memory is what is remembered of keys beyond the life of an SA. All of it is
// guarded by DB.mu.
type memory struct {
	secret [32]byte
	ivs    map[fingerprint]*ivCounter

	// seqs has the last sequence number of deleted SAs that sent anything, by
	// all that identifies them at the peer. An SA that is loaded again goes on
	// from there: the peer's replay window, which may not have been reloaded,
	// would drop everything else.
	seqs map[fingerprint]uint64
}

func newMemory() memory {
	m := memory{ivs: map[fingerprint]*ivCounter{}, seqs: map[fingerprint]uint64{}}
	rand.Read(m.secret[:])
	return m
}

func (m *memory) fingerprint(parts ...[]byte) (f fingerprint) {
	h := hmac.New(sha256.New, m.secret[:])
	for _, p := range parts {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(p))))
		h.Write(p)
	}
	copy(f[:], h.Sum(nil))
	return f
}

func (m *memory) keyOf(sa *SA) fingerprint {
	enc, _ := sa.split()
	return m.fingerprint([]byte{sa.spec.Enc}, enc)
}

func (m *memory) seqOf(sa *SA) fingerprint {
	s := &sa.spec
	esn := byte(0)
	if s.ESN {
		esn = 1
	}
	enc, auth := sa.split()
	return m.fingerprint([]byte{s.Proto, s.Enc, s.Auth, esn}, enc, auth,
		binary.BigEndian.AppendUint32(nil, s.SPI), sa.Src[:], sa.Dst[:])
}

// attach gives a new SA its counters; now is in nanoseconds.
func (m *memory) attach(sa *SA, now uint64) {
	f := m.keyOf(sa)
	c := m.ivs[f]
	if c == nil {
		c = new(ivCounter)
		m.ivs[f] = c
	}
	c.used++
	c.raise(now & ivMask)
	sa.iv = c
	f = m.seqOf(sa)
	// From the last quarter on, a reload is taken as the wish to begin anew.
	if seq := m.seqs[f]; seq < sa.lastSeq()/4*3 && seq > sa.seq.Load() {
		sa.seq.Store(seq)
	}
	delete(m.seqs, f)
}

// detach takes leave of an SA and retires it: what it granted until now is all
// it ever will. A key that nothing was sent under is forgotten.
func (m *memory) detach(sa *SA) {
	sa.iv.used--
	seq := sa.retire()
	if seq > 0 {
		m.seqs[m.seqOf(sa)] = seq
		sa.iv.sent = true
	}
	if sa.iv.used == 0 && !sa.iv.sent {
		delete(m.ivs, m.keyOf(sa))
	}
}
