package sad

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"ipsecd/crypto/alg"
)

// An SA that is updated keeps its numbers while they mean the same to the peer:
// in the last quarter, at the end, above 2^32, with another window.
func TestUpdateGoesOn(t *testing.T) {
	cbc := func(s *Spec) {
		s.Enc, s.EncKey, s.Auth, s.AuthKey = alg.AESCBC, s.EncKey[:16], alg.HMACSHA2_256, make([]byte, 32)
	}
	none := func(*Spec) {}
	for _, tt := range []struct {
		name           string
		before, after  func(*Spec)
		sent, received uint64
		wantSent       uint64 // the next, 0 for none
		wantTop        uint64
	}{
		{"the same", none, none, 10, 20, 11, 20},
		{"unused", none, none, 0, 0, 1, 0},
		{"mode, reqid, lifetime", none, func(s *Spec) { s.Mode, s.Reqid, s.Hard = ModeAny, 7, &Lifetime{Bytes: 1} }, 10, 20, 11, 20},
		{"another source", none, func(s *Spec) { s.Src = s.Src.Next().Next() }, 10, 20, 11, 20},
		{"a larger window", none, func(s *Spec) { s.Replay = 4096 }, 10, 2000, 11, 2000},
		{"a smaller window", none, func(s *Spec) { s.Replay = 8 }, 10, 2000, 11, 2000},
		{"no window any more", none, func(s *Spec) { s.Replay = 0 }, 10, 2000, 11, 2000},
		{"a window at last", func(s *Spec) { s.Replay = 0 }, none, 10, 2000, 11, 2000},
		{"the last quarter", none, none, maxSeq / 4 * 3, maxSeq - 1, maxSeq/4*3 + 1, maxSeq - 1},
		{"the last number", none, none, maxSeq - 1, maxSeq, maxSeq, maxSeq},
		{"used up", none, none, maxSeq, maxSeq, 0, maxSeq},
		{"two keys", cbc, cbc, 10, 20, 11, 20},
		{"ESN", func(s *Spec) { s.ESN = true }, func(s *Spec) { s.ESN = true }, 5 << 32, 7<<32 + 3, 5<<32 + 1, 7<<32 + 3},
		{"ESN, no window", func(s *Spec) { s.ESN, s.Replay = true, 0 }, func(s *Spec) { s.ESN, s.Replay = true, 0 }, 5 << 32, 7<<32 + 3, 5<<32 + 1, 7<<32 + 3},
		{"ESN, the last quarter", func(s *Spec) { s.ESN = true }, func(s *Spec) { s.ESN = true }, maxESN - 9, 1 << 63, maxESN - 8, 1 << 63},
		{"another key", none, func(s *Spec) { s.EncKey[0]++ }, 10, 20, 1, 0},
		{"another key of the MAC", cbc, func(s *Spec) { cbc(s); s.AuthKey[0]++ }, 10, 20, 1, 0},
		{"the same octets, other algorithms", cbc, func(s *Spec) {
			cbc(s)
			s.Auth, s.AuthKey = alg.HMACSHA2_384, append(s.EncKey, s.AuthKey...)
			s.Enc, s.EncKey = alg.NullEnc, nil
		}, 10, 20, 1, 0},
		{"the same keys, another cipher", cbc, func(s *Spec) { cbc(s); s.Enc = alg.NullEnc }, 10, 20, 1, 0},
		{"ESN from now on", none, func(s *Spec) { s.ESN = true }, 10, 20, 1, 0},
		{"ESN no more", func(s *Spec) { s.ESN = true }, none, 10, 20, 1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := spec(256, 1, 2)
			tt.before(&s)
			old := newSA(t, s)
			old.Resume(tt.sent, tt.received)
			db, _ := newAt(5000)
			if err := db.Add(old); err != nil {
				t.Fatal(err)
			}
			old.Count(3, 300, 7)
			s = spec(256, 1, 2)
			tt.after(&s)
			sa := newSA(t, s)
			if err := db.Update(sa); err != nil || db.Get(s.ID) != sa {
				t.Fatalf("not there: %v", err)
			}
			if u := sa.Usage(); u.Packets != 0 || u.FirstUse != 0 || sa.Window.Top() != tt.wantTop || sa.Window.Size() != s.Replay {
				t.Errorf("%+v, top %#x of %d", u, sa.Window.Top(), sa.Window.Size())
			}
			for back := range min(tt.wantTop, 5000) {
				if s.Replay > 0 && sa.Window.Check(tt.wantTop-back) {
					t.Fatalf("%#x is fresh, behind %#x", tt.wantTop-back, tt.wantTop)
				}
			}
			if !sa.Window.Accept(tt.wantTop + 1) {
				t.Error("what comes next is not taken")
			}
			if lo := uint32(tt.wantTop) + 2; s.ESN && sa.Sequence(lo) != tt.wantTop+2 {
				t.Errorf("%#x is taken for %#x", lo, sa.Sequence(lo))
			}
			if g := sa.Reserve(1); g.Seq != tt.wantSent || old.Reserve(1).N != 0 {
				t.Errorf("goes on with %#x, want %#x", g.Seq, tt.wantSent)
			}
		})
	}
}

func TestUpdateOfNone(t *testing.T) {
	db := New()
	added(t, db, spec(257, 1, 2))
	generation := db.Generation()
	if err := db.Update(newSA(t, spec(256, 1, 2))); !errors.Is(err, ErrNotFound) || db.Len() != 1 || db.Generation() != generation {
		t.Errorf("%v, %d SAs", err, db.Len())
	}
}

// What an update does not take over, it writes down as others do; what is gone is
// wiped.
func TestUpdateAndBack(t *testing.T) {
	db, _ := newAt(5000)
	a, b := spec(256, 1, 2), spec(256, 1, 2)
	b.EncKey[0]++
	first := added(t, db, a)
	octets := first.keys
	before := first.Reserve(5)
	for i, s := range []Spec{b, a} {
		if err := db.Update(newSA(t, s)); err != nil {
			t.Fatal(err)
		}
		g := db.Get(s.ID).Reserve(1)
		if want := before.Seq + 5*uint64(i); g.Seq != want || g.IV < before.IV+5*uint64(i) {
			t.Errorf("update %d goes on with %+v", i, g)
		}
	}
	if !zeroed(octets) || db.Reap() != 0 || db.Len() != 1 {
		t.Error("the first is not wiped")
	}
}

// Within the order of all, and of the pair, an update changes nothing; one from
// another source leaves the pair for the front of the other.
func TestUpdateKeepsTheOrder(t *testing.T) {
	db := New()
	for i := range uint32(4) {
		added(t, db, spec(256+i, 1, 2))
	}
	other := added(t, db, spec(300, 3, 2))
	spis := func(sas []*SA) (out []uint32) {
		for _, sa := range sas {
			out = append(out, sa.spec.SPI)
		}
		return out
	}
	check := func(from1, from3 []uint32) {
		t.Helper()
		if got := spis(slices.Collect(db.All())); !slices.Equal(got, []uint32{256, 257, 258, 259, 300}) {
			t.Errorf("all: %d", got)
		}
		s := spec(256, 1, 2)
		if got := spis(slices.Collect(db.Pair(ProtoESP, s.Src, s.Dst))); !slices.Equal(got, from1) {
			t.Errorf("from 1: %d", got)
		}
		if got := spis(slices.Collect(db.Pair(ProtoESP, other.spec.Src, s.Dst))); !slices.Equal(got, from3) {
			t.Errorf("from 3: %d", got)
		}
	}
	for _, spi := range []uint32{256, 258, 259} { // oldest, between, newest
		if err := db.Update(newSA(t, spec(spi, 1, 2))); err != nil {
			t.Fatal(err)
		}
		check([]uint32{259, 258, 257, 256}, []uint32{300})
	}
	if err := db.Update(newSA(t, spec(257, 3, 2))); err != nil {
		t.Fatal(err)
	}
	check([]uint32{259, 258, 256}, []uint32{257, 300})
	if err := db.Update(newSA(t, spec(300, 1, 2))); err != nil {
		t.Fatal(err)
	}
	check([]uint32{300, 259, 258, 256}, []uint32{257})
}

// A worker in a burst accepts by the old SA while another has the new one: a
// packet that one of them took is a replay for the other.
func TestUpdateDuringBurst(t *testing.T) {
	db := New()
	r := db.NewReader()
	defer r.Close()
	s := spec(256, 1, 2)
	old := added(t, db, s)
	old.Window.Accept(100)
	r.Enter()
	s.Replay = 128
	sa := newSA(t, s)
	if err := db.Update(sa); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		by    *SA
		seq   uint64
		fresh bool
	}{{old, 101, true}, {sa, 101, false}, {old, 101, false}, {sa, 103, true}, {old, 103, false}, {old, 102, true}, {sa, 102, false}, {old, 99, false}} {
		if check, accept := tt.by.Window.Check(tt.seq), tt.by.Window.Accept(tt.seq); check != tt.fresh || accept != tt.fresh {
			t.Errorf("%d by the new one %v: checked %v, accepted %v", tt.seq, tt.by == sa, check, accept)
		}
	}
}

// While one SA is updated over and over, others find it, send and receive by what
// they found: it is always there, numbers go on across 2^32 without one missing
// or coming twice, and nothing is accepted twice. Run with -race.
func TestUpdateUnderTraffic(t *testing.T) {
	const begin, workers, updates = 3<<32 - 20000, 3, 2000
	s := spec(256, 1, 2)
	s.ESN, s.Replay = true, 1024
	first := newSA(t, s)
	first.Resume(begin, begin)
	db := New()
	if err := db.Add(first); err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var grants [workers][]Grant
	var accepted sync.Map
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			r := db.NewReader()
			defer r.Close()
			for next := uint64(begin + 1); !stop.Load(); next++ {
				r.Enter()
				out := db.Outbound(ProtoESP, ModeTunnel, 0, &first.Src, &first.Dst)
				in := db.Lookup(256, ProtoESP, &first.Dst)
				if out == nil || in == nil {
					t.Error("no SA for a moment")
					return
				}
				if g := out.Reserve(1 + rand.IntN(7)); g.N > 0 {
					grants[i] = append(grants[i], g)
				} else if !out.Retired() {
					t.Error("an SA in use grants nothing")
					return
				}
				next = max(next, in.Window.Top()-min(in.Window.Top(), 3))
				// The others may have left it behind meanwhile.
				if seq := in.Sequence(uint32(next)); seq != next && in.Window.Top() < next+uint64(in.Window.Size()) {
					t.Errorf("%#x is taken for %#x", next, seq)
					return
				}
				if in.Window.Accept(next) {
					if _, twice := accepted.LoadOrStore(next, true); twice {
						t.Errorf("%#x is accepted twice", next)
					}
				}
				r.Leave()
			}
		})
	}
	for i := range updates {
		s.Reqid, s.Replay = uint32(i), 1024<<(i%3)
		s.EncKey = bytes.Clone(s.EncKey)
		if err := db.Update(newSA(t, s)); err != nil {
			t.Error(err)
		}
	}
	stop.Store(true)
	wg.Wait()
	all := slices.Concat(grants[:]...)
	slices.SortFunc(all, func(a, b Grant) int { return int(int64(a.Seq - b.Seq)) })
	next, ivs := uint64(begin+1), map[uint64]bool{}
	for _, g := range all {
		if g.Seq != next {
			t.Fatalf("%#x behind %#x", g.Seq, next-1)
		}
		next += uint64(g.N)
		for i := range uint64(g.N) {
			if ivs[g.IV+i] {
				t.Fatalf("IV %#x twice", g.IV+i)
			}
			ivs[g.IV+i] = true
		}
	}
	if n := db.Reap(); n != 0 || db.Len() != 1 || len(db.memory.ivs) != 1 {
		t.Errorf("%d wait, %d SAs, %d keys", n, db.Len(), len(db.memory.ivs))
	}
}

// While SAs of two pairs are updated in place, and others change sides, one
// of each is to be found all the time, and the newest stays the newest.
func TestUpdateWithinPair(t *testing.T) {
	const stay, move = 5, 3 // SPIs, from 256 and 512 on
	db := New()
	fresh := func(spi uint32, src byte) *SA {
		s := spec(spi, src, 2)
		s.Reqid = spi
		return newSA(t, s)
	}
	for i := range uint32(move) {
		db.Replace(fresh(512+i, 1))
	}
	for i := range uint32(stay) {
		db.Replace(fresh(256+i, 1))
	}
	src, dst := fresh(256, 1).Src, fresh(256, 1).Dst
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for i := uint32(0); !stop.Load(); i++ {
				spi := 256 + i%stay
				if sa := db.Outbound(ProtoESP, ModeTunnel, spi, &src, &dst); sa == nil || sa.spec.SPI != spi {
					t.Errorf("reqid %d: %v", spi, sa)
					return
				}
				if sa := db.Outbound(ProtoESP, ModeTransport, 0, &src, &dst); sa != nil {
					t.Errorf("%v was not asked for", sa.spec.ID)
					return
				}
				spi = 512 + i%move
				if sa := db.Lookup(spi, ProtoESP, &dst); sa == nil || sa.spec.SPI != spi {
					t.Errorf("SPI %d: %v", spi, sa)
					return
				}
			}
		})
	}
	for range 20000 {
		sa := fresh(256+rand.Uint32N(stay), 1)
		if rand.IntN(4) == 0 {
			sa = fresh(512+rand.Uint32N(move), 1+2*byte(rand.IntN(2)))
		}
		if err := db.Update(sa); err != nil {
			t.Error(err)
		}
	}
	stop.Store(true)
	wg.Wait()
}
