package config

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"

	"ipsecd/crypto/alg"
)

// Format is a statement as text, for people and logs: keys are replaced by
// their length.
func Format(s Statement) string {
	return string(printer{key: hideKey}.statement(nil, s))
}

// Append appends a statement as text that Parse reads back, keys included,
// ended by `;` and no newline.
func Append(dst []byte, s Statement) []byte {
	return printer{key: appendKey}.statement(dst, s)
}

func hideKey(b []byte, k Key) []byte { return fmt.Appendf(b, "(%v)", k) }

func appendKey(b []byte, k Key) []byte { return hex.AppendEncode(append(b, "0x"...), k) }

type printer struct {
	key func([]byte, Key) []byte
}

func (p printer) statement(b []byte, s Statement) []byte {
	switch s := s.(type) {
	case Add:
		b = p.add(append(b, "add "...), s)
	case Update:
		b = p.add(append(b, "update "...), s.Add)
	case Get:
		b = appendSPI(appendSAID(b, "get", s.SAID), s.SPI)
	case Delete:
		b = appendSPI(appendSAID(b, "delete", s.SAID), s.SPI)
	case DeleteAll:
		b = appendSAID(b, "deleteall", s.SAID)
	case Flush:
		b = appendProto(append(b, "flush"...), s.Proto)
	case Dump:
		b = appendProto(append(b, "dump"...), s.Proto)
	case SPDFlush:
		b = append(b, "spdflush"...)
	case SPDDump:
		b = append(b, "spddump"...)
	case SPDAdd:
		b = appendSPDAdd(b, "spdadd", s)
	case SPDUpdate:
		b = appendSPDAdd(b, "spdupdate", s.SPDAdd)
	case SPDDelete:
		b = appendPolicyHead(b, "spddelete", s.Sel, s.Dir)
	default:
		panic(fmt.Sprintf("config: %T is no statement", s))
	}
	return append(b, ';')
}

func (p printer) add(b []byte, s Add) []byte {
	ported := s.NATT != nil && !s.NATT.OAI.IsValid()
	b = s.Src.AppendTo(b)
	if ported {
		b = appendPort(b, s.NATT.SrcPort)
	}
	b = s.Dst.AppendTo(append(b, ' '))
	if ported {
		b = appendPort(b, s.NATT.DstPort)
	}
	b = appendSPI(appendProto(b, s.Proto), s.SPI)
	if s.Mode != ModeAny {
		b = append(append(b, " -m "...), s.Mode.String()...)
	}
	b = appendNumber(b, " -r ", s.Replay)
	b = appendNumber(b, " -u ", s.Reqid)
	if s.Pad != PadSequential {
		b = append(append(b, " -f "...), s.Pad.String()...)
	}
	if s.ESN {
		b = append(b, " -esn"...)
	}
	if s.NATT != nil && !ported {
		b = appendPort(s.NATT.OAI.AppendTo(append(b, " -natt "...)), s.NATT.SrcPort)
		b = appendPort(s.NATT.OAR.AppendTo(append(b, ' ')), s.NATT.DstPort)
	}
	if s.Enc != 0 {
		b = p.algorithm(b, " -E ", alg.Enc, s.Enc, s.EncKey)
	}
	if s.Auth != alg.NullAuth {
		b = p.algorithm(b, " -A ", alg.Auth, s.Auth, s.AuthKey)
	}
	return b
}

func (p printer) algorithm(b []byte, opt string, k alg.Kind, id uint8, key Key) []byte {
	b = append(b, opt...)
	if a := alg.ByID(k, id); a != nil {
		b = append(b, a.Name...)
	} else {
		b = strconv.AppendUint(b, uint64(id), 10)
	}
	if len(key) == 0 {
		return b
	}
	return p.key(append(b, ' '), key)
}

func appendSAID(b []byte, verb string, id SAID) []byte {
	b = append(append(b, verb...), ' ')
	b = id.Src.AppendTo(b)
	b = id.Dst.AppendTo(append(b, ' '))
	return appendProto(b, id.Proto)
}

func appendSPI(b []byte, spi uint32) []byte { return fmt.Appendf(b, " %#x", spi) }

func appendPort(b []byte, port uint16) []byte { return fmt.Appendf(b, "[%d]", port) }

func appendProto(b []byte, proto Proto) []byte {
	if proto == ProtoAny {
		return b
	}
	return append(append(b, ' '), proto.String()...)
}

func appendNumber(b []byte, opt string, n uint32) []byte {
	if n == 0 {
		return b
	}
	return strconv.AppendUint(append(b, opt...), uint64(n), 10)
}

func appendPolicyHead(b []byte, verb string, sel Selector, dir Dir) []byte {
	b = appendSelector(append(append(b, verb...), ' '), sel)
	return append(append(b, " -P "...), dir.String()...)
}

// String is the selector as a statement has it.
func (s Selector) String() string { return string(appendSelector(nil, s)) }

func appendSelector(b []byte, sel Selector) []byte {
	b = appendSide(b, sel.Src, sel, sel.SrcPort)
	b = appendSide(append(b, ' '), sel.Dst, sel, sel.DstPort)
	b = append(append(b, ' '), UpperName(sel.Upper)...)
	if !HasPorts(sel.Upper) && sel.SrcPort != 0 {
		b = fmt.Appendf(b, " %d,%d", sel.SrcPort, sel.DstPort)
	}
	return b
}

func appendSide(b []byte, prefix netip.Prefix, sel Selector, port uint16) []byte {
	b = prefix.AppendTo(b)
	if port == 0 || !HasPorts(sel.Upper) {
		return b
	}
	return appendPort(b, port)
}

func appendSPDAdd(b []byte, verb string, s SPDAdd) []byte {
	b = appendPolicyHead(b, verb, s.Sel, s.Dir)
	b = append(append(b, ' '), s.Action.String()...)
	for _, r := range s.Rules {
		b = fmt.Appendf(b, " %s/%s/", r.Proto, r.Mode)
		if r.Src.IsValid() {
			b = r.Src.AppendTo(b)
			b = r.Dst.AppendTo(append(b, '-'))
		}
		b = append(append(b, '/'), r.Level.String()...)
		if r.Reqid != 0 {
			b = strconv.AppendUint(append(b, ':'), uint64(r.Reqid), 10)
		}
	}
	return b
}

func (p Proto) String() string {
	return name(p, "any", "esp", "esp-udp")
}

func (m Mode) String() string { return name(m, "any", "transport", "tunnel") }

func (p Padding) String() string { return name(p, "seq-pad", "random-pad", "zero-pad") }

func (d Dir) String() string { return name(d, "any", "in", "out") }

func (l Level) String() string { return name(l, "default", "use", "require", "unique") }

func (a Action) String() string { return name(a, "discard", "none", "ipsec") }

// name is the word of an enumeration, or its number beyond the last.
func name[T ~uint8](v T, names ...string) string {
	if int(v) < len(names) {
		return names[v]
	}
	return strconv.Itoa(int(v))
}
