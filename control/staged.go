package control

import (
	"cmp"
	"net/netip"
	"slices"
	"syscall"

	"ipsecd/pfkey"
	"ipsecd/sad"
)

// stagedSAs is the SAD as one transaction would leave it: what is live, less
// what was flushed, with the changes to single SAs, plus what was added. What
// others change in live shows through, and hides what was staged against the SA
// that was there before.
type stagedSAs struct {
	live    *sad.DB
	flushed bool
	changes map[sad.ID]change // to SAs of live; empty once flushed
	added   map[sad.ID]int    // place in order
	order   []*sad.SA         // as added; nil where it was deleted again
	between map[ends][]int    // places in order, also of what was deleted again
}

// change is what becomes of an SA of live.
type change struct {
	saw   *sad.SA   // that the change was made to
	to    *sad.SA   // takes its place; saw itself where the ports alone change, nil where it goes
	encap sad.Encap // where the ports alone change
}

// ends are the addresses of an SA.
type ends struct{ src, dst netip.Addr }

func (t *stagedSAs) changed() bool { return t.flushed || len(t.changes)+len(t.added) > 0 }

// shown is what t has in the place of an SA of live, nil where it goes.
func (t *stagedSAs) shown(live *sad.SA) *sad.SA {
	if live == nil || t.flushed {
		return nil
	}
	if c := t.changes[live.Spec().ID]; c.saw == live {
		return c.to
	}
	return live
}

func (t *stagedSAs) get(id sad.ID) *sad.SA {
	if i, ok := t.added[id]; ok {
		return t.order[i]
	}
	return t.shown(t.live.Get(id))
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
	if c := t.changes[sa.Spec().ID]; c.to == sa && c.saw == sa {
		return c.encap
	}
	return sa.Encap()
}

func (t *stagedSAs) all() []*sad.SA {
	var out []*sad.SA
	for live := range t.live.All() {
		if _, hidden := t.added[live.Spec().ID]; hidden {
			continue // another session's, which came later
		}
		if sa := t.shown(live); sa != nil {
			out = append(out, sa)
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
func (t *stagedSAs) room() int { return maxStaged - len(t.order) - len(t.changes) }

func (t *stagedSAs) add(sa *sad.SA) error {
	id := sa.Spec().ID
	if t.get(id) != nil {
		return sad.ErrExists
	}
	if t.room() <= 0 {
		return errTooMuch
	}
	if t.live.Get(id) == nil {
		t.drop(id)
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

// change has an SA of live become another, or go.
func (t *stagedSAs) change(id sad.ID, to *sad.SA, encap sad.Encap) error {
	if _, again := t.changes[id]; !again && t.room() <= 0 {
		return errTooMuch
	}
	t.drop(id)
	if t.changes == nil {
		t.changes = make(map[sad.ID]change)
	}
	t.changes[id] = change{t.live.Get(id), to, encap}
	return nil
}

// drop forgets the change to an ID, if there is one.
func (t *stagedSAs) drop(id sad.ID) {
	t.changes[id].forget()
	delete(t.changes, id)
}

// delete removes the SA with this ID if it comes from src.
func (t *stagedSAs) delete(id sad.ID, src netip.Addr) error {
	if _, err := t.find(id, src); err != nil {
		return err
	}
	if i, ok := t.added[id]; ok {
		t.unstage(i)
		return nil
	}
	return t.change(id, nil, sad.Encap{})
}

// unstage takes back the addition at a place in order.
func (t *stagedSAs) unstage(i int) {
	sa := t.order[i]
	delete(t.added, sa.Spec().ID)
	giveUp(sa)
	t.order[i] = nil
}

// replace puts sa in the place of the SA with its ID and source.
func (t *stagedSAs) replace(sa *sad.SA) error {
	id, src := sa.Spec().ID, sa.Spec().Src
	if _, err := t.find(id, src); err != nil {
		return err
	}
	if i, ok := t.added[id]; ok {
		giveUp(t.order[i])
		t.order[i] = sa
		return nil
	}
	return t.change(id, sa, sad.Encap{})
}

// move gives an SA of t, which is encapsulated, other ports.
func (t *stagedSAs) move(sa *sad.SA, encap sad.Encap) error {
	id := sa.Spec().ID
	if t.encap(sa) == (sad.Encap{}) {
		return refuse(syscall.EINVAL, "the SA is not encapsulated in UDP, and an update without keys cannot make it so; "+
			"give the keys again to replace it")
	}
	if t.live.Get(id) == sa {
		return t.change(id, sa, encap)
	}
	again, err := withEncap(sa, encap)
	if err != nil {
		return err
	}
	return t.replace(again)
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
		if t.order[i] != nil {
			t.unstage(i)
		}
	}
	delete(t.between, pair)
	for sa := range t.live.Pair(sad.ProtoESP, src, dst) {
		if t.shown(sa) == nil {
			continue
		}
		if err := t.change(sa.Spec().ID, nil, sad.Encap{}); err != nil {
			return err
		}
	}
	return nil
}

func (t *stagedSAs) flush() error {
	t.forget()
	*t = stagedSAs{live: t.live, flushed: true}
	return nil
}

// forget wipes the keys of what was staged and will not be published.
func (t *stagedSAs) forget() {
	for _, sa := range t.order {
		giveUp(sa)
	}
	for _, c := range t.changes {
		c.forget()
	}
}

func (c change) forget() {
	if c.to != c.saw {
		giveUp(c.to)
	}
}

// giveUp wipes the keys of an SA that no database took, unless it is nil.
func giveUp(sa *sad.SA) {
	if sa != nil {
		sa.Suite.Wipe()
	}
}

// conflict fails when another session's SA stands where one is to be added, or
// when the SA that a change was made to is another now, or gone. Of several such
// SAs the error names the least.
func (t *stagedSAs) conflict() error {
	if t.flushed {
		return nil
	}
	var ids []sad.ID
	for id := range t.added {
		if t.clash(id) != nil {
			ids = append(ids, id)
		}
	}
	for id := range t.changes {
		if t.clash(id) != nil {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	return t.clash(slices.MinFunc(ids, func(a, b sad.ID) int {
		return cmp.Or(a.Dst.Compare(b.Dst), cmp.Compare(a.SPI, b.SPI))
	}))
}

// clash is nil when what t does about an ID can be done to live.
func (t *stagedSAs) clash(id sad.ID) error {
	live, c := t.live.Get(id), t.changes[id]
	errno, other, mine := syscall.EEXIST, "replaced", "changes"
	switch {
	case live == c.saw, live == nil && c.to == nil:
		return nil
	case live == nil:
		errno, other = syscall.ENOENT, "removed"
	case c.saw == nil:
		other, mine = "added", "adds"
	}
	return refuse(errno, "another session %s the SA with SPI %#x to %v that this transaction %s; nothing is installed", other, id.SPI, id.Dst, mine)
}

// leaving are the SAs of live that go, replaced or not.
func (t *stagedSAs) leaving() []*sad.SA {
	if t.flushed {
		return slices.Collect(t.live.All())
	}
	var out []*sad.SA
	for id, c := range t.changes {
		if c.to != c.saw && t.live.Get(id) == c.saw {
			out = append(out, c.saw)
		}
	}
	return out
}
