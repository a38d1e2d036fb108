package spd

import (
	"iter"
	"net/netip"
)

// Txn is a set of changes on the way to become one commit. It belongs to one
// goroutine; to give it up is to drop it. Any number may be open, of which the
// first to commit wins.
type Txn struct {
	db      *DB
	base    *state
	work    state
	changed [2]bool // in, out
}

// Begin opens a transaction on what is committed now.
func (db *DB) Begin() *Txn {
	s := db.state.Load()
	return &Txn{db: db, base: s, work: *s}
}

// Add puts p behind the policies of its direction with the same priority or a
// smaller one. It returns ErrInvalid, or ErrExists when p.Dir has a policy with
// an equal selector. The caller gives p its ID.
func (t *Txn) Add(p *Policy) error {
	if !p.valid() {
		return ErrInvalid
	}
	tab := t.work.table(p.Dir)
	if tab.find(&p.Sel) != nil {
		return ErrExists
	}
	p.order = order{p.Priority, t.work.seq}
	t.work.seq++
	tab.place(p)
	t.mark(p.Dir)
	return nil
}

// Replace puts p in the place of the policy of its direction with an equal
// selector, which it returns, and where there is none adds it. With the same
// priority p stands where the other stood; with another one it stands where Add
// would put it. It returns ErrInvalid where Add does.
func (t *Txn) Replace(p *Policy) (old *Policy, err error) {
	if !p.valid() {
		return nil, ErrInvalid
	}
	tab := t.work.table(p.Dir)
	old = tab.find(&p.Sel)
	if old != nil {
		tab.remove(old)
	}
	if old == nil || old.Priority != p.Priority {
		return old, t.Add(p)
	}
	p.order = old.order
	tab.place(p)
	t.mark(p.Dir)
	return old, nil
}

// Delete removes and returns the policy of dir with exactly this selector, or
// returns ErrNotFound.
func (t *Txn) Delete(sel Selector, dir Dir) (*Policy, error) {
	tab := t.work.table(dir)
	if !dir.valid() || !sel.valid() {
		return nil, ErrNotFound
	}
	p := tab.find(&sel)
	if p == nil {
		return nil, ErrNotFound
	}
	tab.remove(p)
	t.mark(dir)
	return p, nil
}

// Get returns the policy with this ID as this transaction would leave it, or
// nil.
func (t *Txn) Get(id uint32) *Policy { return t.work.get(id) }

// Flush removes all policies and returns how many there were.
func (t *Txn) Flush() int {
	n := 0
	for _, dir := range [...]Dir{In, Out} {
		tab := t.work.table(dir)
		if tab.len == 0 {
			continue
		}
		n += tab.len
		*tab = table{generation: tab.generation}
		t.mark(dir)
	}
	return n
}

// All yields the policies as this transaction would leave them when All is
// called, in before out, in the order in which they match.
func (t *Txn) All() iter.Seq[*Policy] {
	s := t.work
	return s.all()
}

// Commit publishes the transaction and reports true, or does nothing and
// reports false when another one was committed since Begin; the caller then
// begins anew. A transaction commits once.
func (t *Txn) Commit() bool {
	next := t.work
	for i, tab := range [...]*table{&next.in, &next.out} {
		if t.changed[i] {
			tab.generation++
		}
	}
	return t.db.state.CompareAndSwap(t.base, &next)
}

func (t *Txn) mark(dir Dir) { t.changed[dir-In] = true }

// orderLen is the length of an order's key.
const orderLen = 32 + 64

// root is where the tries of the selector's family hang.
func (t *table) root(s *Selector) **dstTrie {
	if s.Dst.Addr().Is4() {
		return &t.v4
	}
	return &t.v6
}

// place makes p part of the table. Nothing may stand at its selector.
func (t *table) place(p *Policy) {
	t.put(&p.Sel, p)
	t.ordered = t.ordered.set(p.order.key(), orderLen, p)
	t.byID = t.byID.set(idKey(p.ID), idLen, p)
	t.len++
}

// remove takes out p, which is part of the table.
func (t *table) remove(p *Policy) {
	t.put(&p.Sel, nil)
	t.ordered = t.ordered.set(p.order.key(), orderLen, nil)
	t.byID = t.byID.set(idKey(p.ID), idLen, nil)
	t.len--
}

// idLen is the length of an ID's key.
const idLen = 32

func idKey(id uint32) key { return key{hi: uint64(id) << 32} }

// find returns the policy with exactly this selector, or nil.
func (t *table) find(s *Selector) *Policy {
	upper := (*t.root(s)).get(prefixKey(s.Dst)).get(prefixKey(s.Src))
	return upper.get(upperKey(s.Proto, s.SrcPort, s.DstPort), upperLen)
}

// put places p at its selector; a nil p removes what is there, and the tries
// that it leaves empty.
func (t *table) put(s *Selector, p *Policy) {
	root := t.root(s)
	dst, dstLen := prefixKey(s.Dst)
	src, srcLen := prefixKey(s.Src)
	from := (*root).get(dst, dstLen)
	upper := from.get(src, srcLen).set(upperKey(s.Proto, s.SrcPort, s.DstPort), upperLen, p)
	*root = (*root).set(dst, dstLen, from.set(src, srcLen, upper))
}

func (d Dir) valid() bool { return d == In || d == Out }

func (s *Selector) valid() bool {
	return masked(s.Src) && masked(s.Dst) && s.Src.Addr().Is4() == s.Dst.Addr().Is4()
}

func masked(p netip.Prefix) bool { return p.IsValid() && p == p.Masked() }

func (p *Policy) valid() bool { return p.Dir.valid() && p.Sel.valid() }
