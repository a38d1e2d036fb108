package sad

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ipsecd/crypto/alg"
)

// clock is a clock that a test sets, in nanoseconds.
type clock struct{ ns int64 }

func (c *clock) now() time.Time { return time.Unix(0, c.ns) }

func newAt(ns int64) (*DB, *clock) {
	c := &clock{ns}
	db := New()
	db.now = c.now
	return db, c
}

// ledger holds every IV that a key was used with.
type ledger map[string]map[uint64]bool

// seal takes n packets' worth of an SA and fails when an IV comes again.
func (l ledger) seal(t fataler, sa *SA, n int) Grant {
	t.Helper()
	g := sa.Reserve(n)
	enc, _ := sa.split()
	key := string(rune(sa.spec.Enc)) + string(enc)
	if l[key] == nil {
		l[key] = map[uint64]bool{}
	}
	for i := range uint64(g.N) {
		if l[key][g.IV+i] {
			t.Fatalf("IV %#x twice under one key", g.IV+i)
		}
		l[key][g.IV+i] = true
	}
	return g
}

func del(t fataler, db *DB, sa *SA) {
	t.Helper()
	if _, err := db.Delete(sa.spec.ID); err != nil {
		t.Fatalf("%v", err)
	}
}

// IVs never come twice under one key: whatever is added, deleted, flushed and
// sent, in both directions, by several SAs of one key, whatever the clock does.
func TestIVsAreUnique(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		db, c := newAt(1e9)
		used := ledger{}
		keys := [][]byte{bytes.Repeat([]byte{1}, 20), bytes.Repeat([]byte{2}, 20)}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				ends := rapid.Permutation([]byte{1, 2, 3}).Draw(t, "ends")
				s := spec(256+rapid.Uint32Range(0, 3).Draw(t, "spi"), ends[0], ends[1])
				s.EncKey = rapid.SampledFrom(keys).Draw(t, "key")
				if err := db.Add(newSA(t, s)); err != nil && err != ErrExists {
					t.Fatalf("%v", err)
				}
			},
			"send": func(t *rapid.T) {
				for sa := range db.All() {
					used.seal(t, sa, rapid.IntRange(0, 9).Draw(t, "packets"))
				}
			},
			"delete": func(t *rapid.T) {
				for sa := range db.All() {
					if rapid.Bool().Draw(t, "it") {
						del(t, db, sa)
					}
				}
			},
			"replace": func(t *rapid.T) {
				for sa := range db.All() {
					if rapid.Bool().Draw(t, "it") {
						s := *sa.Spec()
						s.EncKey, _ = sa.Keys()
						s.ESN = rapid.Bool().Draw(t, "esn")
						db.Replace(newSA(t, s))
					}
				}
			},
			"update": func(t *rapid.T) {
				for sa := range db.All() {
					if rapid.Bool().Draw(t, "it") {
						s := *sa.Spec()
						s.EncKey = rapid.SampledFrom(keys).Draw(t, "key")
						if err := db.Update(newSA(t, s)); err != nil {
							t.Fatalf("%v", err)
						}
					}
				}
			},
			"flush": func(*rapid.T) { db.Flush(0) },
			"clock": func(t *rapid.T) { c.ns = rapid.Int64Range(0, 2e9).Draw(t, "ns") },
		})
	})
}

// The same file, flushed and loaded again and again within one tick of the
// clock and with the clock stepping back.
func TestFlushAndReload(t *testing.T) {
	db, c := newAt(1 << 60)
	used := ledger{}
	last := uint64(0)
	for i := range 1000 {
		sa := added(t, db, spec(256, 1, 2))
		g := used.seal(t, sa, 7)
		if g.IV <= last || g.Seq != uint64(7*i+1) {
			t.Fatalf("reload %d: %+v after IV %d", i, g, last)
		}
		last = g.IV + 6
		db.Flush(0)
		if i%3 == 0 {
			c.ns -= 1e9
		}
	}
}

// A reload goes on with the numbers, so that a peer that was not reloaded still
// takes them: but only the same SA does, and not in the last quarter.
func TestSequenceContinues(t *testing.T) {
	quarter := uint64(maxSeq / 4 * 3)
	tests := []struct {
		name   string
		at     uint64
		change func(*Spec)
		want   uint64
	}{
		{"the same", 10, func(*Spec) {}, 11},
		{"other mode, reqid, window", 10, func(s *Spec) { s.Mode, s.Reqid, s.Replay = ModeAny, 7, 64 }, 11},
		{"other SPI", 10, func(s *Spec) { s.SPI++ }, 1},
		{"other key", 10, func(s *Spec) { s.EncKey[0]++ }, 1},
		{"other source", 10, func(s *Spec) { s.Src = s.Src.Next().Next() }, 1},
		{"other destination", 10, func(s *Spec) { s.Dst = s.Dst.Next() }, 1},
		{"below the last quarter", quarter - 1, func(*Spec) {}, quarter},
		{"last quarter", quarter, func(*Spec) {}, 1},
		{"used up", maxSeq, func(*Spec) {}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			db, _ := newAt(1 << 60)
			sa := added(t, db, spec(256, 1, 2))
			before := sa.Reserve(1)
			sa.seq.Store(tt.at)
			del(t, db, sa)
			s := spec(256, 1, 2)
			tt.change(&s)
			again := added(t, db, s).Reserve(1)
			if again.Seq != tt.want {
				t.Errorf("goes on at %d, want %d", again.Seq, tt.want)
			}
			if bytes.Equal(s.EncKey, spec(256, 1, 2).EncKey) && again.IV&ivMask != before.IV+1 {
				t.Errorf("IV %#x after %#x", again.IV, before.IV)
			}
		})
	}
}

// With ESN the space that a quarter is of is larger; and with and without are two
// SAs.
func TestSequenceContinuesESN(t *testing.T) {
	quarter := uint64(maxESN / 4 * 3)
	for _, tt := range []struct {
		at   uint64
		esn  bool
		want uint64
	}{{1 << 40, true, 1<<40 + 1}, {1 << 40, false, 1}, {10, false, 1}, {quarter - 1, true, quarter}, {quarter, true, 1}} {
		db, _ := newAt(1 << 60)
		s := spec(256, 1, 2)
		s.ESN = true
		sa := newSA(t, s)
		sa.Resume(tt.at, 0)
		if err := db.Add(sa); err != nil {
			t.Fatal(err)
		}
		del(t, db, sa)
		s.ESN = tt.esn
		if got := added(t, db, s).Reserve(1).Seq; got != tt.want {
			t.Errorf("%#x, then ESN %v: goes on at %#x, want %#x", tt.at, tt.esn, got, tt.want)
		}
	}
}

// Bit 63 is the direction, so that both ends may use one key.
func TestIVDirection(t *testing.T) {
	db, _ := newAt(1 << 60)
	forth, back := spec(256, 1, 2), spec(257, 2, 1)
	back.EncKey = forth.EncKey
	here, there := added(t, db, forth).Reserve(1), added(t, db, back).Reserve(1)
	if here.IV>>63 != 0 || there.IV>>63 != 1 {
		t.Errorf("IVs %#x and %#x", here.IV, there.IV)
	}
	// The peer counts by a clock of its own, which may agree to the nanosecond.
	peer, _ := newAt(1 << 60)
	if g := added(t, peer, back).Reserve(1); g.IV == here.IV || g.IV&ivMask != here.IV {
		t.Errorf("the peer's IV is %#x, ours %#x", g.IV, here.IV)
	}
}

// The counter starts at the clock: a run that starts later is ahead of all that
// an earlier one sent, and a key that comes back catches up.
func TestIVStartsAtTheClock(t *testing.T) {
	db, c := newAt(5000)
	sa := added(t, db, spec(256, 1, 2))
	if g := sa.Reserve(1); g.IV != 5000 {
		t.Errorf("IV %d", g.IV)
	}
	del(t, db, sa)
	c.ns = 7000
	if g := added(t, db, spec(256, 1, 2)).Reserve(1); g.IV != 7000 {
		t.Errorf("IV %d after the clock went on", g.IV)
	}
}

// One AES key under two algorithms is two keys; under two salts too.
func TestKeysAreToldApart(t *testing.T) {
	db, _ := newAt(5000)
	gcm := spec(256, 1, 2)
	salted := spec(257, 1, 2)
	salted.EncKey = append(bytes.Clone(gcm.EncKey[:16]), 9, 9, 9, 9)
	cbc := spec(258, 1, 2)
	cbc.Enc, cbc.EncKey, cbc.Auth, cbc.AuthKey = alg.AESCBC, gcm.EncKey[:16], alg.HMACSHA2_256, make([]byte, 32)
	seen := map[*ivCounter]bool{}
	for _, s := range []Spec{gcm, salted, cbc} {
		seen[added(t, db, s).iv] = true
	}
	if len(seen) != 3 {
		t.Errorf("%d counters for three keys", len(seen))
	}
	// Two CBC keys of one cipher share the IVs whatever the MAC's key is.
	cbc.SPI, cbc.AuthKey = 259, bytes.Repeat([]byte{1}, 32)
	if !seen[added(t, db, cbc).iv] {
		t.Error("the MAC's key makes a new counter")
	}
}

// Keys are forgotten with their last SA, numbers that were sent are not; and what
// is remembered shows no key.
func TestMemory(t *testing.T) {
	db, _ := newAt(5000)
	for i := range uint32(100) {
		sa := added(t, db, spec(256+i, 1, 2))
		sa.Window.Accept(9) // receiving needs no memory
		del(t, db, sa)
	}
	if len(db.memory.ivs) != 0 || len(db.memory.seqs) != 0 {
		t.Errorf("%d keys and %d numbers kept of SAs that never sent", len(db.memory.ivs), len(db.memory.seqs))
	}
	s := spec(256, 1, 2)
	other := spec(257, 1, 2)
	other.EncKey = s.EncKey
	first, second := added(t, db, s), added(t, db, other)
	first.Reserve(1)
	del(t, db, first)
	if len(db.memory.ivs) != 1 || len(db.memory.seqs) != 1 {
		t.Errorf("%d keys and %d numbers kept, want one each", len(db.memory.ivs), len(db.memory.seqs))
	}
	del(t, db, second)
	if len(db.memory.ivs) != 0 || len(db.memory.seqs) != 1 {
		t.Errorf("%d keys and %d numbers kept, want one number", len(db.memory.ivs), len(db.memory.seqs))
	}
	third := added(t, db, s)
	for f := range db.memory.ivs {
		if bytes.Contains(s.EncKey, f[:4]) {
			t.Error("the fingerprint shows the key")
		}
		other := New()
		if f != db.memory.keyOf(third) || f == other.memory.keyOf(newSA(t, s)) {
			t.Error("the fingerprint changes, or is the same in another process")
		}
	}
}

// Numbers of the newest SAs are remembered, whatever comes and goes.
func TestMemoryIsBounded(t *testing.T) {
	db, _ := newAt(5000)
	m := &db.memory
	crowd := func() { // as many others
		for i := uint64(0); len(m.seqs) < maxSeqs; i++ {
			var f fingerprint
			binary.BigEndian.PutUint64(f[:], i)
			m.seqs[f] = progress{sent: 1}
		}
	}
	again := func(s Spec) uint64 {
		sa := added(t, db, s)
		defer del(t, db, sa)
		return sa.Reserve(1).Seq
	}
	a, b := spec(256, 1, 2), spec(257, 1, 2)
	again(a)
	crowd()
	again(b)
	if seq := again(a); seq != 2 {
		t.Errorf("goes on at %d behind one crowd", seq)
	}
	crowd()
	again(spec(258, 1, 2))
	again(b)
	crowd()
	again(spec(259, 1, 2))
	if seq := again(a); seq != 1 {
		t.Errorf("goes on at %d behind two", seq)
	}
	if seq := again(b); seq != 3 {
		t.Errorf("the other goes on at %d", seq)
	}
	if n := len(m.seqs) + len(m.old); n > 2*maxSeqs {
		t.Errorf("%d numbers", n)
	}
}

// Who was granted numbers takes the IVs a moment later: the counter stays until no
// burst has the SA.
func TestCounterOutlivesBursts(t *testing.T) {
	db, _ := newAt(5000)
	r := db.NewReader()
	sa := added(t, db, spec(256, 1, 2))
	r.Enter()
	del(t, db, sa)
	again := added(t, db, spec(256, 1, 2))
	del(t, db, again)
	late := sa.takeIV(10)
	if g := added(t, db, spec(256, 1, 2)).Reserve(1); g.IV < late+10 {
		t.Errorf("IV %d, and 10 from %d are in use", g.IV, late)
	}
	r.Leave()
	db.Flush(0)
	if db.Reap() != 0 || len(db.memory.ivs) != 0 {
		t.Errorf("%d keys kept", len(db.memory.ivs))
	}
	if g := added(t, db, spec(256, 1, 2)).Reserve(1); g.IV != late+11 {
		t.Errorf("IV %d behind %d", g.IV, late+10)
	}
}
