package control

import (
	"math"
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
	case r.Mode != pfkey.ModeTunnel && r.Mode != pfkey.ModeTransport:
		return refuse(syscall.EINVAL, "mode %d is unknown; a rule's is tunnel or transport", r.Mode)
	case r.Level == pfkey.LevelUse:
		return refuse(syscall.EOPNOTSUPP, "level use is not supported; require is")
	case r.Level > pfkey.LevelUnique:
		return refuse(syscall.EINVAL, "level %d is unknown", r.Level)
	case r.Reqid > maxManualReqid:
		return refuse(syscall.EINVAL, "reqid %d is too large; at most %d", r.Reqid, maxManualReqid)
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
// packet of the selector has.
func checkTransport(r *pfkey.Request, sel spd.Selector) error {
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
