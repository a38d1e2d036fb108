package dataplane

import (
	"ipsecd/packet"
	"ipsecd/sad"
	"ipsecd/spd"
)

// verify says whether a packet that came out of sa is what the inbound policy
// p for it wants (RFC 4301 5.2 step 4). No policy, or one that says none,
// accepts it, as KAME does.
func verify(p *spd.Policy, sa *sad.SA) packet.Drop {
	switch {
	case p == nil || p.Action == spd.None:
		return packet.Kept
	case p.Action == spd.Discard:
		return packet.PolicyDiscard
	case satisfies(sa.Spec(), &p.Requests[0]):
		return packet.Kept
	}
	return packet.PolicyClash
}

// satisfies compares an SA with a request: protocol, mode, the tunnel's ends,
// and the reqid where the request has one.
func satisfies(s *sad.Spec, r *spd.Request) bool {
	return s.Proto == r.Proto &&
		(s.Mode == sad.ModeAny || s.Mode == sad.Mode(r.Mode)) &&
		s.Src == r.Src.Unmap() && s.Dst == r.Dst.Unmap() &&
		(r.Reqid == 0 || s.Reqid == r.Reqid)
}
