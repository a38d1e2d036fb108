package control

import (
	"math"
	"net/netip"
	"syscall"

	"ipsecd/crypto/alg"
	"ipsecd/pfkey"
	"ipsecd/sad"
)

// protoAny is IPSEC_ULPROTO_ANY, the protocol in the addresses of SAs.
const protoAny = 255

func (e *Engine) addSA(s *Session, m *pfkey.Message) (replies, error) {
	return e.putSA(s, m, (*stagedSAs).add)
}

// putSA stages the SA that m describes.
func (e *Engine) putSA(s *Session, m *pfkey.Message, stage func(*stagedSAs, *sad.SA) error) (replies, error) {
	spec, err := e.spec(m)
	if err != nil {
		return nil, err
	}
	sa, err := sad.NewSA(spec)
	if err != nil {
		return nil, err
	}
	err = e.change(s, func(t *transaction) error {
		err := stage(&t.sas, sa)
		if err != nil {
			giveUp(sa)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	r := reply(m)
	identify(r, &spec)
	return one(r), nil
}

func (e *Engine) getSA(s *Session, m *pfkey.Message) (replies, error) {
	id, src, err := saID(m)
	if err != nil {
		return nil, err
	}
	t := e.view(s)
	sa, err := t.sas.find(id, src)
	if err != nil {
		return nil, err
	}
	r := t.sas.describe(sa)
	r.Type, r.Seq, r.PID = m.Type, m.Seq, m.PID
	return one(r), nil
}

// deleteSA deletes the SA that m names, or, where m has no SA extension, all
// SAs between its addresses, of which there may be none.
func (e *Engine) deleteSA(s *Session, m *pfkey.Message) (replies, error) {
	r := reply(m)
	r.SA, r.Src, r.Dst = m.SA, m.Src, m.Dst
	if m.SA == nil {
		src, dst, err := saEnds(m)
		if err != nil {
			return nil, err
		}
		return one(r), e.change(s, func(t *transaction) error { return t.sas.deletePair(src, dst) })
	}
	id, src, err := saID(m)
	if err != nil {
		return nil, err
	}
	return one(r), e.change(s, func(t *transaction) error { return t.sas.delete(id, src) })
}

func (e *Engine) flushSAs(s *Session, m *pfkey.Message) (replies, error) {
	covered, err := coversESP(m.SAType)
	if err != nil || !covered {
		return one(reply(m)), err
	}
	return one(reply(m)), e.change(s, func(t *transaction) error { return t.sas.flush() })
}

func (e *Engine) dumpSAs(s *Session, m *pfkey.Message) (replies, error) {
	covered, err := coversESP(m.SAType)
	if err != nil {
		return nil, err
	}
	if !covered {
		return nil, errEmpty
	}
	t := e.view(s)
	return dump(m, t.sas.all(), t.sas.describe)
}

// checkESP refuses SA types that name no protocol, or one that there are no SAs
// of.
func checkESP(satype uint8) error {
	switch satype {
	case pfkey.SATypeESP:
		return nil
	case pfkey.SATypeAH, pfkey.SATypeIPComp, pfkey.SATypeTCP:
		return refuse(syscall.EPROTONOSUPPORT, "of the protocols only esp is supported")
	}
	return refuse(syscall.EINVAL, "SA type %d names no protocol; esp does", satype)
}

// coversESP reports whether a flush or dump of satype means the SAs of ESP.
func coversESP(satype uint8) (bool, error) {
	switch satype {
	case pfkey.SATypeUnspec, pfkey.SATypeESP:
		return true, nil
	case pfkey.SATypeAH, pfkey.SATypeIPComp, pfkey.SATypeTCP:
		return false, nil
	}
	return false, refuse(syscall.EINVAL, "SA type %d is unknown", satype)
}

// saEnds returns the source and destination of the SAs that m is about.
func saEnds(m *pfkey.Message) (src, dst netip.Addr, err error) {
	if err := checkESP(m.SAType); err != nil {
		return src, dst, err
	}
	if m.Src == nil || m.Dst == nil {
		return src, dst, refuse(syscall.EINVAL, "source or destination is missing")
	}
	src, dst = m.Src.Addr, m.Dst.Addr
	return src, dst, checkEnds(src, dst)
}

// checkEnds refuses addresses that an outer header cannot have.
func checkEnds(src, dst netip.Addr) error {
	for _, a := range []netip.Addr{src, dst} {
		if a.Is4In6() {
			return refuse(syscall.EINVAL, "%v is an IPv4 address in IPv6 form; write %v", a, a.Unmap())
		}
		if !a.IsValid() || a.IsUnspecified() {
			return refuse(syscall.EINVAL, "%v is the address of no host", a)
		}
		if a.IsMulticast() {
			return refuse(syscall.EOPNOTSUPP, "the multicast address %v is not supported; give the address of a host", a)
		}
	}
	if src.Is4() != dst.Is4() {
		return refuse(syscall.EINVAL, "%v and %v are of two address families", src, dst)
	}
	return nil
}

// saID returns the name of the SA that m is about, and its source.
func saID(m *pfkey.Message) (sad.ID, netip.Addr, error) {
	src, dst, err := saEnds(m)
	if err != nil {
		return sad.ID{}, src, err
	}
	if m.SA == nil {
		return sad.ID{}, src, refuse(syscall.EINVAL, "the SPI is missing")
	}
	return sad.ID{SPI: m.SA.SPI, Proto: sad.ProtoESP, Dst: dst}, src, nil
}

// identify fills in SA, SA2, SRC and DST.
func identify(m *pfkey.Message, spec *sad.Spec) {
	m.SAType = pfkey.SATypeESP
	m.SA = &pfkey.SA{
		SPI:    spec.SPI,
		Replay: uint8(min(spec.Replay/8, math.MaxUint8)),
		State:  pfkey.StateMature,
		Auth:   spec.Auth,
		Enc:    spec.Enc,
		Flags:  spec.Flags,
	}
	m.SA2 = &pfkey.SA2{Mode: uint8(spec.Mode), Reqid: spec.Reqid}
	m.Src = hostAddress(spec.Src)
	m.Dst = hostAddress(spec.Dst)
}

func hostAddress(a netip.Addr) *pfkey.Address {
	return &pfkey.Address{Proto: protoAny, PrefixLen: uint8(a.BitLen()), Addr: a}
}

// describe is all that GET and DUMP tell of an SA, keys included. One that went
// meanwhile, and has none any more, is dead.
func describe(sa *sad.SA, encap sad.Encap) *pfkey.Message {
	spec, usage := sa.Spec(), sa.Usage()
	m := &pfkey.Message{Reserved: 1}
	identify(m, spec)
	m.SA2.Sequence = uint32(usage.Seq)
	m.Replay = &spec.Replay
	m.Current = &pfkey.Lifetime{
		Allocations: uint32(min(usage.Packets, math.MaxUint32)),
		Bytes:       usage.Bytes,
		AddTime:     uint64(spec.Created),
		UseTime:     uint64(usage.FirstUse),
	}
	enc, auth := sa.Keys()
	if len(enc)+len(auth) == 0 {
		m.SA.State = pfkey.StateDead
	}
	m.EncKey, m.AuthKey = key(spec.Enc == alg.NullEnc, enc), key(false, auth)
	if encap != (sad.Encap{}) {
		m.NATT = &pfkey.NATT{Type: pfkey.TypeNATT, SrcPort: encap.SrcPort, DstPort: encap.DstPort}
	}
	return m
}

// key is the extension of a key, nil where there is none, unless the algorithm
// has keys of no bits.
func key(empty bool, data []byte) *pfkey.Key {
	if len(data) == 0 && !empty {
		return nil
	}
	return &pfkey.Key{Bits: uint16(8 * len(data)), Data: data}
}
