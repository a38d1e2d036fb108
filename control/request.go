package control

import (
	"math"
	"slices"
	"syscall"

	"ipsecd/config"
	"ipsecd/pfkey"
	"ipsecd/sad"
	"ipsecd/spd"
)

// maxManualReqid is IPSEC_MANUAL_REQID_MAX: people give reqids up to it, the
// engine gives those above.
const maxManualReqid = 16383

// IP protocol numbers: those of ICMP, and those that a request may have where
// ipsecd will learn them.
const (
	protoICMP   = 1
	protoICMPv6 = 58
	protoAH     = 51
	protoIPComp = 108
)

// request is the transform that r asks for in a policy with selector sel. A
// reqid counts at level unique alone; see settleReqids.
func request(r *pfkey.Request, sel spd.Selector) (spd.Request, error) {
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
	if out.Level != spd.LevelUnique {
		out.Reqid = 0
	}
	return out, nil
}

// settleReqids gives each level unique of p a reqid of its own, unless it has
// one that people give, or one that the policy in whose place p comes had.
func (e *Engine) settleReqids(p, old *spd.Policy) {
	for i := range p.Requests {
		r := &p.Requests[i]
		if r.Level == spd.LevelUnique && (r.Reqid == 0 || r.Reqid > maxManualReqid && !hasReqid(old, r.Reqid)) {
			r.Reqid = e.nextReqid()
		}
	}
}

func hasReqid(p *spd.Policy, id uint32) bool {
	return p != nil && slices.ContainsFunc(p.Requests, func(r spd.Request) bool { return r.Reqid == id })
}

func checkRequest(r *pfkey.Request, sel spd.Selector) error {
	switch {
	case r.Proto == protoAH || r.Proto == protoIPComp:
		return refuse(syscall.EPROTONOSUPPORT, "of the protocols only esp is supported")
	case r.Proto != uint16(sad.ProtoESP):
		return refuse(syscall.EPROTONOSUPPORT, "protocol %d transforms nothing; esp does", r.Proto)
	case r.Mode != pfkey.ModeTunnel && r.Mode != pfkey.ModeTransport:
		return refuse(syscall.EINVAL, "mode %d is unknown; a rule's is tunnel or transport", r.Mode)
	case r.Level == pfkey.LevelUse:
		return refuse(syscall.EOPNOTSUPP, "level use is not supported; require is")
	case r.Level > pfkey.LevelUnique:
		return refuse(syscall.EINVAL, "level %d is unknown", r.Level)
	}
	if r.Mode == pfkey.ModeTransport {
		return checkTransport(r, sel)
	}
	if !r.Src.IsValid() || !r.Dst.IsValid() {
		return refuse(syscall.EINVAL, "tunnel mode needs both ends: esp/tunnel/SRC-DST/require")
	}
	return checkEnds(r.Src, r.Dst)
}

// checkTransport refuses ends of transport mode, which may be missing, that no
// packet of the selector has, and a selector of multicast, which no SA has.
func checkTransport(r *pfkey.Request, sel spd.Selector) error {
	if config.AllMulticast(sel.Src) || config.AllMulticast(sel.Dst) {
		return refuse(syscall.EOPNOTSUPP, "transport mode of multicast (%v to %v) is not supported", sel.Src, sel.Dst)
	}
	if !r.Src.IsValid() && !r.Dst.IsValid() {
		return nil
	}
	if err := checkEnds(r.Src, r.Dst); err != nil {
		return err
	}
	if sel.Src.Contains(r.Src) && sel.Dst.Contains(r.Dst) {
		return nil
	}
	return refuse(syscall.EINVAL, "in transport mode packets keep their addresses, and none from %v to %v has %v and %v; "+
		"leave them out (esp/transport//require), or give a host of each", sel.Src, sel.Dst, r.Src, r.Dst)
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
