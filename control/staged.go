package control

import (
	"net/netip"
	"slices"
	"syscall"

	"ipsecd/sad"
)

// stagedSAs is the SAD as one transaction would leave it: what is live, less
// what was flushed or deleted, plus what was added. What others change in live
// shows through.
type stagedSAs struct {
	live    *sad.DB
	flushed bool
	deleted map[sad.ID]bool // of live; empty once flushed
	added   map[sad.ID]int  // place in order
	order   []*sad.SA       // as added; nil where it was deleted again
	between map[ends][]int  // places in order, also of what was deleted again
}

// ends are the addresses of an SA.
type ends struct{ src, dst netip.Addr }

func (t *stagedSAs) changed() bool {
	return t.flushed || len(t.deleted) > 0 || len(t.added) > 0
}

// hides reports whether the SA of live with this ID goes.
func (t *stagedSAs) hides(id sad.ID) bool { return t.flushed || t.deleted[id] }

func (t *stagedSAs) get(id sad.ID) *sad.SA {
	if i, ok := t.added[id]; ok {
		return t.order[i]
	}
	if t.hides(id) {
		return nil
	}
	return t.live.Get(id)
}

func (t *stagedSAs) all() []*sad.SA {
	var out []*sad.SA
	if !t.flushed {
		for sa := range t.live.All() {
			if !t.deleted[sa.Spec().ID] {
				out = append(out, sa)
			}
		}
	}
	for _, sa := range t.order {
		if sa != nil {
			out = append(out, sa)
		}
	}
	return out
}

func (t *stagedSAs) full() bool { return len(t.order)+len(t.deleted) >= maxStaged }

func (t *stagedSAs) add(sa *sad.SA) error {
	id := sa.Spec().ID
	if t.get(id) != nil {
		return sad.ErrExists
	}
	if t.full() {
		return errTooMuch
	}
	if t.added == nil {
		t.added = make(map[sad.ID]int)
		t.between = make(map[ends][]int)
	}
	pair := ends{sa.Spec().Src, id.Dst}
	t.between[pair] = append(t.between[pair], len(t.order))
	t.added[id] = len(t.order)
	t.order = append(t.order, sa)
	return nil
}

// delete removes the SA with this ID if it comes from src.
func (t *stagedSAs) delete(id sad.ID, src netip.Addr) error {
	sa := t.get(id)
	if sa == nil || sa.Spec().Src != src {
		return sad.ErrNotFound
	}
	if i, ok := t.added[id]; ok {
		t.order[i] = nil
		delete(t.added, id)
		return nil
	}
	if t.full() {
		return errTooMuch
	}
	if t.deleted == nil {
		t.deleted = make(map[sad.ID]bool)
	}
	t.deleted[id] = true
	return nil
}

// deletePair removes all SAs from src to dst. What it costs depends on those
// alone.
func (t *stagedSAs) deletePair(src, dst netip.Addr) error {
	pair := ends{src, dst}
	for _, i := range t.between[pair] {
		if sa := t.order[i]; sa != nil {
			t.order[i] = nil
			delete(t.added, sa.Spec().ID)
		}
	}
	delete(t.between, pair)
	for sa := range t.live.Pair(sad.ProtoESP, src, dst) {
		id := sa.Spec().ID
		if t.hides(id) {
			continue
		}
		if err := t.delete(id, src); err != nil {
			return err
		}
	}
	return nil
}

func (t *stagedSAs) flush() error {
	*t = stagedSAs{live: t.live, flushed: true}
	return nil
}

// conflict fails when another session's SA stands where one is to be added.
func (t *stagedSAs) conflict() error {
	for id := range t.added {
		if !t.hides(id) && t.live.Get(id) != nil {
			return refuse(syscall.EEXIST, "another session added the SA with SPI %#x to %v that this transaction adds", id.SPI, id.Dst)
		}
	}
	return nil
}

// leaving are the SAs of live that go, replaced or not.
func (t *stagedSAs) leaving() []*sad.SA {
	if t.flushed {
		return slices.Collect(t.live.All())
	}
	var out []*sad.SA
	for id := range t.deleted {
		if sa := t.live.Get(id); sa != nil {
			out = append(out, sa)
		}
	}
	return out
}

// publishSAs changes the live SAD to what t shows. An SA that takes the place
// of another does so at once; those that go without replacement go last.
func (e *Engine) publishSAs(t *stagedSAs) {
	leaving := t.leaving()
	for _, sa := range leaving {
		e.keys.forget(sa.Spec())
	}
	for _, sa := range t.order {
		if sa != nil {
			e.publishSA(sa)
		}
	}
	for _, sa := range leaving {
		id := sa.Spec().ID
		if t.live.Get(id) != sa {
			continue
		}
		if _, err := t.live.Delete(id); err != nil {
			e.cfg.Log.Error("an SA did not go", "sa", name(id), "err", err)
		}
	}
}

func (e *Engine) publishSA(sa *sad.SA) {
	spec := sa.Spec()
	if other, shared := e.keys.remember(spec); shared {
		e.cfg.Log.Warn("two SAs use the same key; give each its own", "sa", name(spec.ID), "other_spi", other)
	}
	e.cfg.SAD.Replace(sa)
}
