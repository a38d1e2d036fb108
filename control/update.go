package control

import (
	"syscall"

	"ipsecd/pfkey"
	"ipsecd/sad"
)

// updateSA changes the SA that m names. With keys it replaces it by the one that
// an ADD of m would add.
func (e *Engine) updateSA(s *Session, m *pfkey.Message) (replies, error) {
	if m.EncKey != nil || m.AuthKey != nil {
		return e.putSA(s, m, (*stagedSAs).replace)
	}
	return e.moveSA(s, m)
}

// moveSA changes the ports of an encapsulated SA, whose peer moved behind a NAT
// (RFC 7296 section 2.23).
func (e *Engine) moveSA(s *Session, m *pfkey.Message) (replies, error) {
	id, src, err := saID(m)
	if err != nil {
		return nil, err
	}
	if err := checkSupported(m); err != nil {
		return nil, err
	}
	t := e.view(s)
	sa, err := t.sas.find(id, src)
	if err != nil {
		return nil, err
	}
	spec := sa.Spec()
	if err := checkUnchanged(m, spec); err != nil {
		return nil, err
	}
	encap, err := e.encap(m, spec.Mode)
	if err != nil {
		return nil, err
	}
	r := reply(m)
	identify(r, spec)
	if m.NATT == nil {
		return one(r), nil
	}
	return one(r), e.change(s, func(t *transaction) error { return t.sas.move(sa, encap) })
}

// checkUnchanged refuses an UPDATE without keys that says of an SA what it is
// not. What is zero says nothing.
func checkUnchanged(m *pfkey.Message, spec *sad.Spec) error {
	window, err := replayWindow(m)
	if err != nil {
		return err
	}
	var sa2 pfkey.SA2
	if m.SA2 != nil {
		sa2 = *m.SA2
	}
	pad := m.SA.Flags & pfkey.FlagPad
	switch {
	case sa2.Mode != pfkey.ModeAny && sa2.Mode != uint8(spec.Mode):
		return fixed("mode")
	case sa2.Reqid != 0 && sa2.Reqid != spec.Reqid:
		return fixed("request id")
	case window != 0 && window != spec.Replay:
		return fixed("replay window")
	case pad != 0 && pad != spec.Flags&pfkey.FlagPad:
		return fixed("padding")
	case m.SA.Flags&pfkey.FlagESN != 0 && !spec.ESN:
		return fixed("ESN")
	case m.SA.Enc != 0 && m.SA.Enc != spec.Enc, m.SA.Auth != 0 && m.SA.Auth != spec.Auth:
		return fixed("algorithms")
	}
	return nil
}

func fixed(what string) error {
	return refuse(syscall.EINVAL, "an update without keys changes the ports of UDP encapsulation, not %s; "+
		"give the keys again to replace the SA", what)
}
