package control

import (
	"net/netip"
	"slices"
	"syscall"

	"ipsecd/pfkey"
	"ipsecd/sad"
)

// stagedSAs is the SAD as one transaction would leave it: what is live, less
// what was flushed or deleted, with other ports where they were changed, plus
// what was added. What others change in live shows through.
type stagedSAs struct {
	live    *sad.DB
	flushed bool
	deleted map[sad.ID]bool      // of live; empty once flushed
	moved   map[sad.ID]sad.Encap // of live, neither deleted nor added again
	added   map[sad.ID]int       // place in order
	order   []*sad.SA            // as added; nil where it was deleted again
	between map[ends][]int       // places in order, also of what was deleted again
}

// ends are the addresses of an SA.
type ends struct{ src, dst netip.Addr }

func (t *stagedSAs) changed() bool {
	return t.flushed || len(t.deleted)+len(t.moved)+len(t.added) > 0
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

// find returns the SA with this ID that comes from src.
func (t *stagedSAs) find(id sad.ID, src netip.Addr) (*sad.SA, error) {
	sa := t.get(id)
	if sa == nil || sa.Spec().Src != src {
		return nil, sad.ErrNotFound
	}
	return sa, nil
}

// describe tells of an SA of t.
func (t *stagedSAs) describe(sa *sad.SA) *pfkey.Message { return describe(sa, t.encap(sa)) }

// encap is the encapsulation of an SA of t.
func (t *stagedSAs) encap(sa *sad.SA) sad.Encap {
	if encap, ok := t.moved[sa.Spec().ID]; ok {
		return encap
	}
	return sa.Encap()
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

// room is how many changes t takes yet.
func (t *stagedSAs) room() int { return maxStaged - len(t.order) - len(t.deleted) - len(t.moved) }

func (t *stagedSAs) add(sa *sad.SA) error {
	id := sa.Spec().ID
	if t.get(id) != nil {
		return sad.ErrExists
	}
	if t.room() <= 0 {
		return errTooMuch
	}
	delete(t.moved, id)
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
	if _, err := t.find(id, src); err != nil {
		return err
	}
	if i, ok := t.added[id]; ok {
		t.order[i] = nil
		delete(t.added, id)
		return nil
	}
	if t.room() <= 0 {
		return errTooMuch
	}
	if t.deleted == nil {
		t.deleted = make(map[sad.ID]bool)
	}
	t.deleted[id] = true
	delete(t.moved, id)
	return nil
}

// replace puts sa in the place of the SA with its ID and source.
func (t *stagedSAs) replace(sa *sad.SA) error {
	id, src := sa.Spec().ID, sa.Spec().Src
	if _, err := t.find(id, src); err != nil {
		return err
	}
	if i, ok := t.added[id]; ok {
		t.order[i] = sa
		return nil
	}
	if t.room() < 2 {
		return errTooMuch
	}
	if err := t.delete(id, src); err != nil {
		return err
	}
	return t.add(sa)
}

// move gives an SA of t, which is encapsulated, other ports.
func (t *stagedSAs) move(sa *sad.SA, encap sad.Encap) error {
	id := sa.Spec().ID
	if t.encap(sa) == (sad.Encap{}) {
		return refuse(syscall.EINVAL, "the SA is not encapsulated in UDP, and an update without keys cannot make it so; "+
			"give the keys again to replace it")
	}
	if i, ok := t.added[id]; ok {
		again, err := withEncap(sa, encap)
		if err == nil {
			t.order[i] = again
		}
		return err
	}
	if t.room() <= 0 {
		return errTooMuch
	}
	if t.moved == nil {
		t.moved = make(map[sad.ID]sad.Encap)
	}
	t.moved[id] = encap
	return nil
}

// withEncap makes an SA that no database has yet once more, with other ports.
func withEncap(sa *sad.SA, encap sad.Encap) (*sad.SA, error) {
	spec := *sa.Spec()
	spec.Encap = encap
	spec.EncKey, spec.AuthKey = sa.Keys()
	defer clear(spec.EncKey)
	defer clear(spec.AuthKey)
	return sad.NewSA(spec)
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

// conflict fails when another session's SA stands where one is to be added, or
// one that is to have other ports is there no more.
func (t *stagedSAs) conflict() error {
	for id := range t.added {
		if !t.hides(id) && t.live.Get(id) != nil {
			return refuse(syscall.EEXIST, "another session added the SA with SPI %#x to %v that this transaction adds", id.SPI, id.Dst)
		}
	}
	for id := range t.moved {
		if sa := t.live.Get(id); sa == nil || sa.Encap() == (sad.Encap{}) {
			return refuse(syscall.ENOENT, "another session removed the SA with SPI %#x to %v whose ports this transaction changes", id.SPI, id.Dst)
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
		e.keys.forget(sa)
	}
	for _, sa := range t.order {
		if sa != nil {
			e.publishSA(sa)
		}
	}
	for id, encap := range t.moved {
		if err := t.live.SetEncap(id, encap); err != nil {
			e.cfg.Log.Error("the ports of an SA did not change", "sa", name(id), "err", err)
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
	if other, shared := e.keys.remember(sa); shared {
		e.cfg.Log.Warn("two SAs use the same key; give each its own", "sa", name(spec.ID), "other_spi", other)
	}
	e.cfg.SAD.Replace(sa)
}
