package replay

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// Of concurrent copies exactly one is accepted, wherever the numbers are and in
// whatever order each goroutine comes to them.
func TestConcurrentCopies(t *testing.T) {
	const workers, n = 8, 2000
	for _, begin := range []uint64{1, 1<<32 - n/2, 1<<37 - n/2, last - n + 1} {
		w, err := New(n)
		if err != nil {
			t.Fatal(err)
		}
		var accepted [n]atomic.Int32
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for _, i := range rand.Perm(n) {
					if w.Accept(begin + uint64(i)) {
						accepted[i].Add(1)
					}
				}
			})
		}
		wg.Wait()
		for i := range accepted {
			if times := accepted[i].Load(); times != 1 {
				t.Fatalf("%#x is accepted %d times", begin+uint64(i), times)
			}
		}
	}
}

// While the window runs ahead, words change hands all the time: what falls out
// of it is lost, nothing is accepted twice.
func TestConcurrentAdvance(t *testing.T) {
	const workers, n, begin = 8, 20000, 1<<32 - 10000
	for _, size := range []uint32{1, 8, 32, 64} {
		w, err := New(size)
		if err != nil {
			t.Fatal(err)
		}
		var accepted [n]atomic.Int32
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for i := range n {
					for _, j := range []int{i, i ^ 1, i ^ 37} {
						if j < n && w.Accept(begin+uint64(j)) {
							accepted[j].Add(1)
						}
					}
				}
			})
		}
		wg.Wait()
		for i := range accepted {
			if times := accepted[i].Load(); times > 1 {
				t.Fatalf("size %d: %#x is accepted %d times", size, begin+uint64(i), times)
			}
		}
		if w.Top() != begin+n-1 {
			t.Errorf("size %d: top %#x", size, w.Top())
		}
	}
}

// together calls two functions at the same moment, as near as that goes, once
// for each round, and then check, which ends it with an error.
func together(t *testing.T, rounds int, a, b func(round int), check func(round int) error) {
	t.Helper()
	var ready, done atomic.Int64
	var stop atomic.Bool
	meet := func(at *atomic.Int64, n int) {
		at.Add(1)
		for spins := 0; at.Load() < int64(n) && !stop.Load(); spins++ {
			if spins > 1000 { // one processor, perhaps
				runtime.Gosched()
			}
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; i < rounds && !stop.Load(); i++ {
			meet(&ready, 2*i+2)
			b(i)
			meet(&done, 2*i+2)
		}
	})
	for i := 0; i < rounds && !stop.Load(); i++ {
		meet(&ready, 2*i+2)
		a(i)
		meet(&done, 2*i+2)
		if err := check(i); err != nil {
			t.Errorf("round %d: %v", i, err)
			stop.Store(true)
		}
	}
	wg.Wait()
}

// Two copies at once, the first of a window too, which makes the bitmap.
func TestCopiesTogether(t *testing.T) {
	var w *Window
	var accepted atomic.Int32
	fresh := func() { w, _ = New(64) }
	fresh()
	accept := func(i int) {
		if w.Accept(uint64(i%8 + 1)) {
			accepted.Add(1)
		}
	}
	together(t, 20000, accept, accept, func(i int) error {
		if i%8 == 7 {
			fresh()
		}
		if n := accepted.Swap(0); n != 1 {
			return fmt.Errorf("accepted %d times", n)
		}
		return nil
	})
}

// A number arrives together with one that is a whole ring ahead and takes its
// word: the newer one stays seen.
func TestRingAheadTogether(t *testing.T) {
	const ring = 4 * wordBits // of a window of 64 packets
	w, _ := New(64)
	var newer atomic.Bool
	together(t, 50000,
		func(i int) { w.Accept(uint64(i)*ring + 1) },
		func(i int) { newer.Store(w.Accept(uint64(i+1)*ring + 2)) },
		func(i int) error {
			if first, again := newer.Load(), w.Accept(uint64(i+1)*ring+2); !first || again {
				return fmt.Errorf("the newer number is accepted %v, and again %v", first, again)
			}
			return nil
		})
}
