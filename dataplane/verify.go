package dataplane

import (
	"ipsecd/packet"
	"ipsecd/sad"
	"ipsecd/spd"
)

// verify says whether a packet of flow f that came out of sa in a mode is what
// the inbound policy p for it wants (RFC 4301 5.2 step 4). No policy, or one that
// says none, accepts it, as FreeBSD does; but in transport mode an SA speaks for
// its own ends alone, and one of any mode is a tunnel only where a policy asks for
// that: else IP in IP would be the way round its ends.
func verify(p *spd.Policy, sa *sad.SA, mode sad.Mode, f *packet.Flow) packet.Drop {
	switch {
	case mode == sad.ModeTransport && f.Src != sa.Src:
		return packet.PolicyClash
	case mode == sad.ModeTunnel && sa.Spec().Mode == sad.ModeAny && (p == nil || p.Action != spd.IPsec):
		return packet.PolicyClash
	case p == nil || p.Action == spd.None:
		return packet.Kept
	case p.Action == spd.Discard:
		return packet.PolicyDiscard
	case satisfies(sa, mode, &p.Requests[0]):
		return packet.Kept
	}
	return packet.PolicyClash
}

// satisfies compares an SA, and the mode that a packet came in, with a request:
// protocol, mode, the ends where the request names them, and the reqid where it
// has one.
func satisfies(sa *sad.SA, mode sad.Mode, r *spd.Request) bool {
	s := sa.Spec()
	ends := !r.Src.IsValid() || s.Src == r.Src.Unmap() && s.Dst == r.Dst.Unmap()
	return s.Proto == r.Proto && mode == sad.Mode(r.Mode) && ends && (r.Reqid == 0 || s.Reqid == r.Reqid)
}
