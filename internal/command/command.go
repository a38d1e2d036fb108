// Package command turns statements of the setkey language into PF_KEY
// messages. It holds no state and talks to nobody; sequence number and pid are
// left to whoever sends. The messages share the key octets of the statements.
package command

import (
	"fmt"
	"math"
	"net/netip"

	"ipsecd/config"
	"ipsecd/pfkey"
)

const (
	protoESP = 50
	// ulprotoAny stands in the addresses of SAs, which are of no upper-layer
	// protocol.
	ulprotoAny = 255
)

// Message is the message that carries out a statement. The error is about a
// statement that the parser cannot have made.
func Message(s config.Statement) (*pfkey.Message, error) {
	switch s := s.(type) {
	case config.Add:
		return add(pfkey.ADD, s)
	case config.Update:
		return add(pfkey.UPDATE, s.Add)
	case config.Get:
		return said(pfkey.GET, s.SAID)
	case config.Delete:
		return said(pfkey.DELETE, s.SAID)
	case config.DeleteAll:
		return pair(pfkey.DELETE, s.SAID)
	case config.Flush:
		return ofType(pfkey.FLUSH, s.Proto)
	case config.Dump:
		return ofType(pfkey.DUMP, s.Proto)
	case config.SPDAdd:
		return spdadd(pfkey.SPDADD, s)
	case config.SPDUpdate:
		return spdadd(pfkey.SPDUPDATE, s.SPDAdd)
	case config.SPDDelete:
		return policy(pfkey.SPDDELETE, s.Sel, &pfkey.Policy{Dir: uint8(s.Dir)}), nil
	case config.SPDFlush:
		return &pfkey.Message{Type: pfkey.SPDFLUSH}, nil
	case config.SPDDump:
		return &pfkey.Message{Type: pfkey.SPDDUMP}, nil
	}
	return nil, fmt.Errorf("no message carries out a %T", s)
}

func saType(p config.Proto) (uint8, error) {
	switch p {
	case config.ProtoAny:
		return pfkey.SATypeUnspec, nil
	case config.ProtoESP, config.ProtoESPUDP:
		return pfkey.SATypeESP, nil
	}
	return 0, fmt.Errorf("no SA type for the protocol %v", p)
}

func ofType(typ uint8, p config.Proto) (*pfkey.Message, error) {
	sa, err := saType(p)
	return &pfkey.Message{Type: typ, SAType: sa}, err
}

// pair names all SAs between two addresses.
func pair(typ uint8, id config.SAID) (*pfkey.Message, error) {
	m, err := ofType(typ, id.Proto)
	m.Src, m.Dst = host(id.Src), host(id.Dst)
	return m, err
}

func said(typ uint8, id config.SAID) (*pfkey.Message, error) {
	m, err := pair(typ, id)
	m.SA = &pfkey.SA{SPI: id.SPI, State: pfkey.StateMature}
	return m, err
}

func host(a netip.Addr) *pfkey.Address {
	return &pfkey.Address{Proto: ulprotoAny, PrefixLen: uint8(a.BitLen()), Addr: a}
}

func add(typ uint8, s config.Add) (*pfkey.Message, error) {
	m, err := said(typ, s.SAID)
	if err != nil {
		return nil, err
	}
	mode, err := modeNumber(s.Mode)
	if err != nil {
		return nil, err
	}
	m.SA.Replay = uint8(min(s.Replay, math.MaxUint8))
	m.SA.Enc, m.SA.Auth = s.Enc, s.Auth
	if m.SA.Flags, err = flags(s); err != nil {
		return nil, err
	}
	m.SA2 = &pfkey.SA2{Mode: mode, Reqid: s.Reqid}
	packets := 8 * s.Replay
	m.Replay = &packets
	m.EncKey, m.AuthKey = key(s.Enc, s.EncKey), key(s.Auth, s.AuthKey)
	if s.NATT != nil {
		encapsulate(m, s.NATT)
	}
	return m, nil
}

func modeNumber(m config.Mode) (uint8, error) {
	switch m {
	case config.ModeAny:
		return pfkey.ModeAny, nil
	case config.ModeTransport:
		return pfkey.ModeTransport, nil
	case config.ModeTunnel:
		return pfkey.ModeTunnel, nil
	}
	return 0, fmt.Errorf("no number for the mode %v", m)
}

// flags are those of an SA. Numbers that cycle are never asked for.
func flags(s config.Add) (flags uint32, err error) {
	if s.ESN {
		flags = pfkey.FlagESN
	}
	switch s.Pad {
	case config.PadSequential:
		return flags, nil
	case config.PadRandom:
		return flags | pfkey.FlagPadRandom, nil
	case config.PadZero:
		return flags | pfkey.FlagPadZero, nil
	}
	return 0, fmt.Errorf("no flag for the padding %v", s.Pad)
}

// key is the key of an algorithm; one that has none gets a key of no bits.
func key(algorithm uint8, k config.Key) *pfkey.Key {
	if algorithm == 0 {
		return nil
	}
	return &pfkey.Key{Bits: uint16(8 * len(k)), Data: k}
}

func encapsulate(m *pfkey.Message, n *config.NATT) {
	m.NATT = &pfkey.NATT{Type: pfkey.TypeNATT, SrcPort: n.SrcPort, DstPort: n.DstPort}
	if n.OAI.IsValid() {
		m.OAI = host(n.OAI)
	}
	if n.OAR.IsValid() {
		m.OAR = host(n.OAR)
	}
}

// policy names a policy by its selector and direction.
func policy(typ uint8, sel config.Selector, p *pfkey.Policy) *pfkey.Message {
	return &pfkey.Message{
		Type:   typ,
		Src:    side(sel.Src, sel.SrcPort, sel.Upper),
		Dst:    side(sel.Dst, sel.DstPort, sel.Upper),
		Policy: p,
	}
}

func side(p netip.Prefix, port uint16, upper uint8) *pfkey.Address {
	return &pfkey.Address{Proto: upper, PrefixLen: uint8(p.Bits()), Addr: p.Addr(), Port: port}
}

func spdadd(typ uint8, s config.SPDAdd) (*pfkey.Message, error) {
	p := &pfkey.Policy{Type: uint16(s.Action), Dir: uint8(s.Dir)}
	for _, r := range s.Rules {
		req, err := request(r)
		if err != nil {
			return nil, err
		}
		p.Requests = append(p.Requests, req)
	}
	return policy(typ, s.Sel, p), nil
}

func request(r config.Rule) (pfkey.Request, error) {
	if r.Proto != config.ProtoESP {
		return pfkey.Request{}, fmt.Errorf("no rule is of the protocol %v", r.Proto)
	}
	mode, err := modeNumber(r.Mode)
	return pfkey.Request{
		Proto: protoESP,
		Mode:  mode,
		Level: uint8(r.Level),
		Reqid: r.Reqid,
		Src:   r.Src,
		Dst:   r.Dst,
	}, err
}
