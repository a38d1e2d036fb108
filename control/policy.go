package control

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"syscall"

	"ipsecd/config"
	"ipsecd/pfkey"
	"ipsecd/spd"
)

func (e *Engine) addPolicy(s *Session, m *pfkey.Message) (replies, error) {
	return e.putPolicy(s, m, (*transaction).addPolicy)
}

func (e *Engine) updatePolicy(s *Session, m *pfkey.Message) (replies, error) {
	return e.putPolicy(s, m, (*transaction).replacePolicy)
}

// putPolicy stages the policy that m describes.
func (e *Engine) putPolicy(s *Session, m *pfkey.Message, stage func(*transaction, *spd.Policy) (old *spd.Policy, err error)) (replies, error) {
	p, err := e.newPolicy(m)
	if err != nil {
		return nil, err
	}
	err = e.change(s, func(t *transaction) error {
		old, err := stage(t, p)
		if err == nil {
			e.settleReqids(p, old)
		}
		return err
	})
	if err != nil {
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

// getPolicy answers with the policy that has the ID of m, as a dump shows it.
func (e *Engine) getPolicy(s *Session, m *pfkey.Message) (replies, error) {
	if m.Policy == nil {
		return nil, refuse(syscall.EINVAL, "the policy is missing, whose ID is asked for")
	}
	p := e.view(s).policies.Get(m.Policy.ID)
	if p == nil {
		return nil, refuse(syscall.ENOENT, "no policy has the ID %d", m.Policy.ID)
	}
	r := describePolicy(p)
	r.Type, r.Seq, r.PID = m.Type, m.Seq, m.PID
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
	sel := spd.Selector{Src: from, Dst: to, SrcPort: src.Port, DstPort: dst.Port, Proto: src.Proto}
	return sel, checkUpper(&sel)
}

// checkUpper refuses an upper-layer protocol that no packet of the selector's
// family has, and what its ports cannot be.
func checkUpper(sel *spd.Selector) error {
	v4 := sel.Src.Addr().Is4()
	switch {
	case sel.Proto == 0:
		return refuse(syscall.EINVAL, "the upper-layer protocol is 0; 255 is any")
	case sel.Proto == protoICMP && !v4, sel.Proto == protoICMPv6 && v4:
		return refuse(syscall.EINVAL, "no packet between these addresses is of %s; icmp is of IPv4, icmp6 of IPv6", config.UpperName(sel.Proto))
	case sel.Proto == protoICMP || sel.Proto == protoICMPv6:
		if sel.SrcPort > math.MaxUint8 || sel.DstPort > math.MaxUint8 {
			return refuse(syscall.EINVAL, "the ICMP type %d,%d is not right; each is at most 255", sel.SrcPort, sel.DstPort)
		}
	case !config.HasPorts(sel.Proto) && (sel.SrcPort != 0 || sel.DstPort != 0):
		return refuse(syscall.EINVAL, "ports do not go with %s", config.UpperName(sel.Proto))
	}
	return nil
}

// policyName is what names a policy, in the words of a setkey file.
func policyName(p *spd.Policy) string {
	sel := config.Selector{Src: p.Sel.Src, Dst: p.Sel.Dst, SrcPort: p.Sel.SrcPort, DstPort: p.Sel.DstPort, Upper: p.Sel.Proto}
	return fmt.Sprintf("%v -P %s", sel, dirName(p.Dir))
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

// newPolicy is the policy that an SPDADD or SPDUPDATE asks for.
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
		r, err := request(&m.Policy.Requests[i], sel)
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
			return refuse(syscall.EINVAL, "ipsec needs a rule, such as esp/tunnel/SRC-DST/require or esp/transport//require")
		}
		if len(p.Requests) > 1 {
			return refuse(syscall.EOPNOTSUPP, "%d rules in one policy are not supported; one is", len(p.Requests))
		}
		return nil
	}
	return refuse(syscall.EINVAL, "policy type %d; discard, none and ipsec are for spdadd", p.Type)
}

// nextPolicyID returns an ID that no policy has.
func (e *Engine) nextPolicyID() uint32 {
	for {
		e.lastPolicyID++
		if e.lastPolicyID != 0 && e.cfg.SPD.Get(e.lastPolicyID) == nil {
			return e.lastPolicyID
		}
	}
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
