// Package golden is the slow twin of package spd: the same database as one
// list, searched from its front by comparing addresses with prefixes. Tests
// hold spd to it. It is not safe for concurrent use.
package golden

import (
	"net/netip"
	"slices"

	"ipsecd/packet"
	"ipsecd/spd"
)

// List holds policies in the order in which they match, both directions mixed.
type List struct {
	policies []*spd.Policy
}

// Clone returns a list that changes apart from l.
func (l *List) Clone() *List { return &List{slices.Clone(l.policies)} }

// Add inserts p behind all that have its priority or a smaller one.
func (l *List) Add(p *spd.Policy) error {
	if l.index(p.Sel, p.Dir) >= 0 {
		return spd.ErrExists
	}
	i := len(l.policies)
	for i > 0 && l.policies[i-1].Priority > p.Priority {
		i--
	}
	l.policies = slices.Insert(l.policies, i, p)
	return nil
}

// Delete removes the policy with this selector and direction.
func (l *List) Delete(sel spd.Selector, dir spd.Dir) (*spd.Policy, error) {
	i := l.index(sel, dir)
	if i < 0 {
		return nil, spd.ErrNotFound
	}
	p := l.policies[i]
	l.policies = slices.Delete(l.policies, i, i+1)
	return p, nil
}

// Replace puts p where the policy with its selector and direction stands, if
// that has its priority, or else where Add would.
func (l *List) Replace(p *spd.Policy) *spd.Policy {
	i := l.index(p.Sel, p.Dir)
	if i < 0 {
		_ = l.Add(p)
		return nil
	}
	old := l.policies[i]
	if old.Priority == p.Priority {
		l.policies[i] = p
		return old
	}
	l.policies = slices.Delete(l.policies, i, i+1)
	_ = l.Add(p)
	return old
}

// Get returns the policy with this ID.
func (l *List) Get(id uint32) *spd.Policy {
	i := slices.IndexFunc(l.policies, func(p *spd.Policy) bool { return p.ID == id })
	if i < 0 {
		return nil
	}
	return l.policies[i]
}

// Flush removes all and returns how many there were.
func (l *List) Flush() int {
	n := len(l.policies)
	l.policies = nil
	return n
}

// All returns the policies, in before out, each in match order.
func (l *List) All() []*spd.Policy {
	var all []*spd.Policy
	for _, dir := range []spd.Dir{spd.In, spd.Out} {
		for _, p := range l.policies {
			if p.Dir == dir {
				all = append(all, p)
			}
		}
	}
	return all
}

// Lookup returns the first policy of dir that selects f.
func (l *List) Lookup(dir spd.Dir, f *packet.Flow) *spd.Policy {
	for _, p := range l.policies {
		if p.Dir == dir && selects(p, f) {
			return p
		}
	}
	return nil
}

func (l *List) index(sel spd.Selector, dir spd.Dir) int {
	return slices.IndexFunc(l.policies, func(p *spd.Policy) bool { return p.Sel == sel && p.Dir == dir })
}

func selects(p *spd.Policy, f *packet.Flow) bool {
	s := p.Sel
	if !s.Dst.Contains(addr(f.Dst, f.V)) || !s.Src.Contains(addr(f.Src, f.V)) {
		return false
	}
	if s.Proto != spd.ProtoAny && s.Proto != f.Proto {
		return p.Action == spd.IPsec && f.ProtoHidden()
	}
	if s.SrcPort == 0 && s.DstPort == 0 {
		return true
	}
	if f.Opaque {
		return p.Action == spd.IPsec
	}
	return (s.SrcPort == 0 || s.SrcPort == f.SrcPort) && (s.DstPort == 0 || s.DstPort == f.DstPort)
}

// addr is a flow's address in the form in which prefixes are compared, the zero
// Addr, which no prefix contains, for an unknown IP version.
func addr(a packet.Addr, v uint8) netip.Addr {
	switch v {
	case 4:
		return netip.AddrFrom16(a).Unmap()
	case 6:
		return netip.AddrFrom16(a)
	}
	return netip.Addr{}
}
