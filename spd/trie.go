package spd

import "math/bits"

// order is a policy's place: by priority, then by insertion.
type order struct {
	prio uint32
	seq  uint64 // never the same twice in one database
}

// last stands after every policy.
var last = order{^uint32(0), ^uint64(0)}

func (o order) before(p order) bool {
	return o.prio < p.prio || o.prio == p.prio && o.seq < p.seq
}

func (o order) key() key {
	return key{uint64(o.prio)<<32 | o.seq>>32, o.seq << 32}
}

// key is a string of up to 128 bits, the first one topmost in hi; the bits
// behind its end are zero.
type key struct{ hi, lo uint64 }

// bit returns bit i, and 0 for those from 128 up.
func (k key) bit(i uint8) uint8 {
	if i < 64 {
		return uint8(k.hi >> (63 - i) & 1)
	}
	return uint8(k.lo >> (127 - i) & 1)
}

// cut keeps the first n bits.
func (k key) cut(n uint8) key {
	if n <= 64 {
		return key{hi: k.hi &^ (^uint64(0) >> n)}
	}
	return key{k.hi, k.lo &^ (^uint64(0) >> (n - 64))}
}

// common counts the bits that a and b share from the first one on.
func common(a, b key) uint8 {
	if x := a.hi ^ b.hi; x != 0 {
		return uint8(bits.LeadingZeros64(x))
	}
	return uint8(64 + bits.LeadingZeros64(a.lo^b.lo))
}

// node is the root of a persistent, path-compressed binary trie: nothing that
// can be reached from it ever changes, and set returns a new root that shares
// all but the path it changed. The nil node is the empty trie.
//
// Each node carries the first order of its subtree, so that a search which
// already holds an earlier policy turns back. It fills one cache line.
type node[V value] struct {
	key   key // cut to len
	first order
	child [2]*node[V] // by bit len of their keys
	val   V           // zero: none, and then both children are there
	len   uint8
}

// value is what a trie holds: a policy, or another trie.
type value interface {
	comparable // with the zero value, which stands for none
	least() order
}

func (p *Policy) least() order  { return p.order }
func (n *node[V]) least() order { return n.first }

// get returns the value at exactly k, of n bits, or zero.
func (t *node[V]) get(k key, n uint8) (v V) {
	for t != nil && t.len <= n && common(t.key, k) >= t.len {
		if t.len == n {
			return t.val
		}
		t = t.child[k.bit(t.len)]
	}
	return v
}

// set returns the trie with v in place of what is at exactly k, of n bits. A
// zero v removes.
func (t *node[V]) set(k key, n uint8, v V) *node[V] {
	if t == nil {
		return (&node[V]{key: k, val: v, len: n}).settle()
	}
	c := *t
	switch at := min(common(t.key, k), t.len, n); {
	case at == t.len && at == n:
		c.val = v
	case at == t.len:
		i := k.bit(at)
		c.child[i] = t.child[i].set(k, n, v)
	case at == n:
		c = node[V]{key: k, val: v, len: n}
		c.child[t.key.bit(at)] = t
	default:
		c = node[V]{key: k.cut(at), len: at}
		c.child[k.bit(at)] = (*node[V])(nil).set(k, n, v)
		c.child[t.key.bit(at)] = t
	}
	return c.settle()
}

// settle finishes a new node: it stands aside for its only child when it has
// no value, and else learns the first order below it.
func (t *node[V]) settle() *node[V] {
	var none V
	t.first = last
	if t.val != none {
		t.first = t.val.least()
	} else if t.child[0] == nil {
		return t.child[1]
	} else if t.child[1] == nil {
		return t.child[0]
	}
	for _, c := range t.child {
		if c != nil && c.first.before(t.first) {
			t.first = c.first
		}
	}
	return t
}

// walk yields the values by ascending key, a prefix before what it contains,
// and reports whether it came to the end.
func (t *node[V]) walk(yield func(V) bool) bool {
	if t == nil {
		return true
	}
	var none V
	if t.val != none && !yield(t.val) {
		return false
	}
	return t.child[0].walk(yield) && t.child[1].walk(yield)
}
