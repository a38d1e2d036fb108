package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// IP protocols that selectors treat apart.
const (
	upperICMP   = 1
	upperTCP    = 6
	upperUDP    = 17
	upperICMPv6 = 58
)

// side is one half of a selector.
type side struct {
	at     Pos
	prefix netip.Prefix
	port   uint16 // 0 is any
}

func (p *parser) selector() (sel Selector, err error) {
	fam, err := p.family()
	if err != nil {
		return sel, err
	}
	if t := p.peek(); t.is("tagged") {
		return sel, unsupported(t.pos, "tagged", "give two address ranges")
	}
	src, err := p.side(fam)
	if err != nil {
		return sel, err
	}
	dst, err := p.side(fam)
	if err != nil {
		return sel, err
	}
	if src.prefix.Addr().Is4() != dst.prefix.Addr().Is4() {
		return sel, mixed(dst.at, src.prefix.Addr(), dst.prefix.Addr())
	}
	sel = Selector{Src: src.prefix, Dst: dst.prefix, SrcPort: src.port, DstPort: dst.port}
	return sel, p.upper(&sel, src, dst)
}

func (p *parser) side(fam family) (s side, err error) {
	var a netip.Addr
	if s.at, a, err = p.address(fam); err != nil {
		return s, err
	}
	bits := a.BitLen()
	if p.accept("/") {
		if bits, err = p.prefixLen(a); err != nil {
			return s, err
		}
	}
	s.prefix = netip.PrefixFrom(a, bits).Masked()
	if !p.accept("[") {
		return s, nil
	}
	if s.port, err = p.selectorPort(); err != nil {
		return s, err
	}
	if t := p.peek(); t.is("/") {
		return s, fail(t.pos, "the prefix length stands behind the port", "write ADDRESS/LENGTH[PORT]")
	}
	return s, nil
}

func (p *parser) prefixLen(a netip.Addr) (int, error) {
	want := fmt.Sprintf("the prefix length of an IPv4 address is 0 to %d", a.BitLen())
	if a.Is6() {
		want = fmt.Sprintf("the prefix length of an IPv6 address is 0 to %d", a.BitLen())
	}
	t, err := p.word(want)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(t.text, 10, 8)
	if err != nil || int(n) > a.BitLen() {
		return 0, fail(t.pos, "the prefix length "+t.shown()+" is not right", want)
	}
	return int(n), nil
}

func (p *parser) selectorPort() (uint16, error) {
	const want = "a port is any, a number from 0 to 65535, or the name of a common service"
	t, err := p.word(want)
	if err != nil {
		return 0, err
	}
	if t.text == "any" {
		return 0, p.closeBracket()
	}
	if n, err := strconv.ParseUint(t.text, 10, 16); err == nil {
		return uint16(n), p.closeBracket()
	}
	if strings.Trim(t.text, "0123456789") == "" {
		return 0, fail(t.pos, "the port "+t.shown()+" is not right", want)
	}
	n, ok := services[t.text]
	if !ok {
		return 0, fail(t.pos, "the service "+t.shown()+" is not known", "give the port as a number")
	}
	return n, p.closeBracket()
}

// upper parses the upper-layer protocol with its argument.
func (p *parser) upper(sel *Selector, src, dst side) error {
	const want = "the upper-layer protocol comes here: any, tcp, udp, icmp, icmp6, another name, or a number"
	t, err := p.word(want)
	if err != nil {
		return err
	}
	if sel.Upper, err = upperNumber(t); err != nil {
		return err
	}
	switch v4 := sel.Src.Addr().Is4(); {
	case sel.Upper == upperICMPv6 && v4:
		return fail(t.pos, t.text+" is not for IPv4, and would match nothing", "write icmp")
	case sel.Upper == upperICMP && !v4:
		return fail(t.pos, t.text+" is not for IPv6, and would match nothing", "write icmp6")
	case !HasPorts(sel.Upper) && src.port != 0:
		return noPorts(src.at, t)
	case !HasPorts(sel.Upper) && dst.port != 0:
		return noPorts(dst.at, t)
	}
	arg := p.peek()
	if arg.kind != word || arg.isOption() {
		return nil
	}
	if sel.Upper != upperICMP && sel.Upper != upperICMPv6 {
		return fail(arg.pos, "unexpected "+arg.shown()+" behind "+t.text, "only icmp and icmp6 take type,code; the policy starts with -P")
	}
	p.next()
	sel.SrcPort, sel.DstPort, err = icmpType(arg)
	return err
}

func noPorts(at Pos, upper token) error {
	return fail(at, "ports do not go with "+upper.text, "write [any] or leave them out; ICMP's type,code stands behind the protocol")
}

func upperNumber(t token) (uint8, error) {
	if n, ok := uppers[t.text]; ok {
		return n, nil
	}
	n, err := strconv.ParseUint(t.text, 10, 8)
	switch {
	case err == nil && n > 0:
		return uint8(n), nil
	case strings.Trim(t.text, "0123456789") == "":
		return 0, fail(t.pos, "the upper-layer protocol "+t.shown()+" is not right", "numbers are 1 to 255, and 255 is any")
	}
	return 0, unknown(t, "upper-layer protocol", upperWords, nil)
}

// HasPorts reports whether a selector of an upper-layer protocol may have ports.
func HasPorts(upper uint8) bool {
	switch upper {
	case UpperAny, upperTCP, upperUDP, uppers["sctp"], uppers["dccp"], uppers["udplite"]:
		return true
	}
	return false
}

// icmpType reads `type` or `type,code`. Type 0 is refused, because KAME's
// selectors, which keep it in the port, take it for any.
func icmpType(t token) (typ, code uint16, err error) {
	a, b, both := strings.Cut(t.text, ",")
	n, err1 := strconv.ParseUint(a, 10, 8)
	m, err2 := uint64(0), error(nil)
	if both {
		m, err2 = strconv.ParseUint(b, 10, 8)
	}
	if err1 != nil || err2 != nil {
		return 0, 0, fail(t.pos, "the ICMP type "+t.shown()+" is not right", "write type or type,code with numbers from 0 to 255")
	}
	if n == 0 {
		return 0, 0, fail(t.pos, "ICMP type 0 cannot be told from any type", "leave out the type to match them all")
	}
	return uint16(n), uint16(m), nil
}

// AllMulticast reports whether a range has no address of a host.
func AllMulticast(p netip.Prefix) bool {
	if p.Addr().Is4() {
		return p.Bits() >= 4 && p.Addr().IsMulticast()
	}
	return p.Bits() >= 8 && p.Addr().IsMulticast()
}
