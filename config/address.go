package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// family is what -4 and -6 ask for; the zero value is either.
type family byte

// family parses the options -4, -6 and -n, glued or not; the last family wins.
// -n, numeric hosts only, is what this parser does anyway.
func (p *parser) family() (fam family, err error) {
	for {
		t := p.peek()
		if !t.isOption() {
			return fam, nil
		}
		if strings.Trim(t.text[1:], "46n") != "" {
			return 0, unknown(t, "option before an address", words{"-4", "-6", "-n"}, nil)
		}
		p.next()
		if i := strings.LastIndexAny(t.text, "46"); i >= 0 {
			fam = family(t.text[i])
		}
	}
}

// endpoint is an address with the port in brackets behind it; 0 is no port.
type endpoint struct {
	at   Pos
	addr netip.Addr
	port uint16
}

func (p *parser) endpoint(fam family) (e endpoint, err error) {
	if e.at, e.addr, err = p.address(fam); err != nil || !p.accept("[") {
		return e, err
	}
	const want = "a port is a number from 1 to 65535"
	t, err := p.word(want)
	if err != nil {
		return e, err
	}
	n, err := strconv.ParseUint(t.text, 10, 16)
	if err != nil || n == 0 {
		return e, fail(t.pos, "the port "+t.shown()+" is not right", want)
	}
	e.port = uint16(n)
	return e, p.closeBracket()
}

func (p *parser) closeBracket() error {
	if !p.accept("]") {
		return p.unexpected("the port ends with ]")
	}
	return nil
}

func (p *parser) address(fam family) (Pos, netip.Addr, error) {
	t, err := p.word("an address comes here")
	if err != nil {
		return t.pos, netip.Addr{}, err
	}
	a, err := parseAddr(t)
	if err != nil {
		return t.pos, a, err
	}
	if fam == '4' && !a.Is4() || fam == '6' && a.Is4() {
		return t.pos, a, fail(t.pos, fmt.Sprintf("%s is not an IPv%c address, as -%c asks for", a, fam, fam),
			"leave out the option, or give an address of that family")
	}
	return t.pos, a, nil
}

// parseAddr takes numeric addresses alone, and of these only the ones that
// mean the same everywhere.
func parseAddr(t token) (netip.Addr, error) {
	a, err := netip.ParseAddr(t.text)
	switch {
	case err != nil:
		return a, badAddr(t)
	case a.Zone() != "":
		return a, unsupported(t.pos, "the scope in "+t.shown(), "give an address that needs none")
	case a.Is4In6():
		return a, fail(t.pos, a.String()+" is an IPv4 address in IPv6 form", "write "+a.Unmap().String())
	}
	return a, nil
}

func badAddr(t token) error {
	switch {
	case statementWords.has(t.text) || protoWords.has(t.text):
		return fail(t.pos, fmt.Sprintf("%s is no address", t.shown()), "an address comes here")
	case strings.Contains(t.text, ":"):
		return fail(t.pos, t.shown()+" is not an IPv6 address", "write it as 2001:db8::1")
	case strings.Trim(t.text, "0123456789.") != "":
		return unsupported(t.pos, "the host name "+t.shown(), "give a numeric address")
	}
	for _, octet := range strings.Split(t.text, ".") {
		if len(octet) > 1 && octet[0] == '0' {
			return fail(t.pos, t.shown()+" has an octet with leading zeros, which some read as octal", "write octets in plain decimal")
		}
	}
	return fail(t.pos, t.shown()+" is not an IPv4 address", "write four octets, as in 192.0.2.1")
}

// oneHost refuses what is not the address of one host where what needs one.
func oneHost(at Pos, a netip.Addr, what string) error {
	switch {
	case a.IsUnspecified():
		return fail(at, a.String()+" is the address of no host", "give that of a host as "+what)
	case a.IsMulticast():
		return unsupported(at, "the multicast address "+a.String()+" as "+what, "give the address of a host")
	}
	return nil
}

func mixed(at Pos, a, b netip.Addr) error {
	return fail(at, fmt.Sprintf("%s and %s are of different families", a, b), "give two IPv4 or two IPv6 addresses")
}
