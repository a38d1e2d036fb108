package sad

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"sync/atomic"
)

// ivCounter hands out the IVs of one key. Counter-mode ciphers lose all
// secrecy when an IV comes twice under one key (RFC 4106 section 9), so it
// belongs to the key: SAs with the same key share it, until the last of them is
// wiped. It counts in 63 bits from the wall clock in nanoseconds, so that it is
// ahead of all that an earlier run could have sent; bit 63 is the SA's direction.
type ivCounter struct {
	next atomic.Uint64 // [a]
	used int           // [m] SAs that have it and are not wiped
	key  fingerprint   // [I]
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
	hash    hash.Hash // keyed with a secret of this boot
	scratch [sha256.Size]byte

	ivs   map[fingerprint]*ivCounter
	floor uint64 // at least the next of all counters that were forgotten

	// seqs and old have how far deleted SAs came, by all that identifies them at
	// the peer. When seqs has maxSeqs of them it is old, and what was old is
	// forgotten.
	seqs, old map[fingerprint]progress
}

const maxSeqs = 1 << 16

// progress is how far an SA came, for when it is loaded again.
type progress struct {
	// sent is its last sequence number. It goes on from there: the peer's replay
	// window, which may not have been reloaded, would drop everything else.
	sent uint64

	// seen is the highest that it accepted with ESN, once that is beyond 2^32: the
	// high half is not on the wire, and an empty window could not tell it.
	seen uint64
}

func newMemory() memory {
	var secret [sha256.Size]byte
	rand.Read(secret[:])
	m := memory{hash: hmac.New(sha256.New, secret[:]), ivs: map[fingerprint]*ivCounter{}, seqs: map[fingerprint]progress{}}
	m.hash.Reset() // the first keeps a state to go back to
	return m
}

// fingerprint leaves nothing of the parts behind: Reset goes back to a state
// from before them.
func (m *memory) fingerprint(parts ...[]byte) fingerprint {
	defer m.hash.Reset()
	for _, p := range parts {
		m.hash.Write(binary.BigEndian.AppendUint32(m.scratch[:0], uint32(len(p))))
		m.hash.Write(p)
	}
	return fingerprint(m.hash.Sum(m.scratch[:0]))
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
		c = &ivCounter{key: f}
		c.raise(m.floor)
		m.ivs[f] = c
	}
	c.used++
	c.raise(now & ivMask)
	sa.iv = c
	p := m.recall(sa)
	// From the last quarter on, a reload is taken as the wish to begin anew.
	if p.sent < sa.lastSeq()/4*3 && p.sent > sa.seq.Load() {
		sa.seq.Store(p.sent)
	}
	if p.seen > sa.Window.Top() {
		sa.Window.Resume(p.seen)
	}
}

// detach takes leave of an SA and retires it: what it granted until now is all
// it ever will.
func (m *memory) detach(sa *SA) {
	p := progress{sent: sa.retire()}
	if top := sa.Window.Top(); sa.spec.ESN && top > maxSeq {
		p.seen = top
	}
	if p == (progress{}) {
		return
	}
	if len(m.seqs) >= maxSeqs {
		m.old, m.seqs = m.seqs, map[fingerprint]progress{}
	}
	m.seqs[m.seqOf(sa)] = p
}

// recall returns what detach wrote down of the SA, and strikes it out.
func (m *memory) recall(sa *SA) progress {
	if len(m.seqs)+len(m.old) == 0 {
		return progress{}
	}
	f := m.seqOf(sa)
	p, newer := m.seqs[f]
	if !newer {
		p = m.old[f]
	}
	delete(m.seqs, f)
	delete(m.old, f)
	return p
}

// release gives back the counter of an SA that nobody reserves from any more. One
// without SAs is forgotten: no counter that comes begins below it, whatever the
// clock says.
func (m *memory) release(sa *SA) {
	c := sa.iv
	c.used--
	if c.used == 0 {
		m.floor = max(m.floor, c.next.Load())
		delete(m.ivs, c.key)
	}
}
