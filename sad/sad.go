// Package sad is the Security Association Database (RFC 4301 4.4.2): SAs found
// by SPI, protocol and destination in one hash probe for what arrives, and by
// address pair for what leaves.
//
// It owns all that lives of an SA: its sequence numbers (RFC 4303 3.3.3, with ESN
// 2.2.1 and appendix A2.2), the IVs of its key (RFC 4106 section 9), its replay
// window (3.4.3), counters and drops, the ports it is encapsulated with (RFC 3948),
// and the octets of its keys, which NewSA copies and Reap zeroes once no
// worker can use them. Of an SA that is gone it remembers the last number sent, and
// with ESN the last one received, for the same one to come back (65536 SAs at
// least, the newest). Replace is that going and coming at once; Update changes an SA that stays where it is, with its numbers
// and its window as long as its keys stay.
//
// Lookup, Outbound and Generation, the methods of SA and Reader's Enter and Leave
// take no lock and may be called by any number of goroutines; Keys locks that SA
// alone, and Resume is for one that no DB has yet. None of them allocates, but
// for Keys and for what an SA needs when its first packet is accepted or dropped.
// A worker has a Reader, and wraps each burst in its Enter and Leave. The other
// methods of DB lock one mutex; the engine's control side is meant to be their
// caller. Writers pay for what they change, not for the table: only its growth
// copies.
//
// An SA that rests takes 600 octets of heap at most, all counted.
package sad

import (
	"encoding/binary"
	"errors"
	"iter"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

var (
	ErrExists   = errors.New("an SA with this SPI, protocol and destination exists")
	ErrNotFound = errors.New("no such SA")
)

// DB is the database. The zero value is not ready; use New.
type DB struct {
	seed  uint64                    // [I]
	now   func() time.Time          // [I]
	bySPI atomic.Pointer[table[SA]] // [a]
	pairs atomic.Pointer[table[SA]] // [a] the newest of each pair
	gen   atomic.Uint64             // [a]
	epoch atomic.Uint64             // [a] see Reader

	mu          sync.Mutex
	memory      memory    // [m]
	first, last *SA       // [m] insertion order
	len         int       // [m]
	readers     []*Reader // [m]
	graves      []grave   // [m] oldest first
}

// New returns an empty database.
func New() *DB {
	start := time.Now()
	db := &DB{seed: rand.Uint64(), memory: newMemory()}
	// The wall clock at the start and the monotonic one from there: IVs do not
	// go back when somebody sets the clock.
	db.now = func() time.Time { return start.Add(time.Since(start)) }
	db.bySPI.Store(newTable[SA](minSlots))
	db.pairs.Store(newTable[SA](minSlots))
	db.epoch.Store(idle + 1)
	return db
}

// Generation changes whenever an SA is added, updated or removed. Who keeps what
// Outbound returned reads it first and asks again when it has changed.
func (db *DB) Generation() uint64 { return db.gen.Load() }

// hash is keyed with a seed of this boot: a peer cannot choose SPIs that
// collide.
func (db *DB) hash(a, b uint64, addrs ...*[16]byte) uint64 {
	h := mix(db.seed^a, b)
	for _, x := range addrs {
		h = mix(h^binary.NativeEndian.Uint64(x[:8]), binary.NativeEndian.Uint64(x[8:]))
	}
	return tagOf(h)
}

// Lookup finds the SA of a packet that arrived: by SPI in host order, protocol
// and destination (RFC 4301 4.1, unicast). It returns nil when there is none.
func (db *DB) Lookup(spi uint32, proto uint8, dst *[16]byte) *SA {
	tag := db.hash(uint64(spi), uint64(proto), dst)
	t := db.bySPI.Load()
	sa, i := t.find(tag, tag)
	for sa != nil && (sa.spec.SPI != spi || sa.spec.Proto != proto || sa.Dst != *dst) {
		sa, i = t.find(tag, i)
	}
	return sa
}

// Add publishes sa, which belongs to the database from then on.
func (db *DB) Add(sa *SA) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.Lookup(sa.spec.SPI, sa.spec.Proto, &sa.Dst) != nil {
		return ErrExists
	}
	db.publish(sa)
	return nil
}

// Replace publishes sa as Delete and Add would, if there is an SA with its ID: as
// the newest, with a window of its own. But there is no moment without an SA of
// that ID, and none in which both grant sequence numbers.
func (db *DB) Replace(sa *SA) {
	db.mu.Lock()
	defer db.mu.Unlock()
	old := db.Lookup(sa.spec.SPI, sa.spec.Proto, &sa.Dst)
	if old == nil {
		db.publish(sa)
		return
	}
	db.memory.detach(old)
	db.memory.attach(sa, uint64(db.now().UnixNano()))
	db.link(sa)
	db.bySPI.Load().swap(db.tag(sa), old, sa)
	db.chain(sa)
	db.unchain(old)
	db.unlink(old)
	db.bury(old)
}

// Update puts sa in the place of the SA with its ID, ErrNotFound when there is
// none: in the order of All and of its pair, too, unless its source is another,
// which makes it the newest from there. With the same keys, algorithms and ESN it
// goes on where the old one is: behind the last number sent, and what was
// received, or is older, counts as seen. With others both begin anew. Its
// counters always do. As with Replace, there is no moment without an SA of that
// ID, and none in which both grant sequence numbers.
func (db *DB) Update(sa *SA) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	old := db.Lookup(sa.spec.SPI, sa.spec.Proto, &sa.Dst)
	if old == nil {
		return ErrNotFound
	}
	db.memory.detach(old)
	db.memory.attach(sa, uint64(db.now().UnixNano()))
	if sa.sameKeys(old) { // behind attach: then others come to sa's window by the old one
		sa.succeed(old)
	}
	db.relink(old, sa)
	db.bySPI.Load().swap(db.tag(sa), old, sa)
	if sa.Src == old.Src {
		db.rechain(old, sa)
	} else {
		db.chain(sa)
		db.unchain(old)
	}
	db.bury(old)
	return nil
}

func (db *DB) publish(sa *SA) {
	db.memory.attach(sa, uint64(db.now().UnixNano()))
	db.link(sa)
	insert(&db.bySPI, db.tag(sa), sa)
	db.chain(sa)
}

// Get returns the SA with an ID, or nil.
func (db *DB) Get(id ID) *SA {
	dst := id.Dst.Unmap().As16()
	return db.Lookup(id.SPI, id.Proto, &dst)
}

// Delete removes the SA with an ID. Packets that are being worked on finish.
func (db *DB) Delete(id ID) (*SA, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	sa := db.Get(id)
	if sa == nil {
		return nil, ErrNotFound
	}
	db.remove(sa)
	db.bury(sa)
	return sa, nil
}

// Flush removes all SAs of a protocol, 0 for any, and says how many there
// were.
func (db *DB) Flush(proto uint8) int {
	db.mu.Lock()
	defer db.mu.Unlock()
	var gone []*SA
	for sa := db.first; sa != nil; {
		next := sa.next
		if proto == 0 || sa.spec.Proto == proto {
			db.remove(sa)
			gone = append(gone, sa)
		}
		sa = next
	}
	if len(gone) == 0 {
		return 0
	}
	if db.first == nil { // rather than tables of tombstones
		db.bySPI.Store(newTable[SA](minSlots))
		db.pairs.Store(newTable[SA](minSlots))
	}
	db.bury(gone...)
	return len(gone)
}

// remove makes an SA impossible to look up. The caller buries it.
func (db *DB) remove(sa *SA) {
	db.memory.detach(sa)
	db.bySPI.Load().remove(db.tag(sa), sa)
	db.unchain(sa)
	db.unlink(sa)
}

// Len is the number of SAs.
func (db *DB) Len() int {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.len
}

// All yields the SAs there were at the call, in the order they were added.
func (db *DB) All() iter.Seq[*SA] {
	db.mu.Lock()
	defer db.mu.Unlock()
	all := make([]*SA, 0, db.len)
	for sa := db.first; sa != nil; sa = sa.next {
		all = append(all, sa)
	}
	return slices.Values(all)
}

func (db *DB) tag(sa *SA) uint64 {
	return db.hash(uint64(sa.spec.SPI), uint64(sa.spec.Proto), &sa.Dst)
}

func (db *DB) link(sa *SA) {
	sa.prev, sa.next = db.last, nil
	if db.last != nil {
		db.last.next = sa
	} else {
		db.first = sa
	}
	db.last = sa
	db.len++
}

// relink puts sa in the place of old.
func (db *DB) relink(old, sa *SA) {
	sa.prev, sa.next = old.prev, old.next
	if sa.prev != nil {
		sa.prev.next = sa
	} else {
		db.first = sa
	}
	if sa.next != nil {
		sa.next.prev = sa
	} else {
		db.last = sa
	}
	old.prev, old.next = nil, nil
}

func (db *DB) unlink(sa *SA) {
	if sa.prev != nil {
		sa.prev.next = sa.next
	} else {
		db.first = sa.next
	}
	if sa.next != nil {
		sa.next.prev = sa.prev
	} else {
		db.last = sa.prev
	}
	sa.prev, sa.next = nil, nil
	db.len--
}

func insert[T any](at *atomic.Pointer[table[T]], tag uint64, v *T) {
	t := at.Load()
	if t.full() {
		t = t.grown()
		t.insert(tag, v)
		at.Store(t)
		return
	}
	t.insert(tag, v)
}

// mix is the 128-bit product of its halves folded, as in wyhash.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^0xa0761d6478bd642f, b^0xe7037ed1a0b428db)
	return hi ^ lo
}
