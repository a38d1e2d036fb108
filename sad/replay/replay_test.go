package replay

import (
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
)

// model is the window as RFC 4303 describes it: a set and a highest number.
type model struct {
	size uint64
	top  uint64
	seen map[uint64]bool
}

func (m *model) accept(seq uint64) bool {
	if seq == 0 || m.size > 0 && (seq+m.size <= m.top || m.seen[seq]) {
		return false
	}
	m.seen[seq] = true
	m.top = max(m.top, seq)
	return true
}

// octets are sizes as setkey's -r has them.
var octets = []uint32{0, 1, 4, 32, 255, 256, 4096, 32768}

func TestAgainstSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom(octets).Draw(t, "octets") * 8
		if rapid.Bool().Draw(t, "odd") {
			size = rapid.Uint32Range(0, 300).Draw(t, "packets")
		}
		w, err := New(size)
		if err != nil {
			t.Fatal(err)
		}
		m := model{size: uint64(size), seen: map[uint64]bool{}}
		base := rapid.SampledFrom([]uint64{1, 31, 1 << 20, 1<<32 - 40, 1 << 40}).Draw(t, "base")
		for range 200 {
			span := int64(size) + 40
			d := rapid.Int64Range(-span, span).Draw(t, "delta")
			seq := uint64(max(0, int64(m.top)+d))
			if m.top == 0 {
				seq = base
			}
			check := w.Check(seq)
			got, want := w.Accept(seq), m.accept(seq)
			if got != want || check != want {
				t.Fatalf("size %d top %d seq %d: Check %v Accept %v, want %v", size, m.top, seq, check, got, want)
			}
			if w.Top() != m.top {
				t.Fatalf("top %d, want %d", w.Top(), m.top)
			}
		}
	})
}

func TestEdges(t *testing.T) {
	for _, n := range octets[1:] {
		size := uint64(n) * 8
		w, err := New(uint32(size))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			seq  uint64
			want bool
		}{
			{0, false}, {1, true}, {1, false}, {size, true}, {size + 1, true},
			{1, false},                 // left of the window now
			{2, size >= 3}, {2, false}, // its left edge
			{10 * size, true},                                      // a jump over the whole ring
			{9*size + 1, true},                                     // the left edge again
			{9 * size, false},                                      // one beyond
			{10 * size, false},                                     // the top itself
			{1<<32 - 1, true}, {1 << 32, true}, {1<<32 - 1, false}, // ESN goes on
		} {
			if got := w.Accept(c.seq); got != c.want {
				t.Errorf("size %d: Accept(%d) = %v, want %v", size, c.seq, got, c.want)
			}
		}
	}
}

func TestTooLarge(t *testing.T) {
	if _, err := New(MaxSize + 1); err != ErrSize {
		t.Errorf("New(%d) = %v, want ErrSize", MaxSize+1, err)
	}
	if w, err := New(MaxSize); err != nil || w.Size() != MaxSize {
		t.Errorf("New(%d) = %v", MaxSize, err)
	}
}

// Of concurrent copies exactly one is accepted.
func TestConcurrentCopies(t *testing.T) {
	const workers, n = 8, 5000
	w, err := New(n * 2)
	if err != nil {
		t.Fatal(err)
	}
	var accepted atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for seq := uint64(1); seq <= n; seq++ {
				if w.Accept(seq) {
					accepted.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if accepted.Load() != n {
		t.Errorf("%d accepted of %d numbers", accepted.Load(), n)
	}
}

func TestNoAllocs(t *testing.T) {
	w, _ := New(256)
	seq := uint64(0)
	if n := testing.AllocsPerRun(100, func() { seq++; w.Check(seq); w.Accept(seq) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAccept(b *testing.B) {
	w, _ := New(256)
	b.ReportAllocs()
	for seq := uint64(1); b.Loop(); seq++ {
		if !w.Check(seq) || !w.Accept(seq) {
			b.Fatal("refused")
		}
	}
}
