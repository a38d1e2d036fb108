package spd

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"unsafe"
)

// check walks a trie and tells of nodes that break its promises.
func check[V value](t *testing.T, n *node[V]) (values int, first order) {
	t.Helper()
	if n == nil {
		return 0, last
	}
	var none V
	first = last
	if n.val != none {
		values, first = 1, n.val.least()
	} else if n.child[0] == nil || n.child[1] == nil {
		t.Errorf("a node of %d bits stands for nothing", n.len)
	}
	if n.key != n.key.cut(n.len) {
		t.Errorf("key %x has more than %d bits", n.key, n.len)
	}
	for i, c := range n.child {
		if c == nil {
			continue
		}
		if c.len <= n.len || common(c.key, n.key) < n.len || c.key.bit(n.len) != uint8(i) {
			t.Errorf("%x/%d is child %d of %x/%d", c.key, c.len, i, n.key, n.len)
		}
		v, f := check(t, c)
		values += v
		if f.before(first) {
			first = f
		}
	}
	if n.first != first {
		t.Errorf("first is %v at %x/%d, want %v", n.first, n.key, n.len, first)
	}
	return values, first
}

func TestTrieShape(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	type entry struct {
		key key
		len uint8
	}
	var trie *node[*Policy]
	model := make(map[entry]*Policy)
	for i := range 4000 {
		n := uint8(rnd.IntN(129))
		e := entry{key{rnd.Uint64() & 0xc0000000_00000001, rnd.Uint64() & 0x80000000_00000001}.cut(n), n}
		if i%2 == 0 {
			p := &Policy{order: order{rnd.Uint32N(3), uint64(i)}}
			trie, model[e] = trie.set(e.key, e.len, p), p
		} else {
			trie = trie.set(e.key, e.len, nil)
			delete(model, e)
		}
		if got := trie.get(e.key, e.len); got != model[e] {
			t.Fatalf("got %p at %x/%d, want %p", got, e.key, e.len, model[e])
		}
	}
	if n, _ := check(t, trie); n != len(model) {
		t.Errorf("%d values, want %d", n, len(model))
	}
	for e := range model {
		trie = trie.set(e.key, e.len, nil)
	}
	if trie != nil {
		t.Error("something is left of an emptied trie")
	}
}

func TestOrderKey(t *testing.T) {
	orders := []order{{0, 0}, {0, 1}, {0, 1 << 31}, {0, 1 << 32}, {0, 1<<64 - 1}, {1, 0}, {1 << 31, 5}, last}
	var trie *node[*Policy]
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(len(orders)) {
		trie = trie.set(orders[i].key(), orderLen, &Policy{order: orders[i]})
	}
	var got []order
	trie.walk(func(p *Policy) bool { got = append(got, p.order); return true })
	if !slices.Equal(got, orders) {
		t.Errorf("order %v, want %v", got, orders)
	}
}

func TestNodeSize(t *testing.T) {
	if size := unsafe.Sizeof(dstTrie{}); size > 64 {
		t.Errorf("a node has %d octets, more than a cache line", size)
	}
}

func selector(prefix string, port uint16) Selector {
	p := netip.MustParsePrefix(prefix)
	return Selector{Src: p, Dst: p, Proto: 6, DstPort: port}
}

// Emptied tries leave the database.
func TestFlushedByDelete(t *testing.T) {
	db := New()
	txn := db.Begin()
	for _, sel := range []Selector{selector("10.0.0.0/8", 1), selector("10.0.0.0/8", 2), selector("10.1.0.0/16", 1)} {
		if err := txn.Add(&Policy{Dir: In, Sel: sel}); err != nil {
			t.Fatal(err)
		}
	}
	for p := range txn.All() {
		if _, err := txn.Delete(p.Sel, p.Dir); err != nil {
			t.Fatal(err)
		}
	}
	if in := txn.work.in; in.v4 != nil || in.ordered != nil || in.len != 0 {
		t.Errorf("left: %+v", in)
	}
}
