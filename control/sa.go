package control

import (
	"math"
	"net/netip"
	"syscall"

	"ipsecd/pfkey"
	"ipsecd/sad"
)

const (
	// minSPI: the SPIs below are reserved (RFC 4303 section 2.1).
	minSPI = 256

	// maxReplay is the widest replay window, in packets.
	maxReplay = 8 * 32768

	// protoAny is IPSEC_ULPROTO_ANY, the protocol in the addresses of SAs.
	protoAny = 255
)

func (e *Engine) addSA(s *Session, m *pfkey.Message) (replies, error) {
	spec, err := e.spec(m)
	if err != nil {
		return nil, err
	}
	sa, err := sad.NewSA(spec)
	if err != nil {
		return nil, err
	}
	if err := e.change(s, func(t *transaction) error { return t.sas.add(sa) }); err != nil {
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
	sa := e.view(s).sas.get(id)
	if sa == nil || sa.Spec().Src != src {
		return nil, sad.ErrNotFound
	}
	r := describe(sa)
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
	return dump(m, e.view(s).sas.all(), describe)
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

// spec is the SA that an ADD asks for. Algorithms and key sizes are left to
// sad.NewSA.
func (e *Engine) spec(m *pfkey.Message) (sad.Spec, error) {
	id, src, err := saID(m)
	if err != nil {
		return sad.Spec{}, err
	}
	if err := checkSupported(m); err != nil {
		return sad.Spec{}, err
	}
	spec := sad.Spec{
		ID:      id,
		Src:     src,
		Enc:     m.SA.Enc,
		Auth:    m.SA.Auth,
		Flags:   m.SA.Flags,
		PID:     m.PID,
		Seq:     m.Seq,
		Created: e.cfg.Now().Unix(),
	}
	if m.SA2 != nil {
		spec.Mode, spec.Reqid = sad.Mode(m.SA2.Mode), m.SA2.Reqid
	}
	if spec.Replay, err = replayWindow(m); err != nil {
		return spec, err
	}
	if spec.Encap, err = e.encap(m.NATT); err != nil {
		return spec, err
	}
	spec.EncKey, spec.AuthKey, err = keys(m)
	return spec, err
}

// checkSupported refuses an ADD of what no SA of ours can be.
func checkSupported(m *pfkey.Message) error {
	if m.SA.SPI < minSPI {
		return refuse(syscall.EINVAL, "SPI %d is reserved; the first free one is %d", m.SA.SPI, minSPI)
	}
	if m.SA.State > pfkey.StateMature {
		return refuse(syscall.EINVAL, "an SA cannot begin in state %d", m.SA.State)
	}
	if m.SA.Flags&pfkey.FlagESN != 0 {
		return refuse(syscall.EOPNOTSUPP, "extended sequence numbers are not supported")
	}
	if other := m.SA.Flags &^ pfkey.FlagCycSeq; other != 0 {
		return refuse(syscall.EOPNOTSUPP, "SA flags %#x are not supported", other)
	}
	if m.Hard != nil || m.Soft != nil {
		return refuse(syscall.EOPNOTSUPP, "lifetimes are not supported")
	}
	if m.SA2 == nil {
		return nil
	}
	switch m.SA2.Mode {
	case pfkey.ModeAny, pfkey.ModeTunnel:
		return nil
	case pfkey.ModeTransport:
		return refuse(syscall.EOPNOTSUPP, "transport mode is not supported; tunnel is")
	}
	return refuse(syscall.EINVAL, "mode %d is unknown", m.SA2.Mode)
}

// replayWindow returns the window that m asks for, in packets.
func replayWindow(m *pfkey.Message) (uint32, error) {
	window := 8 * uint32(m.SA.Replay)
	if m.Replay != nil {
		window = *m.Replay
	}
	if window > maxReplay {
		return 0, refuse(syscall.EINVAL, "a replay window of %d packets is too wide; at most %d (-r %d)", window, maxReplay, maxReplay/8)
	}
	return window, nil
}

// encap returns the encapsulation that n asks for. The original addresses that
// may come with it serve checksums in transport mode alone (RFC 3948 section
// 3.1.2), so a tunnel has no use for them.
func (e *Engine) encap(n *pfkey.NATT) (sad.Encap, error) {
	if n == nil {
		return sad.Encap{}, nil
	}
	if n.Type != pfkey.TypeNATT {
		return sad.Encap{}, refuse(syscall.EINVAL, "UDP encapsulation of type %d is unknown; ESP in UDP is %d", n.Type, pfkey.TypeNATT)
	}
	if n.SrcPort == 0 || n.DstPort == 0 {
		return sad.Encap{}, refuse(syscall.EINVAL, "UDP encapsulation needs both ports")
	}
	if n.SrcPort != e.cfg.NATTPort && n.DstPort != e.cfg.NATTPort {
		return sad.Encap{}, refuse(syscall.EINVAL, "neither of the ports %d and %d is this host's: the encapsulation port is %d, see --natt",
			n.SrcPort, n.DstPort, e.cfg.NATTPort)
	}
	return sad.Encap{SrcPort: n.SrcPort, DstPort: n.DstPort}, nil
}

// keys returns the octets of both keys of m, nil where there is none.
func keys(m *pfkey.Message) (enc, auth []byte, err error) {
	if m.EncKey == nil {
		return nil, nil, refuse(syscall.EINVAL, "an esp SA needs an encryption algorithm and its key (-E)")
	}
	if enc, err = octets(m.EncKey); err != nil || m.AuthKey == nil {
		return enc, nil, err
	}
	auth, err = octets(m.AuthKey)
	return enc, auth, err
}

func octets(k *pfkey.Key) ([]byte, error) {
	if k.Bits%8 != 0 || len(k.Data) != int(k.Bits/8) {
		return nil, refuse(syscall.EINVAL, "a key of %d bits is not whole octets", k.Bits)
	}
	return k.Data, nil
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

// describe is all that GET and DUMP tell of an SA, keys included.
func describe(sa *sad.SA) *pfkey.Message {
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
	m.EncKey, m.AuthKey = key(spec.EncKey), key(spec.AuthKey)
	if spec.Encap != (sad.Encap{}) {
		m.NATT = &pfkey.NATT{Type: pfkey.TypeNATT, SrcPort: spec.Encap.SrcPort, DstPort: spec.Encap.DstPort}
	}
	return m
}

func key(data []byte) *pfkey.Key {
	if len(data) == 0 {
		return nil
	}
	return &pfkey.Key{Bits: uint16(8 * len(data)), Data: data}
}
