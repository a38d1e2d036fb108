package control

import (
	"syscall"

	"ipsecd/crypto/alg"
	"ipsecd/pfkey"
	"ipsecd/sad"
)

const (
	// minSPI: the SPIs below are reserved (RFC 4303 section 2.1).
	minSPI = 256

	// maxReplay is the widest replay window, in packets.
	maxReplay = 8 * 32768

	// knownFlags are the flags that an SA may have.
	knownFlags = pfkey.FlagCycSeq | pfkey.FlagPad | pfkey.FlagESN
)

// spec is the SA that an ADD, or an UPDATE with keys, asks for. Algorithms and key sizes are left to
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
		ESN:     m.SA.Flags&pfkey.FlagESN != 0,
		PID:     m.PID,
		Seq:     m.Seq,
		Created: e.cfg.Now().Unix(),
	}
	if m.SA2 != nil {
		spec.Mode, spec.Reqid = sad.Mode(m.SA2.Mode), m.SA2.Reqid
	}
	if spec.Pad, err = padding(m.SA.Flags); err != nil {
		return spec, err
	}
	if spec.Replay, err = replayWindow(m); err != nil {
		return spec, err
	}
	if spec.Encap, err = e.encap(m, spec.Mode); err != nil {
		return spec, err
	}
	spec.EncKey, spec.AuthKey, err = keys(m)
	return spec, err
}

// checkSupported refuses what no SA of ours can be.
func checkSupported(m *pfkey.Message) error {
	if m.SA.SPI < minSPI {
		return refuse(syscall.EINVAL, "SPI %d is reserved; the first free one is %d", m.SA.SPI, minSPI)
	}
	if m.SA.State > pfkey.StateMature {
		return refuse(syscall.EINVAL, "an SA cannot begin in state %d", m.SA.State)
	}
	if other := m.SA.Flags &^ knownFlags; other != 0 {
		return refuse(syscall.EOPNOTSUPP, "SA flags %#x are not supported", other)
	}
	if m.Hard != nil || m.Soft != nil {
		return refuse(syscall.EOPNOTSUPP, "lifetimes are not supported")
	}
	if m.SA2 != nil && m.SA2.Mode > pfkey.ModeTunnel {
		return refuse(syscall.EINVAL, "mode %d is unknown", m.SA2.Mode)
	}
	return nil
}

func padding(flags uint32) (sad.Padding, error) {
	switch flags & pfkey.FlagPad {
	case pfkey.FlagPadRandom:
		return sad.PadRandom, nil
	case pfkey.FlagPadZero:
		return sad.PadZero, nil
	case 0:
		return sad.PadSequential, nil
	}
	return 0, refuse(syscall.EINVAL, "padding is either random or zero")
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

// encap returns the encapsulation that m asks for. The original addresses that
// may come with it serve checksums in transport mode (RFC 3948 section 3.1.2),
// which mode any may come to: a tunnel has no use for them, and to repair
// checksums is not supported.
func (e *Engine) encap(m *pfkey.Message, mode sad.Mode) (sad.Encap, error) {
	if mode != sad.ModeTunnel && (m.OAI != nil || m.OAR != nil) {
		return sad.Encap{}, refuse(syscall.EOPNOTSUPP,
			"original addresses (-natt) are supported in tunnel mode alone; give -m tunnel, or the ports alone, as esp-udp does")
	}
	n := m.NATT
	if n == nil {
		return sad.Encap{}, nil
	}
	if n.Type != pfkey.TypeNATT {
		return sad.Encap{}, refuse(syscall.EINVAL, "UDP encapsulation of type %d is unknown; ESP in UDP is %d", n.Type, pfkey.TypeNATT)
	}
	if n.SrcPort == 0 || n.DstPort == 0 {
		return sad.Encap{}, refuse(syscall.EINVAL, "UDP encapsulation needs both ports")
	}
	if e.cfg.NATTPort == 0 {
		return sad.Encap{}, refuse(syscall.EINVAL, "encapsulation in UDP is switched off (--natt 0)")
	}
	if n.SrcPort != e.cfg.NATTPort && n.DstPort != e.cfg.NATTPort {
		return sad.Encap{}, refuse(syscall.EINVAL, "neither of the ports %d and %d is this host's: the encapsulation port is %d, see --natt",
			n.SrcPort, n.DstPort, e.cfg.NATTPort)
	}
	return sad.Encap{SrcPort: n.SrcPort, DstPort: n.DstPort}, nil
}

// keys returns the octets of both keys of m, nil where there is none. The
// cipher null alone needs none.
func keys(m *pfkey.Message) (enc, auth []byte, err error) {
	if m.EncKey == nil && m.SA.Enc != alg.NullEnc {
		return nil, nil, refuse(syscall.EINVAL, "an esp SA needs an encryption algorithm and its key (-E)")
	}
	if enc, err = octets(m.EncKey); err != nil {
		return nil, nil, err
	}
	auth, err = octets(m.AuthKey)
	return enc, auth, err
}

func octets(k *pfkey.Key) ([]byte, error) {
	if k == nil {
		return nil, nil
	}
	if k.Bits%8 != 0 || len(k.Data) != int(k.Bits/8) {
		return nil, refuse(syscall.EINVAL, "a key of %d bits is not whole octets", k.Bits)
	}
	return k.Data, nil
}
