package sad

import "sync/atomic"

// table is an open-addressing hash table with one writer and any number of
// readers, who take no lock. A slot is a 64-bit tag and a pointer; the tag is
// the hash itself, so that a probe rarely follows a wrong pointer. Readers
// must check what they find: a slot may be reused between the load of its tag
// and of its pointer.
//
// Only growth copies. A removed entry leaves a tombstone until then.
type table[T any] struct {
	slots []slot[T]
	mask  uint64
	live  int // [m] entries
	used  int // [m] entries and tombstones
}

type slot[T any] struct {
	tag atomic.Uint64
	val atomic.Pointer[T]
}

const (
	emptyTag  = 0
	buriedTag = 1
	minSlots  = 16
)

// tagOf keeps hashes clear of the two special tags.
func tagOf(hash uint64) uint64 {
	if hash <= buriedTag {
		return hash + 2
	}
	return hash
}

func newTable[T any](slots int) *table[T] {
	return &table[T]{slots: make([]slot[T], slots), mask: uint64(slots - 1)}
}

// find returns the next value with the tag at or behind slot i, and the slot
// behind that; nil when there is none. The first call is with i = tag.
func (t *table[T]) find(tag, i uint64) (*T, uint64) {
	for {
		s := &t.slots[i&t.mask]
		i++
		switch s.tag.Load() {
		case tag:
			if v := s.val.Load(); v != nil {
				return v, i
			}
		case emptyTag:
			return nil, i
		}
	}
}

// full says that the table must grow before another insert: an eighth of the
// slots always stays empty, so that find ends.
func (t *table[T]) full() bool { return t.used+1 > len(t.slots)/8*7 }

// grown returns a copy without tombstones, with room for as many again.
func (t *table[T]) grown() *table[T] {
	n := minSlots
	for n < 2*(t.live+1) {
		n *= 2
	}
	g := newTable[T](n)
	for i := range t.slots {
		s := &t.slots[i]
		if tag := s.tag.Load(); tag > buriedTag {
			g.insert(tag, s.val.Load())
		}
	}
	return g
}

func (t *table[T]) insert(tag uint64, v *T) {
	for i := tag; ; i++ {
		s := &t.slots[i&t.mask]
		old := s.tag.Load()
		if old > buriedTag {
			continue
		}
		if old == emptyTag {
			t.used++
		}
		t.live++
		s.val.Store(v)
		s.tag.Store(tag)
		return
	}
}

// swap puts v in the place of old: there is no moment without one of the two.
func (t *table[T]) swap(tag uint64, old, v *T) {
	for i := tag; ; i++ {
		if s := &t.slots[i&t.mask]; s.tag.Load() == tag && s.val.CompareAndSwap(old, v) {
			return
		}
	}
}

func (t *table[T]) remove(tag uint64, v *T) {
	for i := tag; ; i++ {
		s := &t.slots[i&t.mask]
		if s.tag.Load() == tag && s.val.Load() == v {
			s.tag.Store(buriedTag)
			s.val.Store(nil)
			t.live--
			return
		}
	}
}
