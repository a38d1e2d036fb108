package replay

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
)

// What one window accepted, and all below, is seen by the next, of whatever size
// it is; and the old one decides nothing any more.
func TestSucceed(t *testing.T) {
	sizes := []uint32{0, 1, 32, 64, 4096}
	for _, from := range sizes {
		for _, to := range sizes {
			for _, top := range []uint64{0, 1, 70, 1 << 33, math.MaxUint64 - 9} {
				old, _ := New(from)
				old.Resume(top)
				w, _ := New(to)
				w.Succeed(old)
				name := fmt.Sprintf("%d to %d at %#x", from, to, top)
				for back := range min(top, 5000) {
					if to > 0 && (w.Check(top-back) || old.Check(top-back) || old.Accept(top-back)) {
						t.Fatalf("%s: %#x is fresh", name, top-back)
					}
				}
				if w.Top() != top || !old.Check(top+3) || !old.Accept(top+3) || w.Top() != top+3 {
					t.Errorf("%s: top %#x", name, w.Top())
				}
				if again := w.Accept(top + 3); again != (to == 0) {
					t.Errorf("%s: again %v", name, again)
				}
			}
		}
	}
}

// Of a window that succeeds one it is said what came first, or farther.
func TestSucceedAfterResume(t *testing.T) {
	for _, tt := range []struct{ old, resumed, want uint64 }{{100, 50, 100}, {100, 900, 900}} {
		old, _ := New(64)
		old.Accept(tt.old)
		w, _ := New(64)
		w.Resume(tt.resumed)
		w.Succeed(old)
		if w.Top() != tt.want || w.Check(tt.want) || w.Check(tt.want-1) || !w.Check(tt.want+1) {
			t.Errorf("%+v: top %d", tt, w.Top())
		}
	}
}

// Windows follow each other while packets arrive, by the one before as well: no
// number is accepted twice.
func TestConcurrentSuccession(t *testing.T) {
	const workers, n, begin = 4, 60000, 1<<32 - 30000
	fresh := func(i int) *Window {
		w, err := New(64 << (i % 4))
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	var now atomic.Pointer[Window]
	now.Store(fresh(0))
	accepted := make([]atomic.Int32, n)
	var wg sync.WaitGroup
	var done atomic.Int32
	for range workers {
		wg.Go(func() {
			defer done.Add(1)
			w := now.Load()
			for i := range n {
				if i%7 == 0 {
					w = now.Load()
				}
				for _, j := range []int{i, i ^ 1, i ^ 37} {
					if j < n && w.Accept(begin+uint64(j)) {
						accepted[j].Add(1)
					}
				}
			}
		})
	}
	wg.Go(func() {
		for i := 1; done.Load() < workers; i++ {
			w := fresh(i)
			w.Succeed(now.Load())
			now.Store(w)
		}
	})
	wg.Wait()
	for i := range accepted {
		if times := accepted[i].Load(); times > 1 {
			t.Fatalf("%#x is accepted %d times", begin+uint64(i), times)
		}
	}
}

// A packet comes together with the succession, to either: one takes it at most,
// and nobody takes it again.
func TestSucceedTogether(t *testing.T) {
	var old, w *Window
	var accepted atomic.Int32
	fresh := func() {
		old, _ = New(64)
		w, _ = New(64)
	}
	fresh()
	together(t, 50000,
		func(int) {
			if old.Accept(5) {
				accepted.Add(1)
			}
		},
		func(int) {
			w.Succeed(old)
			if w.Accept(5) {
				accepted.Add(1)
			}
		},
		func(int) error {
			times := accepted.Swap(0)
			again := old.Accept(5) || w.Accept(5)
			fresh()
			if times > 1 || again {
				return fmt.Errorf("accepted %d times, and again %v", times, again)
			}
			return nil
		})
}
