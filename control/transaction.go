package control

import (
	"errors"
	"fmt"
	"syscall"

	"ipsecd/pfkey"
	"ipsecd/spd"
)

// maxStaged bounds the changes that one transaction holds.
const maxStaged = 2_000_000

var errTooMuch = refused{syscall.ENOBUFS, fmt.Sprintf("a transaction holds at most %d changes; commit first", maxStaged)}

// transaction is changes on their way to be published, with Engine.mu held
// whenever it is used. A request outside of BEGIN and COMMIT is a transaction of
// its own.
type transaction struct {
	sas      stagedSAs
	policies *spd.Txn
	changes  []policyChange // what policies has had done to it
	base     uint64         // Engine.spdPublishes that policies began from
}

// policyChange is one change to the SPD, to be done again on another base.
type policyChange func(*spd.Txn) error

func (e *Engine) begin() *transaction {
	return &transaction{sas: stagedSAs{live: e.cfg.SAD}, policies: e.cfg.SPD.Begin(), base: e.spdPublishes}
}

// view is what the session sees: its transaction, or what is published.
func (e *Engine) view(s *Session) *transaction {
	if s.txn != nil {
		return s.txn
	}
	return e.begin()
}

// change stages a change, and publishes it unless a transaction is open.
func (e *Engine) change(s *Session, stage func(*transaction) error) error {
	t := e.view(s)
	if err := stage(t); err != nil || s.txn != nil {
		return err
	}
	return e.publish(t)
}

// forget gives up the transaction that is open, if one is.
func (s *Session) forget() {
	if s.txn != nil {
		s.txn.sas.forget()
		s.txn = nil
	}
}

func (e *Engine) beginTransaction(s *Session, m *pfkey.Message) (replies, error) {
	if s.txn != nil {
		return nil, refuse(syscall.EBUSY, "a transaction is open on this socket already")
	}
	s.txn = e.begin()
	return one(reply(m)), nil
}

func (e *Engine) commitTransaction(s *Session, m *pfkey.Message) (replies, error) {
	t := s.txn
	if t == nil {
		return nil, errNoTransaction
	}
	s.txn = nil
	return one(reply(m)), e.publish(t)
}

func (e *Engine) abortTransaction(s *Session, m *pfkey.Message) (replies, error) {
	if s.txn == nil {
		return nil, errNoTransaction
	}
	s.forget()
	return one(reply(m)), nil
}

var errNoTransaction = refused{syscall.EINVAL, "no transaction is open on this socket"}

// rebase does t's policy changes again, on what others published since t began,
// and gives up the Txn that they were done in before.
func (e *Engine) rebase(t *transaction) error {
	if t.base == e.spdPublishes || len(t.changes) == 0 {
		return nil
	}
	fresh := e.cfg.SPD.Begin()
	for _, change := range t.changes {
		if err := change(fresh); err != nil {
			return err
		}
	}
	t.policies, t.base = fresh, e.spdPublishes
	return nil
}

// remember keeps a change that was done to t.policies.
func (t *transaction) remember(change policyChange) { t.changes = append(t.changes, change) }

func (t *transaction) full() bool { return len(t.changes) >= maxStaged }

// addPolicy takes the place of no other policy, and so returns nil for it.
func (t *transaction) addPolicy(p *spd.Policy) (old *spd.Policy, err error) {
	if t.full() {
		return nil, errTooMuch
	}
	if err := t.policies.Add(p); err != nil {
		return nil, err
	}
	t.remember(func(txn *spd.Txn) error {
		err := txn.Add(p)
		if errors.Is(err, spd.ErrExists) {
			return refuse(syscall.EEXIST, "another session added the policy %s that this transaction adds; nothing is installed", policyName(p))
		}
		return err
	})
	return nil, nil
}

// replacePolicy puts p in the place of the policy with its selector and
// direction, which it returns, or adds it where there is none.
func (t *transaction) replacePolicy(p *spd.Policy) (old *spd.Policy, err error) {
	if t.full() {
		return nil, errTooMuch
	}
	if old, err = t.policies.Replace(p); err != nil {
		return nil, err
	}
	t.remember(func(txn *spd.Txn) error {
		_, err := txn.Replace(p)
		return err
	})
	return old, nil
}

func (t *transaction) deletePolicy(sel spd.Selector, dir spd.Dir) (*spd.Policy, error) {
	if t.full() {
		return nil, errTooMuch
	}
	p, err := t.policies.Delete(sel, dir)
	if err != nil {
		return nil, err
	}
	t.remember(func(txn *spd.Txn) error {
		_, err := txn.Delete(sel, dir)
		if errors.Is(err, spd.ErrNotFound) {
			return nil // another session deleted it too
		}
		return err
	})
	return p, nil
}

// flushPolicies also drops the changes before it, which it undoes.
func (t *transaction) flushPolicies() error {
	t.policies.Flush()
	t.changes = []policyChange{func(txn *spd.Txn) error {
		txn.Flush()
		return nil
	}}
	return nil
}
