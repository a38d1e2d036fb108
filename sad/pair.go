package sad

import (
	"iter"
	"net/netip"
	"slices"
)

// The SAs from one address to another, a pair, are a chain from the newest to
// the oldest by SA.older; the table of pairs has the newest. Readers walk it
// without a lock while one writer changes it:
//
//   - An SA that leaves the chain keeps its older: a reader that stands on it
//     comes to all that are older and still there.
//   - New ones come in front, where a reader may have passed already. That matters
//     to one that finds nothing: what it was to find may have left the chain
//     before it came there, because a newer one had taken its place. The
//     generation advances between the two, so it looks again when that changed.
//   - One that is updated gives its place to the new one, which has the same older,
//     in one step: a reader comes to one of the two. One that came by SAs that
//     left before may find the old one, and look again as above if it does not suit.

// Outbound finds the SA that a policy's request is to use: from src to dst, of
// the protocol, of the mode or of any, with the reqid unless that is 0. Of
// several the newest is taken (net.key.preferred_oldsa=0). It returns nil when
// there is none.
func (db *DB) Outbound(proto uint8, mode Mode, reqid uint32, src, dst *[16]byte) *SA {
	for {
		before := db.gen.Load()
		for sa := db.newest(proto, src, dst); sa != nil; sa = sa.older.Load() {
			if (sa.spec.Mode == mode || sa.spec.Mode == ModeAny) && (reqid == 0 || sa.spec.Reqid == reqid) {
				return sa
			}
		}
		if db.gen.Load() == before {
			return nil
		}
	}
}

// Pair yields the SAs of a protocol from src to dst that there were at the call,
// newest first.
func (db *DB) Pair(proto uint8, src, dst netip.Addr) iter.Seq[*SA] {
	from, to := src.As16(), dst.As16()
	db.mu.Lock()
	defer db.mu.Unlock()
	var sas []*SA
	for sa := db.newest(proto, &from, &to); sa != nil; sa = sa.older.Load() {
		sas = append(sas, sa)
	}
	return slices.Values(sas)
}

// newest returns the first of the chain, nil when there is no SA.
func (db *DB) newest(proto uint8, src, dst *[16]byte) *SA {
	tag := db.pairTag(proto, src, dst)
	t := db.pairs.Load()
	sa, i := t.find(tag, tag)
	for sa != nil && (sa.spec.Proto != proto || sa.Src != *src || sa.Dst != *dst) {
		sa, i = t.find(tag, i)
	}
	return sa
}

func (db *DB) pairTag(proto uint8, src, dst *[16]byte) uint64 {
	return db.hash(uint64(proto), 0, src, dst)
}

// chain puts a new SA in front of its pair, then advances the generation: before
// anything is unchained for its sake.
func (db *DB) chain(sa *SA) {
	defer db.gen.Add(1)
	tag := db.pairTag(sa.spec.Proto, &sa.Src, &sa.Dst)
	front := db.newest(sa.spec.Proto, &sa.Src, &sa.Dst)
	if front == nil {
		insert(&db.pairs, tag, sa)
		return
	}
	sa.older.Store(front)
	front.newer = sa
	db.pairs.Load().swap(tag, front, sa)
}

// rechain puts sa in the place of old, of the same pair. The caller advances the
// generation.
func (db *DB) rechain(old, sa *SA) {
	older := old.older.Load()
	sa.older.Store(older)
	if older != nil {
		older.newer = sa
	}
	sa.newer = old.newer
	if sa.newer != nil {
		sa.newer.older.Store(sa)
	} else {
		db.pairs.Load().swap(db.pairTag(sa.spec.Proto, &sa.Src, &sa.Dst), old, sa)
	}
	old.newer = nil
}

// unchain takes an SA out of its pair.
func (db *DB) unchain(sa *SA) {
	tag := db.pairTag(sa.spec.Proto, &sa.Src, &sa.Dst)
	older := sa.older.Load()
	if older != nil {
		older.newer = sa.newer
	}
	switch {
	case sa.newer != nil:
		sa.newer.older.Store(older)
	case older != nil:
		db.pairs.Load().swap(tag, sa, older)
	default:
		db.pairs.Load().remove(tag, sa)
	}
	sa.newer = nil
}
