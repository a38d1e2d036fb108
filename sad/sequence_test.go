package sad

import (
	"math"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// RFC 4303 3.3.3: numbers begin at 1 and end at 2^32-1.
func TestReserve(t *testing.T) {
	sa := added(t, New(), spec(256, 1, 2))
	first := sa.Reserve(5)
	second := sa.Reserve(1)
	if first.Seq != 1 || first.N != 5 || second.Seq != 6 || second.N != 1 || second.IV != first.IV+5 {
		t.Errorf("got %+v, then %+v", first, second)
	}
	if g := sa.Reserve(0); g != (Grant{}) {
		t.Errorf("none asked for: %+v", g)
	}
	sa.seq.Store(maxSeq - 3)
	if g := sa.Reserve(2); g.Seq != maxSeq-2 || g.N != 2 {
		t.Errorf("near the end: %+v", g)
	}
	if g := sa.Reserve(64); g.Seq != math.MaxUint32 || g.N != 1 {
		t.Errorf("across the end: %+v", g)
	}
	for range 3 {
		if g := sa.Reserve(64); g != (Grant{}) {
			t.Errorf("behind the end: %+v", g)
		}
	}
	if u := sa.Usage(); u.Seq != math.MaxUint32 {
		t.Errorf("used up to %d", u.Seq)
	}
}

// Grants of several goroutines never overlap, in numbers or IVs, and are all
// numbers up to the last.
func TestReserveConcurrently(t *testing.T) {
	sa := added(t, New(), spec(256, 1, 2))
	const begin = maxSeq - 2000000
	sa.seq.Store(begin)
	var mu sync.Mutex
	var grants []Grant
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			var own []Grant
			for n := 1; ; n = n%7 + 1 {
				g := sa.Reserve(n)
				if g.N == 0 {
					break
				}
				own = append(own, g)
			}
			mu.Lock()
			defer mu.Unlock()
			grants = append(grants, own...)
		})
	}
	wg.Wait()
	slices.SortFunc(grants, func(a, b Grant) int { return int(int64(a.Seq) - int64(b.Seq)) })
	next := uint64(begin + 1)
	for _, g := range grants {
		if g.Seq != next {
			t.Fatalf("number %d is granted after %d", g.Seq, next-1)
		}
		next += uint64(g.N)
	}
	if next != math.MaxUint32+1 {
		t.Errorf("ends at %d", next-1)
	}
	slices.SortFunc(grants, func(a, b Grant) int { return int(int64(a.IV) - int64(b.IV)) })
	for i, g := range grants[1:] {
		if g.IV < grants[i].IV+uint64(grants[i].N) {
			t.Fatalf("IV %d is granted twice", g.IV)
		}
	}
}

// esn is an SA with extended numbers that goes on behind two of them.
func esn(t fataler, window uint32, sent, accepted uint64) *SA {
	t.Helper()
	s := spec(256, 1, 2)
	s.ESN, s.Replay = true, window
	sa := newSA(t, s)
	sa.Resume(sent, accepted)
	if err := New().Add(sa); err != nil {
		t.Fatalf("%v", err)
	}
	return sa
}

// No grant has numbers of two high halves, and the last number is the last that
// leaves bit 63 clear.
func TestReserveESN(t *testing.T) {
	const sub = 1 << 32
	for _, tt := range []struct {
		sent uint64
		n    int
		want []Grant // without IVs
	}{
		{0, 5, []Grant{{Seq: 1, N: 5}, {Seq: 6, N: 5}}},
		{sub - 4, 64, []Grant{{Seq: sub - 3, N: 3}, {Seq: sub, N: 64}}},
		{sub - 2, 1, []Grant{{Seq: sub - 1, N: 1}, {Seq: sub, N: 1}, {Seq: sub + 1, N: 1}}},
		{sub - 1, 64, []Grant{{Seq: sub, N: 64}}},
		{7*sub - 65, 64, []Grant{{Seq: 7*sub - 64, N: 64}, {Seq: 7 * sub, N: 64}}},
		{maxESN - 3, 64, []Grant{{Seq: maxESN - 2, N: 3}, {}, {}}},
		{maxESN, 1, []Grant{{}}},
		{math.MaxUint64, 1, []Grant{{}}},
	} {
		sa := esn(t, 0, tt.sent, 0)
		iv := sa.iv.next.Load()
		for _, want := range tt.want {
			got := sa.Reserve(tt.n)
			if want.N > 0 {
				want.IV = iv
				iv += uint64(want.N)
			}
			if got != want {
				t.Errorf("%d after %#x: %+v, want %+v", tt.n, tt.sent, got, want)
			}
		}
		if sa.Retired() {
			t.Errorf("retired by numbers from %#x on", tt.sent)
		}
	}
}

// appendixA2 is RFC 4303 appendix A2.2, step by step as it stands there, with
// size for W and top for T. A high half below 0 comes out as it is.
func appendixA2(top uint64, size int64, lo uint32) (hi int64) {
	th, tl, seql := int64(top>>32), int64(uint32(top)), int64(lo)
	bl := int64(uint32(tl - size + 1))
	if tl >= size-1 { // case A
		if seql >= bl {
			return th
		}
		return th + 1
	}
	if seql >= bl { // case B
		return th - 1
	}
	return th
}

func TestSequenceAgainstAppendixA2(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom([]uint32{0, 1, 8, 32, 64, 4096, 262144}).Draw(t, "size")
		edge := rapid.SampledFrom([]uint64{0, 1 << 31, 1 << 32, 3 << 31, 7 << 32, 1 << 63, math.MaxUint64 - 1<<33}).Draw(t, "edge")
		top := edge + rapid.SampledFrom([]uint64{0, 1, uint64(size), 1 << 31}).Draw(t, "above") + rapid.Uint64Range(0, 9).Draw(t, "more")
		lo := rapid.OneOf(rapid.Uint32(), rapid.Map(rapid.Int32Range(-300, 300), func(d int32) uint32 { return uint32(top) + uint32(d) })).Draw(t, "lo")
		w := int64(size)
		if w == 0 {
			w = 1 << 31
		}
		want := uint64(max(0, appendixA2(top, w, lo)))<<32 | uint64(lo)
		if got := esn(t, size, 0, top).Sequence(lo); got != want {
			t.Fatalf("window of %d to %#x: %#x is %#x, want %#x", size, top, lo, got, want)
		}
	})
}

func TestSequence(t *testing.T) {
	const sub = 1 << 32
	for _, tt := range []struct {
		name string
		size uint32
		top  uint64
		lo   uint32
		want uint64
	}{
		{"the first", 32, 0, 1, 1},
		{"nothing lies below the first subspace", 32, 5, 0xfffffff0, 0xfffffff0},
		{"nor without a window", 0, 5, 0xfffffff0, 0xfffffff0},
		{"in the window", 32, sub + 100, 90, sub + 90},
		{"its left edge", 32, sub + 100, 69, sub + 69},
		{"left of it is a subspace ahead", 32, sub + 100, 68, 2*sub + 68},
		{"ahead", 32, sub + 100, 0xffffffff, 2*sub - 1},
		{"over the end", 32, sub - 1, 0, sub},
		{"window across, in the old subspace", 32, sub + 5, 0xfffffff0, sub - 16},
		{"window across, its left edge", 32, sub + 5, 0xffffffe6, sub - 26},
		{"window across, left of it", 32, sub + 5, 0xffffffe5, 2*sub - 27},
		{"window across, in the new one", 32, sub + 5, 3, sub + 3},
		{"no window: the nearest, behind", 0, sub + 5, 0xf0000000, 0xf0000000},
		{"no window: the nearest, ahead", 0, sub + 5, 0x70000000, sub + 0x70000000},
		{"no window, upper half", 0, 2*sub - 5, 3, 2*sub + 3},
	} {
		if got := esn(t, tt.size, 0, tt.top).Sequence(tt.lo); got != tt.want {
			t.Errorf("%s: %#x, want %#x", tt.name, got, tt.want)
		}
	}
	s := spec(256, 1, 2)
	sa := newSA(t, s)
	sa.Resume(0, math.MaxUint32)
	if got := sa.Sequence(3); got != 3 {
		t.Errorf("%#x without ESN", got)
	}
}

// What a sender reserves, a receiver finds again from the low halves, in any
// order that its window allows, across a multiple of 2^32; nothing twice.
func TestSequenceAcross(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom([]uint32{32, 64, 4096}).Draw(t, "size")
		begin := 3<<32 - rapid.Uint64Range(0, 300).Draw(t, "before")
		from, to := esn(t, 0, begin, 0), esn(t, size, 0, begin)
		var sent []uint64
		for len(sent) < 300 {
			g := from.Reserve(rapid.IntRange(1, 64).Draw(t, "n"))
			for i := range uint64(g.N) {
				sent = append(sent, g.Seq+i)
			}
		}
		for i := range sent { // nothing moves farther than 15 places
			j := min(i+rapid.IntRange(0, 15).Draw(t, "late"), len(sent)-1)
			if j/16 == i/16 {
				sent[i], sent[j] = sent[j], sent[i]
			}
		}
		for _, want := range sent {
			got := to.Sequence(uint32(want))
			if got != want || !to.Window.Accept(got) {
				t.Fatalf("%#x is taken for %#x, or seen", want, got)
			}
			if again := to.Sequence(uint32(want)); to.Window.Check(again) {
				t.Fatalf("%#x again is taken for %#x", want, again)
			}
		}
	})
}

// An SA goes on behind the numbers that it is told, and behind what the DB
// remembers of it if that is more.
func TestResume(t *testing.T) {
	s := spec(256, 1, 2)
	s.Replay = 64
	sa := newSA(t, s)
	sa.Resume(1000, 2000)
	db := New()
	if err := db.Add(sa); err != nil {
		t.Fatal(err)
	}
	if sa.Usage().Seq != 2000 || sa.Window.Top() != 2000 {
		t.Errorf("%+v, top %d", sa.Usage(), sa.Window.Top())
	}
	for _, seq := range []uint64{1, 1936, 1937, 1999, 2000} {
		if sa.Window.Check(seq) {
			t.Errorf("%d is fresh", seq)
		}
	}
	if !sa.Window.Accept(2001) {
		t.Error("2001 is not")
	}
	if g := sa.Reserve(1); g.Seq != 1001 {
		t.Errorf("goes on with %d", g.Seq)
	}
	for _, tt := range []struct{ told, want uint64 }{{5, 1002}, {5000, 5001}} {
		again := newSA(t, s)
		again.Resume(tt.told, 0)
		db.Replace(again)
		if g := again.Reserve(1); g.Seq != tt.want {
			t.Errorf("told %d: goes on with %d, want %d", tt.told, g.Seq, tt.want)
		}
	}
}
