// Package spd is the Security Policy Database: ordered policies, and the first
// of them that selects a flow (RFC 4301 4.4.1). "First" is by priority, then by
// insertion; a longer prefix has no precedence.
//
// The database is immutable snapshots behind one atomic pointer. Readers
// (Lookup, Get, Generation, All, Len) run concurrently with each other and with
// writers, take no lock, and Lookup does not allocate. A writer works on a Txn
// of its own, which no reader sees before Commit publishes all of it at once; a
// change copies the path to what it changes, some dozens of small nodes,
// whatever the size of the database. Old snapshots are left to the collector.
//
// A policy belongs to the Txn that it was added to, and from Commit on to the
// database. It may be added again only when that Txn was given up.
package spd

import (
	"errors"
	"iter"
	"sync/atomic"
)

// ErrInvalid is Add's answer to a policy that no flow could find: its direction
// is neither In nor Out, or its prefixes are not masked and of one family.
var ErrInvalid = errors.New("policy without a valid direction and selector")

// DB is the database. Make one with New; it must not be copied.
type DB struct {
	state atomic.Pointer[state]
}

// state is one snapshot.
type state struct {
	in, out table
	seq     uint64 // of the next policy
}

// table is what one direction holds.
type table struct {
	v4, v6     *dstTrie
	ordered    *node[*Policy] // all of it, by order
	byID       *node[*Policy] // all of it
	len        int
	generation uint64
}

// New returns an empty database.
func New() *DB {
	db := new(DB)
	db.state.Store(new(state))
	return db
}

func (s *state) table(dir Dir) *table {
	if dir == In {
		return &s.in
	}
	return &s.out
}

func (s *state) get(id uint32) *Policy {
	if p := s.in.byID.get(idKey(id), idLen); p != nil {
		return p
	}
	return s.out.byID.get(idKey(id), idLen)
}

func (s *state) all() iter.Seq[*Policy] {
	return func(yield func(*Policy) bool) {
		_ = s.in.ordered.walk(yield) && s.out.ordered.walk(yield)
	}
}

// Generation returns a number that changes whenever a commit changes dir.
//
// Who keeps what Lookup returned takes the generation first and looks up then:
// a commit between the two leaves a fresh policy under an old generation, which
// costs one lookup more; the other way round a stale policy would pass for a
// fresh one.
func (db *DB) Generation(dir Dir) uint64 {
	return db.state.Load().table(dir).generation
}

// Len returns the number of policies in both directions.
func (db *DB) Len() int {
	s := db.state.Load()
	return s.in.len + s.out.len
}

// Get returns the policy with this ID, or nil. Its cost is logarithmic in the
// number of policies.
func (db *DB) Get(id uint32) *Policy { return db.state.Load().get(id) }

// All yields the policies of the moment it is called, in before out, in the
// order in which they match.
func (db *DB) All() iter.Seq[*Policy] { return db.state.Load().all() }
