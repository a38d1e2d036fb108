package config

import (
	"fmt"
	"slices"
	"strconv"
)

// Ranges of numbers in SA statements.
const (
	minSPI    = 0x100 // RFC 4303 2.1: smaller ones are reserved
	maxReplay = 32768 // octets: 262144 packets
	maxReqid  = 16383 // IPSEC_MANUAL_REQID_MAX: larger ones are assigned by the kernel
	nattPort  = 4500  // RFC 3948
)

// protocol parses the protocol word, which ProtoAny stands for if it is
// missing.
func (p *parser) protocol() (Proto, error) {
	t := p.peek()
	switch {
	case t.is("esp"):
		p.next()
		return ProtoESP, nil
	case t.is("esp-udp"):
		p.next()
		return ProtoESPUDP, nil
	case t.kind == word && protosElsewhere.has(t.text):
		return 0, unsupported(t.pos, t.text, "the protocols are "+protoWords.list())
	}
	return ProtoAny, nil
}

// anyProto is the optional protocol of flush and dump.
func (p *parser) anyProto(stmt token) (Proto, error) {
	proto, err := p.protocol()
	if t := p.peek(); err == nil && proto == ProtoAny && t.kind == word && !statementWords.has(t.text) {
		return 0, unknown(t, "protocol", protoWords, nil)
	}
	return proto, err
}

// saHead is what the four statements about one SA or pair share.
type saHead struct {
	SAID
	src, dst endpoint
}

func (h *saHead) hasPorts() bool { return h.src.port != 0 || h.dst.port != 0 }

func (p *parser) head(at Pos) (h saHead, err error) {
	h.At = at
	fam, err := p.family()
	if err != nil {
		return h, err
	}
	if h.src, err = p.endpoint(fam); err != nil {
		return h, err
	}
	if h.dst, err = p.endpoint(fam); err != nil {
		return h, err
	}
	for _, e := range []endpoint{h.src, h.dst} {
		if err := oneHost(e.at, e.addr, "an end of an SA"); err != nil {
			return h, err
		}
	}
	h.Src, h.Dst = h.src.addr, h.dst.addr
	if h.Src.Is4() != h.Dst.Is4() {
		return h, mixed(h.dst.at, h.Src, h.Dst)
	}
	if h.Proto, err = p.protocol(); err != nil {
		return h, err
	}
	if h.Proto == ProtoAny {
		if t := p.peek(); t.kind == word {
			return h, unknown(t, "protocol", protoWords, protosElsewhere)
		}
		return h, p.unexpected("the protocol comes here: " + protoWords.list())
	}
	if h.Proto == ProtoESP && h.hasPorts() {
		return h, fail(h.src.at, "ports do not go with esp", "write esp-udp, or give them by -natt")
	}
	return h, nil
}

func (p *parser) said(stmt token) (SAID, error) {
	h, err := p.head(stmt.pos)
	if err != nil {
		return h.SAID, err
	}
	if h.SPI, err = p.spi(); err != nil {
		return h.SAID, err
	}
	return h.SAID, p.noOptions(stmt)
}

func (p *parser) saidWithoutSPI(stmt token) (SAID, error) {
	h, err := p.head(stmt.pos)
	if err != nil {
		return h.SAID, err
	}
	if t := p.peek(); t.kind == word && !t.isOption() && !statementWords.has(t.text) {
		return h.SAID, fail(t.pos, "deleteall takes no SPI", "leave it out, or write delete to name one SA")
	}
	return h.SAID, p.noOptions(stmt)
}

func (p *parser) noOptions(stmt token) error {
	if t := p.peek(); t.isOption() {
		return fail(t.pos, fmt.Sprintf("%s does not go with %s", t.shown(), stmt.text),
			"addresses and protocol, and the SPI if it is one SA, are all that it takes")
	}
	return nil
}

func (p *parser) spi() (uint32, error) {
	const want = "an SPI is a number from 0x100 to 0xffffffff"
	t, err := p.word(want)
	if err != nil {
		return 0, err
	}
	n, ok := number(t.text, 0xffffffff)
	if !ok || n < minSPI {
		return 0, fail(t.pos, "the SPI "+t.shown()+" is not right", want)
	}
	return uint32(n), nil
}

// number reads DEC or HEX up to a bound.
func number(s string, limit uint64) (uint64, bool) {
	base := 10
	if len(s) > 2 && s[0] == '0' && (s[1] == 'x' || s[1] == 'X') {
		s, base = s[2:], 16
	}
	if s == "" || s[0] == '+' || s[0] == '-' {
		return 0, false
	}
	n, err := strconv.ParseUint(s, base, 64)
	return n, err == nil && n <= limit
}

// decimal parses the argument of an option that takes DEC alone.
func (p *parser) decimal(opt, what string, limit uint64) (uint32, error) {
	want := fmt.Sprintf("%s is a decimal number from 0 to %d", what, limit)
	t, err := p.word(want)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(t.text, 10, 32)
	if err != nil || n > limit {
		return 0, fail(t.pos, fmt.Sprintf("%s %s is not right", opt, t.shown()), want)
	}
	return uint32(n), nil
}

func (p *parser) add(stmt token) (Statement, error) {
	s, opts, err := p.association(stmt)
	if err != nil {
		return nil, err
	}
	return s, p.keyed(&s, opts)
}

// update is add whose algorithms may be missing: it changes ports alone then.
func (p *parser) update(stmt token) (Statement, error) {
	s, opts, err := p.association(stmt)
	if err != nil {
		return nil, err
	}
	if p.atEnd() {
		err = p.portsAlone(&s, opts)
	} else {
		err = p.keyed(&s, opts)
	}
	return Update{s}, err
}

// options are those of an SA that do not go with everything; one that is not
// given has no text.
type options struct {
	natt  token
	other token // the first that is not -natt
}

// keyed parses the algorithms. Original addresses serve checksums in transport
// mode, which are not repaired; a tunnel has no use for them.
func (p *parser) keyed(s *Add, opts options) error {
	if opts.natt.text != "" && s.Mode != ModeTunnel {
		return unsupported(opts.natt.pos, "-natt in a mode other than tunnel", "write -m tunnel, or give the ports alone, with esp-udp")
	}
	return p.algorithms(s)
}

func (p *parser) portsAlone(s *Add, opts options) error {
	switch {
	case opts.other.text != "":
		return fail(opts.other.pos, opts.other.text+" does not change without the keys", "leave it out, or give the keys again by -E")
	case s.NATT == nil:
		return p.unexpected("ports come here, by esp-udp or -natt, or the algorithms: -E ALGORITHM KEY [-A ALGORITHM KEY]")
	}
	return nil
}

// association parses an SA up to its algorithms.
func (p *parser) association(stmt token) (s Add, opts options, err error) {
	h, err := p.head(stmt.pos)
	if err != nil {
		return s, opts, err
	}
	s.SAID = h.SAID
	if s.SPI, err = p.spi(); err != nil {
		return s, opts, err
	}
	if s.Proto == ProtoESPUDP {
		s.NATT = &NATT{SrcPort: orNATT(h.src.port), DstPort: orNATT(h.dst.port)}
	}
	opts, err = p.extensions(&s, stmt, h.hasPorts())
	return s, opts, err
}

func orNATT(port uint16) uint16 {
	if port == 0 {
		return nattPort
	}
	return port
}

func (p *parser) extensions(s *Add, stmt token, hasPorts bool) (opts options, err error) {
	for err == nil {
		t := p.peek()
		if !t.isOption() || algorithmOptions.has(t.text) {
			return opts, nil
		}
		if !extensionWords.has(t.text) {
			known := slices.Concat(extensionWords, algorithmOptions)
			return opts, unknown(p.conceal().unlessNear(known), "option of "+stmt.text, known, extensionsElsewhere)
		}
		p.next()
		opts.note(t)
		switch t.text {
		case "-m":
			s.Mode, err = p.saMode()
		case "-r":
			s.Replay, err = p.decimal("-r", "the replay window in octets (of 8 packets each)", maxReplay)
		case "-u":
			s.Reqid, err = p.decimal("-u", "a request id", maxReqid)
		case "-f":
			err = p.padding(s)
		case "-esn":
			s.ESN = true
		case "-natt":
			if hasPorts {
				return opts, fail(t.pos, "ports are given twice, by the addresses and by -natt", "leave out one of the two")
			}
			s.NATT, err = p.natt()
		}
	}
	return opts, err
}

func (o *options) note(t token) {
	switch {
	case t.text == "-natt":
		o.natt = t
	case o.other.text == "":
		o.other = t
	}
}

func (p *parser) saMode() (Mode, error) {
	known := words{"tunnel", "transport", "any"}
	t, err := p.word("the mode comes here: " + known.list())
	switch {
	case err != nil:
		return 0, err
	case t.text == "any":
		return ModeAny, nil
	case t.text == "tunnel":
		return ModeTunnel, nil
	case t.text == "transport":
		return ModeTransport, nil
	}
	return 0, unknown(t, "mode", known, nil)
}

// padding parses the argument of -f. That sequence numbers never wrap goes
// without saying.
func (p *parser) padding(s *Add) error {
	known := words{"seq-pad", "zero-pad", "random-pad", "nocyclic-seq"}
	t, err := p.word("the argument of -f comes here: " + known.list())
	if err != nil {
		return err
	}
	switch t.text {
	case "seq-pad":
		s.Pad = PadSequential
	case "zero-pad":
		s.Pad = PadZero
	case "random-pad":
		s.Pad = PadRandom
	case "nocyclic-seq":
	default:
		return unknown(t, "argument of -f", known, words{"cyclic-seq"})
	}
	return nil
}

func (p *parser) natt() (*NATT, error) {
	a, err := p.nattEnd()
	if err != nil {
		return nil, err
	}
	b, err := p.nattEnd()
	if err != nil {
		return nil, err
	}
	if a.addr.Is4() != b.addr.Is4() {
		return nil, mixed(b.at, a.addr, b.addr)
	}
	return &NATT{SrcPort: a.port, DstPort: b.port, OAI: a.addr, OAR: b.addr}, nil
}

func (p *parser) nattEnd() (endpoint, error) {
	e, err := p.endpoint(0)
	if err == nil && e.port == 0 {
		return e, fail(p.end, "-natt needs a port with each address", "write ADDRESS[PORT] ADDRESS[PORT]")
	}
	return e, err
}
