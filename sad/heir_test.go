package sad

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// Who holds an SA that was updated, as a worker's cache may, does not hold all that
// came after it.
func TestHeirsAreLetGo(t *testing.T) {
	db := New()
	s := spec(256, 1, 2)
	s.Replay = 64
	first := added(t, db, s)
	first.Window.Accept(1)
	var freed atomic.Int64
	const updates = 100
	for range updates {
		sa := newSA(t, s)
		runtime.AddCleanup(sa, func(int) { freed.Add(1) }, 0)
		if err := db.Update(sa); err != nil {
			t.Fatal(err)
		}
	}
	db.Reap()
	for end := time.Now().Add(10 * time.Second); freed.Load() < updates-1 && time.Now().Before(end); {
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
	if n := freed.Load(); n < updates-1 { // the last is in the database
		t.Errorf("%d of %d freed", n, updates-1)
	}
	if first.Window.Check(2) && first.Window.Accept(2) {
		t.Error("a window whose SA is gone accepts a number")
	}
	runtime.KeepAlive(first)
	runtime.KeepAlive(db)
}
