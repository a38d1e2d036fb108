package spd

import (
	"encoding/binary"
	"net/netip"

	"ipsecd/packet"
)

// A direction's policies of one family stand in three tries, one inside the
// other: by destination prefix, by source prefix, and by upper layer. Equal
// selectors cannot stand side by side, so the innermost holds one policy a key.
type (
	upperTrie = node[*Policy]
	srcTrie   = node[*upperTrie]
	dstTrie   = node[*srcTrie]
)

// upperLen is the length of an upper-layer key: protocol and two ports, whose
// wildcards stand in it as they do in the selector.
const upperLen = 8 + 16 + 16

func upperKey(proto uint8, srcPort, dstPort uint16) key {
	return key{hi: uint64(proto)<<56 | uint64(srcPort)<<40 | uint64(dstPort)<<24}
}

func prefixKey(p netip.Prefix) (key, uint8) {
	return addrKey(packet.AddrFrom(p.Addr()), p.Addr().Is4()), uint8(p.Bits())
}

func addrKey(a packet.Addr, v4 bool) key {
	if v4 {
		return key{hi: uint64(binary.BigEndian.Uint32(a[12:])) << 32}
	}
	return key{binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(a[8:])}
}

// Lookup returns the first policy in order that selects f, or nil when none
// does; an f.V other than 4 or 6 is selected by none.
//
// Where f is Opaque, its ports are unknown. A policy without ports judges it as
// any other flow. A policy with ports selects it only when the action is IPsec:
// the fragment may belong to a flow that this policy protects, and must not
// pass in clear because its ports cannot be seen. None and Discard with ports
// leave it to the policies behind them, since to guess there would let through,
// or lose, fragments of other flows. The same goes for the protocol where that
// cannot be seen either (packet.Flow.ProtoHidden).
//
// It takes no lock and does not allocate. Its cost grows with the number of
// prefixes in the table that hold f's addresses, at worst the product of both
// chains, and is logarithmic in the number of policies beside them; an opaque
// flow pays in addition for each policy with ports that it has to step over.
func (db *DB) Lookup(dir Dir, f *packet.Flow) *Policy {
	s := search{flow: f, first: last}
	t := db.state.Load().table(dir)
	switch f.V {
	case 4:
		s.addrs(t.v4, addrKey(f.Dst, true), addrKey(f.Src, true))
	case 6:
		s.addrs(t.v6, addrKey(f.Dst, false), addrKey(f.Src, false))
	}
	return s.found
}

// search is a lookup under way: the earliest match so far and its order.
type search struct {
	flow  *packet.Flow
	found *Policy
	first order
}

// addrs visits each pair of prefixes that holds both addresses, but for
// subtrees in which nothing comes before the match.
func (s *search) addrs(t *dstTrie, dst, src key) {
	for d := t; d != nil && d.first.before(s.first) && common(d.key, dst) >= d.len; d = d.child[dst.bit(d.len)] {
		for n := d.val; n != nil && n.first.before(s.first) && common(n.key, src) >= n.len; n = n.child[src.bit(n.len)] {
			if n.val != nil {
				s.upper(n.val)
			}
		}
	}
}

// upper visits what stands at one pair of prefixes.
func (s *search) upper(t *upperTrie) {
	f := s.flow
	if f.Opaque {
		s.opaque(t)
		return
	}
	for _, proto := range [2]uint8{ProtoAny, f.Proto} {
		s.exact(t, upperKey(proto, 0, 0))
		s.exact(t, upperKey(proto, f.SrcPort, 0))
		s.exact(t, upperKey(proto, 0, f.DstPort))
		s.exact(t, upperKey(proto, f.SrcPort, f.DstPort))
	}
}

// exact takes the policy at k, if it comes before the match.
func (s *search) exact(t *upperTrie, k key) {
	for t != nil && t.first.before(s.first) && common(t.key, k) >= t.len {
		if t.len == upperLen {
			s.found, s.first = t.val, t.first
			return
		}
		t = t.child[k.bit(t.len)]
	}
}

// opaque takes the earliest policy that selects the flow whatever its ports.
func (s *search) opaque(t *upperTrie) {
	if t == nil || !t.first.before(s.first) {
		return
	}
	if p := t.val; p != nil {
		if p.selectsOpaque(s.flow) {
			s.found, s.first = p, t.first
		}
		return
	}
	s.opaque(t.child[0])
	s.opaque(t.child[1])
}

func (p *Policy) selectsOpaque(f *packet.Flow) bool {
	if p.Sel.Proto != ProtoAny && p.Sel.Proto != f.Proto {
		return p.Action == IPsec && f.ProtoHidden()
	}
	return p.Action == IPsec || p.Sel.SrcPort == 0 && p.Sel.DstPort == 0
}
