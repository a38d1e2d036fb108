package sad

import (
	"math"
	"slices"
	"sync/atomic"
)

// Reader says when a worker can hold SAs of a DB. One goroutine has one, and
// calls Enter before the first lookup of a burst and Leave when it lets go of
// the last SA: until then every SA that the DB gave it, or that it remembered
// and found by Generation to be still there, keeps its keys. Neither allocates or
// waits.
//
// An SA dies in two steps. Who removes it makes it impossible to look up, then
// advances the generation, then the epoch, whose new value is written on the
// grave. Enter announces the epoch; Reap wipes what lies in graves up to the
// least epoch announced.
//
// That is right because Go's atomic operations are sequentially consistent: there
// is one order of all of them. A reader that announces the grave's epoch or a
// later one loaded it after the SA was removed, and looks up and compares
// generations later still: it does not come to the SA. A reader that may come to
// it announces an earlier epoch, and Reap waits. If Reap saw that reader idle, the
// announcement comes after Reap's look, and the lookup after that: once more
// the SA is not found. An epoch that is old by the time it is announced makes
// Reap wait longer, no more. And all that a reader did with a key comes before
// the Enter or Leave that let Reap pass, so zeroing it is no data race.
type Reader struct {
	at atomic.Uint64 // epoch announced; idle outside of Enter and Leave
	db *DB           // [I]

	// With this the allocator gives each Reader two cache lines of its own
	// (neighbours are fetched in pairs), so that workers do not slow each other.
	_ [128 - 16]byte
}

const idle = 0 // epochs begin at 1

// NewReader returns a worker's Reader, which must be closed when the worker
// ends.
func (db *DB) NewReader() *Reader {
	db.mu.Lock()
	defer db.mu.Unlock()
	r := &Reader{db: db}
	db.readers = append(db.readers, r)
	return r
}

// Enter begins a burst. It must not be called again before Leave.
func (r *Reader) Enter() { r.at.Store(r.db.epoch.Load()) }

// Leave ends it: the worker holds no SA for use any more.
func (r *Reader) Leave() { r.at.Store(idle) }

// Close leaves and makes the DB forget r, which is of no use any more.
func (r *Reader) Close() {
	r.Leave()
	r.db.mu.Lock()
	defer r.db.mu.Unlock()
	r.db.readers = slices.DeleteFunc(r.db.readers, func(x *Reader) bool { return x == r })
}

// grave is an SA that was removed and waits to be wiped.
type grave struct {
	sa    *SA
	epoch uint64 // of readers that cannot have it
}

// bury ends what remove began, in the order that Reader rests on. DB.mu is held.
func (db *DB) bury(sas ...*SA) {
	db.gen.Add(1)
	epoch := db.epoch.Add(1)
	for _, sa := range sas {
		db.graves = append(db.graves, grave{sa, epoch})
	}
	db.reap()
}

// Reap wipes the keys of SAs that were removed and that no Reader can hold any
// more, and returns how many wait still. Who removes SAs reaps by the way; what
// was in use then waits for the next call.
func (db *DB) Reap() int {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.reap()
}

func (db *DB) reap() int {
	passed, n := db.passed(), 0
	for n < len(db.graves) && db.graves[n].epoch <= passed {
		sa := db.graves[n].sa
		db.memory.release(sa)
		sa.wipe()
		sa.Window.Release()
		n++
	}
	db.graves = slices.Delete(db.graves, 0, n)
	if len(db.graves) == 0 {
		db.graves = nil
	}
	return len(db.graves)
}

// passed is the least epoch that a reader at work announced.
func (db *DB) passed() uint64 {
	least := uint64(math.MaxUint64)
	for _, r := range db.readers {
		if at := r.at.Load(); at != idle {
			least = min(least, at)
		}
	}
	return least
}
