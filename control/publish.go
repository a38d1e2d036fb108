package control

import (
	"errors"
	"fmt"

	"ipsecd/sad"
)

// publish makes all of t seen by everybody, or nothing of it. SAs come before
// the policies that need them, and go behind the policies that needed them.
func (e *Engine) publish(t *transaction) error {
	err := t.sas.conflict()
	if err == nil {
		err = e.rebase(t)
	}
	if err != nil {
		t.sas.forget()
		return err
	}
	leaving := e.putSAs(&t.sas)
	err = e.publishPolicies(t)
	e.removeSAs(leaving)
	if t.sas.changed() {
		e.publishes++
	}
	return err
}

func (e *Engine) publishPolicies(t *transaction) error {
	if len(t.changes) == 0 {
		return nil
	}
	if !t.policies.Commit() {
		return errors.New("the policies were changed behind the engine's back")
	}
	e.spdPublishes++
	e.publishes++
	return nil
}

// putSAs makes all SAs of t live, each at once in the place of the one with its
// ID, and returns those that go.
func (e *Engine) putSAs(t *stagedSAs) (leaving []*sad.SA) {
	leaving = t.leaving()
	for _, sa := range leaving {
		e.keys.forget(sa)
	}
	for _, c := range t.changes {
		e.changeSA(c)
	}
	for _, sa := range t.order {
		if sa != nil {
			e.checkKey(sa)
			e.cfg.SAD.Replace(sa)
		}
	}
	return leaving
}

// changeSA does a change, unless it is that an SA goes.
func (e *Engine) changeSA(c change) {
	var err error
	switch c.to {
	case nil:
		return
	case c.saw:
		err = e.cfg.SAD.SetEncap(c.to.Spec().ID, c.encap)
	default:
		e.checkKey(c.to)
		err = e.cfg.SAD.Update(c.to)
	}
	if err != nil {
		e.cfg.Log.Error("an SA did not change", "sa", name(c.to.Spec().ID), "err", err)
	}
}

// checkKey warns of an SA that goes live with the key of another.
func (e *Engine) checkKey(sa *sad.SA) {
	if other, shared := e.keys.remember(sa); shared {
		e.cfg.Log.Warn("two SAs use the same key; give each its own", "sa", name(sa.Spec().ID), "other_spi", fmt.Sprintf("%#08x", other))
	}
}

// removeSAs deletes those of leaving that nothing took the place of.
func (e *Engine) removeSAs(leaving []*sad.SA) {
	for _, sa := range leaving {
		id := sa.Spec().ID
		if e.cfg.SAD.Get(id) != sa {
			continue
		}
		if _, err := e.cfg.SAD.Delete(id); err != nil {
			e.cfg.Log.Error("an SA did not go", "sa", name(id), "err", err)
		}
	}
}
