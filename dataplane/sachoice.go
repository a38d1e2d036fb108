package dataplane

import (
	"ipsecd/packet"
	"ipsecd/sad"
	"ipsecd/spd"
)

// outboundSA finds the SA for the one request of a policy that protects f; nil
// when there is none. A request in transport mode is between the packet's own
// ends, whether it names them or not.
func outboundSA(db *sad.DB, p *spd.Policy, f *packet.Flow) *sad.SA {
	r := &p.Requests[0]
	src, dst := f.Src, f.Dst
	if r.Src.IsValid() {
		src, dst = packet.AddrFrom(r.Src), packet.AddrFrom(r.Dst)
	}
	if r.Mode == spd.ModeTransport && (src != f.Src || dst != f.Dst) {
		return nil
	}
	return db.Outbound(r.Proto, sad.Mode(r.Mode), r.Reqid, (*[16]byte)(&src), (*[16]byte)(&dst))
}
