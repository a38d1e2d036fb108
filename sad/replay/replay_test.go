package replay

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const last = math.MaxUint64 // the last sequence number there is

// model is the window as RFC 4303 describes it: a set and a highest number.
type model struct {
	size uint64
	top  uint64
	seen map[uint64]bool
}

func (m *model) accept(seq uint64) bool {
	left := seq < m.top && m.top-seq >= m.size
	if m.size > 0 && (seq == 0 || left || m.seen[seq]) {
		return false
	}
	m.seen[seq] = true
	m.top = max(m.top, seq)
	return true
}

// near is seq+d, kept between 0 and the last number.
func near(seq uint64, d int64) uint64 {
	switch sum := seq + uint64(d); {
	case d < 0 && sum > seq:
		return 0
	case d > 0 && sum < seq:
		return last
	default:
		return sum
	}
}

// octets are sizes as setkey's -r has them.
var octets = []uint32{0, 1, 4, 32, 255, 256, 4096, 32768}

// begins are numbers where something ends: a word, the low half, the tags, the
// numbers themselves.
var begins = []uint64{1, 31, 1 << 20, 1<<32 - 40, 1<<37 - 40, 1 << 40, 1<<63 - 40, last - 40, last}

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
		begin := rapid.SampledFrom(begins).Draw(t, "begin")
		if rapid.Bool().Draw(t, "resumed") {
			w.Resume(begin)
			m.top = begin
			for seq := near(begin, -int64(size)); seq < begin; seq++ {
				m.seen[seq] = true
			}
			m.seen[begin] = true
		}
		for range 200 {
			span := int64(size) + 40
			seq := near(m.top, rapid.Int64Range(-span, span).Draw(t, "delta"))
			if m.top == 0 {
				seq = begin
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

// Every number arrives twice and in any order that the window allows: each is
// accepted once, whatever lies in the way.
func TestShuffled(t *testing.T) {
	for _, n := range octets[1:] {
		size := uint64(n) * 8
		for _, begin := range []uint64{1<<32 - 40, 1<<63 - 40} {
			w, err := New(uint32(size))
			if err != nil {
				t.Fatal(err)
			}
			for part := range uint64(2) { // each a window's worth
				for round := range 2 {
					for _, i := range rand.Perm(int(size)) {
						seq := begin + part*size + uint64(i)
						if w.Accept(seq) != (round == 0) {
							t.Fatalf("size %d: %d, top %d, round %d: accepted is %v", size, seq, w.Top(), round, round != 0)
						}
					}
				}
			}
		}
	}
}

// number is one that arrives, and whether it is to be accepted.
type number struct {
	seq  uint64
	want bool
}

// judge hands numbers to a window of size packets: Check and Accept agree on each.
func judge(t *testing.T, size uint64, numbers []number) {
	t.Helper()
	w, err := New(uint32(size))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range numbers {
		if check, got := w.Check(c.seq), w.Accept(c.seq); got != c.want || check != c.want {
			t.Errorf("size %d: %#x: Check %v Accept %v, want %v", size, c.seq, check, got, c.want)
		}
	}
}

// The end of the numbers: the last is accepted once, and those behind it in the
// window.
func TestLastNumber(t *testing.T) {
	for _, n := range octets[1:] {
		size := uint64(n) * 8
		judge(t, size, []number{
			{last - size, true}, {last - 1, true}, {last, true}, {last, false}, {last - 1, false},
			{last - size + 1, true}, {last - size, false}, {last - size - 1, false}, {1, false}, {0, false},
		})
	}
}

// Steps as long as one likes are exact, but for those by a multiple of 2^37.
func TestHugeSteps(t *testing.T) {
	for _, step := range []uint64{1 << 32, 1<<36 - 1, 1 << 36, 1<<36 + 1, 3 << 35, 1<<37 - 64, 1<<37 + 64, 1<<63 + 99, last - 200} {
		w, err := New(64)
		if err != nil {
			t.Fatal(err)
		}
		for seq := uint64(1); seq <= 64; seq++ {
			w.Accept(seq)
		}
		for _, seq := range []uint64{64 + step, 1 + step, 40 + step} {
			if !w.Accept(seq) || w.Accept(seq) {
				t.Errorf("a step of %#x: %#x is not accepted once", step, seq)
			}
		}
		if w.Accept(step) || w.Accept(64) {
			t.Errorf("a step of %#x: left of the window, and accepted", step)
		}
	}
	w, err := New(64)
	if err != nil {
		t.Fatal(err)
	}
	w.Accept(7)
	if w.Accept(7+1<<37) || !w.Accept(8+1<<37) || w.Top() != 8+1<<37 {
		t.Error("the limit is another than the one documented")
	}
}

func TestEdges(t *testing.T) {
	for _, n := range octets[1:] {
		size := uint64(n) * 8
		judge(t, size, []number{
			{0, false}, {1, true}, {1, false}, {size, true}, {size + 1, true},
			{1, false},                 // left of the window now
			{2, size >= 3}, {2, false}, // its left edge
			{10 * size, true},                                      // a jump over the whole ring
			{9*size + 1, true},                                     // the left edge again
			{9 * size, false},                                      // one beyond
			{10 * size, false},                                     // the top itself
			{1<<32 - 1, true}, {1 << 32, true}, {1<<32 - 1, false}, // ESN goes on
		})
	}
}

func TestTooLarge(t *testing.T) {
	for _, size := range []uint32{MaxSize + 1, math.MaxUint32} {
		if _, err := New(size); err != ErrSize || !strings.Contains(err.Error(), "0 to 262144 packets (0 to 32768 octets)") {
			t.Errorf("New(%d) = %v", size, err)
		}
	}
	if w, err := New(MaxSize); err != nil || w.Size() != MaxSize {
		t.Errorf("New(%d) = %v", MaxSize, err)
	}
}

func TestNoAllocs(t *testing.T) {
	w, _ := New(256)
	w.Accept(1)
	seq := uint64(1)
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
