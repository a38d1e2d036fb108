// Package sad is the Security Association Database (RFC 4301 4.4.2): SAs found
// by SPI, protocol and destination in one hash probe for what arrives, and by
// address pair for what leaves; their sequence numbers, IVs, replay windows
// and counters.
//
// Lookup, Outbound and Generation, and all methods of SA, take no lock,
// allocate nothing and may be called by any number of goroutines; so may Pair,
// which allocates its iterator. The writing methods of DB lock one mutex; the
// engine's control side is meant to be their only caller. Writers pay for what
// they change, not for the table.
package sad

import (
	"encoding/binary"
	"errors"
	"iter"
	"math/bits"
	"math/rand/v2"
	"net/netip"
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
	seed  uint64
	bySPI atomic.Pointer[table[SA]]
	pairs atomic.Pointer[table[pair]]
	gen   atomic.Uint64
	now   func() time.Time

	mu          sync.Mutex
	memory      memory // [m]
	first, last *SA    // [m] insertion order
	len         int    // [m]
}

// pair is the SAs from one address to another, newest first.
type pair struct {
	src, dst [16]byte
	proto    uint8
	sas      atomic.Pointer[[]*SA] // the slice is immutable
}

// New returns an empty database.
func New() *DB {
	start := time.Now()
	db := &DB{seed: rand.Uint64(), memory: newMemory()}
	// The wall clock at the start and the monotonic one from there: IVs do not
	// go back when somebody sets the clock.
	db.now = func() time.Time { return start.Add(time.Since(start)) }
	db.bySPI.Store(newTable[SA](minSlots))
	db.pairs.Store(newTable[pair](minSlots))
	return db
}

// Generation changes whenever an SA is added or removed. Who keeps what
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

// Outbound finds the SA that a policy's request is to use: from src to dst, of
// the protocol, of the mode or of any, with the reqid unless that is 0. Of
// several the newest is taken (net.key.preferred_oldsa=0). It returns nil when
// there is none.
func (db *DB) Outbound(proto uint8, mode Mode, reqid uint32, src, dst *[16]byte) *SA {
	p := db.findPair(proto, src, dst)
	if p == nil {
		return nil
	}
	for _, sa := range *p.sas.Load() {
		if (sa.spec.Mode == mode || sa.spec.Mode == ModeAny) && (reqid == 0 || sa.spec.Reqid == reqid) {
			return sa
		}
	}
	return nil
}

// Pair yields the SAs of a protocol from src to dst that there were at the call,
// newest first.
func (db *DB) Pair(proto uint8, src, dst netip.Addr) iter.Seq[*SA] {
	from, to := src.As16(), dst.As16()
	var sas []*SA
	if p := db.findPair(proto, &from, &to); p != nil {
		sas = *p.sas.Load()
	}
	return slices.Values(sas)
}

func (db *DB) findPair(proto uint8, src, dst *[16]byte) *pair {
	tag := db.hash(uint64(proto), 0, src, dst)
	t := db.pairs.Load()
	p, i := t.find(tag, tag)
	for p != nil && (p.proto != proto || p.src != *src || p.dst != *dst) {
		p, i = t.find(tag, i)
	}
	return p
}

// Add publishes sa, which belongs to the database from then on.
func (db *DB) Add(sa *SA) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.Lookup(sa.spec.SPI, sa.spec.Proto, &sa.Dst) != nil {
		return ErrExists
	}
	db.publish(sa)
	db.gen.Add(1)
	return nil
}

// Replace publishes sa in the place of the SA with its ID, if there is one.
// There is no moment without an SA of that ID, and none in which both grant
// sequence numbers.
func (db *DB) Replace(sa *SA) {
	db.mu.Lock()
	defer db.mu.Unlock()
	old := db.Lookup(sa.spec.SPI, sa.spec.Proto, &sa.Dst)
	if old != nil {
		db.memory.detach(old)
	}
	db.publish(sa)
	if old != nil {
		db.unpublish(old)
	}
	db.gen.Add(1)
}

func (db *DB) publish(sa *SA) {
	db.memory.attach(sa, uint64(db.now().UnixNano()))
	db.link(sa)
	insert(&db.bySPI, db.tag(sa), sa)
	if p := db.findPair(sa.spec.Proto, &sa.Src, &sa.Dst); p != nil {
		sas := append([]*SA{sa}, *p.sas.Load()...)
		p.sas.Store(&sas)
		return
	}
	p := &pair{src: sa.Src, dst: sa.Dst, proto: sa.spec.Proto}
	p.sas.Store(&[]*SA{sa})
	insert(&db.pairs, db.hash(uint64(p.proto), 0, &p.src, &p.dst), p)
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
	db.gen.Add(1)
	return sa, nil
}

// Flush removes all SAs of a protocol, 0 for any, and says how many there
// were.
func (db *DB) Flush(proto uint8) int {
	db.mu.Lock()
	defer db.mu.Unlock()
	n := 0
	for sa := db.first; sa != nil; {
		next := sa.next
		if proto == 0 || sa.spec.Proto == proto {
			db.remove(sa)
			n++
		}
		sa = next
	}
	if n > 0 {
		db.gen.Add(1)
	}
	return n
}

func (db *DB) remove(sa *SA) {
	db.memory.detach(sa)
	db.unpublish(sa)
}

func (db *DB) unpublish(sa *SA) {
	db.unlink(sa)
	db.bySPI.Load().remove(db.tag(sa), sa)
	p := db.findPair(sa.spec.Proto, &sa.Src, &sa.Dst)
	sas := slices.DeleteFunc(slices.Clone(*p.sas.Load()), func(x *SA) bool { return x == sa })
	p.sas.Store(&sas)
	if len(sas) == 0 {
		db.pairs.Load().remove(db.hash(uint64(p.proto), 0, &p.src, &p.dst), p)
	}
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
