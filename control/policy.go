package control

import (
	"errors"
	"math"
	"net/netip"
	"slices"
	"syscall"

	"ipsecd/pfkey"
	"ipsecd/sad"
	"ipsecd/spd"
)

// maxManualReqid is IPSEC_MANUAL_REQID_MAX: people give reqids up to it, the
// engine gives those above.
const maxManualReqid = 16383

// IP protocol numbers that a request may have where ipsecd will learn them.
const (
	protoAH     = 51
	protoIPComp = 108
)

func (e *Engine) addPolicy(s *Session, m *pfkey.Message) (replies, error) {
	p, err := e.newPolicy(m)
	if err != nil {
		return nil, err
	}
	if err := e.change(s, func(t *transaction) error { return t.addPolicy(p) }); err != nil {
		return nil, err
	}
	r := describePolicy(p)
	r.Type, r.Seq, r.PID, r.Reserved = m.Type, m.Seq, m.PID, 0
	return one(r), nil
}

func (e *Engine) deletePolicy(s *Session, m *pfkey.Message) (replies, error) {
	sel, dir, err := policyID(m)
	if err != nil {
		return nil, err
	}
	var p *spd.Policy
	err = e.change(s, func(t *transaction) error {
		p, err = t.deletePolicy(sel, dir)
		return err
	})
	if errors.Is(err, spd.ErrNotFound) {
		return nil, refuse(syscall.EINVAL, "no %s policy has this selector", dirName(dir))
	}
	if err != nil {
		return nil, err
	}
	r := describePolicy(p)
	r.Type, r.Seq, r.PID, r.Reserved = m.Type, m.Seq, m.PID, 0
	return one(r), nil
}

func (e *Engine) flushPolicies(s *Session, m *pfkey.Message) (replies, error) {
	return one(reply(m)), e.change(s, (*transaction).flushPolicies)
}

func (e *Engine) dumpPolicies(s *Session, m *pfkey.Message) (replies, error) {
	return dump(m, slices.Collect(e.view(s).policies.All()), describePolicy)
}

// policyID returns what names the policy that m is about.
func policyID(m *pfkey.Message) (spd.Selector, spd.Dir, error) {
	if m.Src == nil || m.Dst == nil || m.Policy == nil {
		return spd.Selector{}, 0, refuse(syscall.EINVAL, "source, destination or policy is missing")
	}
	dir := spd.Dir(m.Policy.Dir)
	if dir != spd.In && dir != spd.Out {
		return spd.Selector{}, 0, refuse(syscall.EINVAL, "direction %d is neither in nor out", dir)
	}
	sel, err := selector(m.Src, m.Dst)
	return sel, dir, err
}

func selector(src, dst *pfkey.Address) (spd.Selector, error) {
	if src.Proto != dst.Proto {
		return spd.Selector{}, refuse(syscall.EINVAL, "source and destination name different protocols, %d and %d", src.Proto, dst.Proto)
	}
	from, err := prefix(src)
	if err != nil {
		return spd.Selector{}, err
	}
	to, err := prefix(dst)
	if err != nil {
		return spd.Selector{}, err
	}
	if from.Addr().Is4() != to.Addr().Is4() {
		return spd.Selector{}, refuse(syscall.EINVAL, "%v and %v are of two address families", from, to)
	}
	return spd.Selector{Src: from, Dst: to, SrcPort: src.Port, DstPort: dst.Port, Proto: src.Proto}, nil
}

func prefix(a *pfkey.Address) (netip.Prefix, error) {
	if a.Addr.Is4In6() {
		return netip.Prefix{}, refuse(syscall.EINVAL, "%v is an IPv4 address in IPv6 form; write %v", a.Addr, a.Addr.Unmap())
	}
	p, err := a.Addr.Prefix(int(a.PrefixLen))
	if err != nil {
		return p, refuse(syscall.EINVAL, "%v/%d: the prefix is at most /%d", a.Addr, a.PrefixLen, a.Addr.BitLen())
	}
	return p, nil
}

// newPolicy is the policy that an SPDADD asks for.
func (e *Engine) newPolicy(m *pfkey.Message) (*spd.Policy, error) {
	sel, dir, err := policyID(m)
	if err != nil {
		return nil, err
	}
	if m.Hard != nil || m.Soft != nil {
		return nil, refuse(syscall.EOPNOTSUPP, "lifetimes of policies are not supported")
	}
	if err := checkAction(m.Policy); err != nil {
		return nil, err
	}
	p := &spd.Policy{
		Dir:      dir,
		Sel:      sel,
		Action:   spd.Action(m.Policy.Type),
		Priority: m.Policy.Priority,
		Created:  e.cfg.Now().Unix(),
	}
	for i := range m.Policy.Requests {
		r, err := e.request(&m.Policy.Requests[i], sel)
		if err != nil {
			return nil, err
		}
		p.Requests = append(p.Requests, r)
	}
	p.ID = e.nextPolicyID()
	return p, nil
}

func checkAction(p *pfkey.Policy) error {
	switch p.Type {
	case pfkey.PolicyDiscard, pfkey.PolicyNone:
		if len(p.Requests) > 0 {
			return refuse(syscall.EINVAL, "discard and none take no rules")
		}
		return nil
	case pfkey.PolicyIPsec:
		if len(p.Requests) == 0 {
			return refuse(syscall.EINVAL, "ipsec needs a rule, such as esp/tunnel/SRC-DST/require")
		}
		if len(p.Requests) > 1 {
			return refuse(syscall.EOPNOTSUPP, "%d rules in one policy are not supported; one is", len(p.Requests))
		}
		return nil
	}
	return refuse(syscall.EINVAL, "policy type %d; discard, none and ipsec are for spdadd", p.Type)
}

// request is the transform that r asks for in a policy with selector sel.
func (e *Engine) request(r *pfkey.Request, sel spd.Selector) (spd.Request, error) {
	if err := checkRequest(r, sel); err != nil {
		return spd.Request{}, err
	}
	out := spd.Request{
		Proto: uint8(r.Proto),
		Mode:  spd.Mode(r.Mode),
		Level: spd.Level(r.Level),
		Reqid: r.Reqid,
		Src:   r.Src,
		Dst:   r.Dst,
	}
	if out.Level == spd.LevelUnique && out.Reqid == 0 {
		out.Reqid = e.nextReqid()
	}
	return out, nil
}

func checkRequest(r *pfkey.Request, sel spd.Selector) error {
	switch {
	case r.Proto == protoAH || r.Proto == protoIPComp:
		return refuse(syscall.EPROTONOSUPPORT, "of the protocols only esp is supported")
	case r.Proto != uint16(sad.ProtoESP):
		return refuse(syscall.EPROTONOSUPPORT, "protocol %d transforms nothing; esp does", r.Proto)
	case r.Mode == pfkey.ModeTransport:
		return refuse(syscall.EOPNOTSUPP, "transport mode is not supported; tunnel is")
	case r.Mode != pfkey.ModeTunnel:
		return refuse(syscall.EINVAL, "mode %d is unknown; a rule's is tunnel", r.Mode)
	case !r.Src.IsValid() || !r.Dst.IsValid():
		return refuse(syscall.EINVAL, "tunnel mode needs both ends: esp/tunnel/SRC-DST/require")
	case r.Level == pfkey.LevelUse:
		return refuse(syscall.EOPNOTSUPP, "level use is not supported; require is")
	case r.Level > pfkey.LevelUnique:
		return refuse(syscall.EINVAL, "level %d is unknown", r.Level)
	case r.Reqid > maxManualReqid:
		return refuse(syscall.EINVAL, "reqid %d is too large; at most %d", r.Reqid, maxManualReqid)
	}
	if err := checkEnds(r.Src, r.Dst); err != nil {
		return err
	}
	if r.Src.Is4() != sel.Src.Addr().Is4() {
		return refuse(syscall.EOPNOTSUPP, "a tunnel between %v and %v cannot carry %v: IPv4 in IPv6, and IPv6 in IPv4, are not supported", r.Src, r.Dst, sel.Src)
	}
	return nil
}

// nextPolicyID returns an ID that no policy has had since 2^32 of them.
func (e *Engine) nextPolicyID() uint32 {
	e.lastPolicyID++
	if e.lastPolicyID == 0 {
		e.lastPolicyID = 1
	}
	return e.lastPolicyID
}

// nextReqid returns the reqid of a level unique that names none, above those
// that people give; like the kernels' it begins again after 2^16 - 1.
func (e *Engine) nextReqid() uint32 {
	if e.lastAutoReqid == math.MaxUint16 {
		e.lastAutoReqid = maxManualReqid
	}
	e.lastAutoReqid++
	return uint32(e.lastAutoReqid)
}

// describePolicy is all that SPDDUMP tells of a policy.
func describePolicy(p *spd.Policy) *pfkey.Message {
	m := &pfkey.Message{
		Reserved: 1,
		Src:      selectorAddress(p.Sel.Src, p.Sel.SrcPort, p.Sel.Proto),
		Dst:      selectorAddress(p.Sel.Dst, p.Sel.DstPort, p.Sel.Proto),
		Policy: &pfkey.Policy{
			Type:     uint16(p.Action),
			Dir:      uint8(p.Dir),
			ID:       p.ID,
			Priority: p.Priority,
		},
	}
	for _, r := range p.Requests {
		m.Policy.Requests = append(m.Policy.Requests, pfkey.Request{
			Proto: uint16(r.Proto),
			Mode:  uint8(r.Mode),
			Level: uint8(r.Level),
			Reqid: r.Reqid,
			Src:   r.Src,
			Dst:   r.Dst,
		})
	}
	return m
}

func selectorAddress(p netip.Prefix, port uint16, proto uint8) *pfkey.Address {
	return &pfkey.Address{Proto: proto, PrefixLen: uint8(p.Bits()), Addr: p.Addr(), Port: port}
}

func dirName(d spd.Dir) string {
	if d == spd.In {
		return "in"
	}
	return "out"
}
