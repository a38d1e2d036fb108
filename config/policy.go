package config

import (
	"fmt"
	"net/netip"
	"strings"
)

func (p *parser) spdadd(at Pos) (Statement, error) { return p.spdPolicy(at) }

func (p *parser) spdupdate(at Pos) (Statement, error) {
	s, err := p.spdPolicy(at)
	return SPDUpdate{s}, err
}

func (p *parser) spdPolicy(at Pos) (s SPDAdd, err error) {
	s.At = at
	if s.Sel, s.Dir, err = p.policyHead(); err != nil {
		return s, err
	}
	s.Action, s.Rules, err = p.treatment(&s.Sel)
	return s, err
}

// spddelete takes the text that added a policy, too: what follows the direction
// must read as a policy, but does not tell policies apart.
func (p *parser) spddelete(at Pos) (Statement, error) {
	s := SPDDelete{At: at}
	var err error
	if s.Sel, s.Dir, err = p.policyHead(); err != nil {
		return nil, err
	}
	if t := p.peek(); t.kind != word || statementWords.has(t.text) {
		return s, nil
	}
	_, _, err = p.treatment(nil)
	return s, err
}

// policyHead parses the selector, -P and the direction.
func (p *parser) policyHead() (sel Selector, dir Dir, err error) {
	if sel, err = p.selector(); err != nil {
		return sel, 0, err
	}
	t := p.peek()
	if t.is("-ctx") {
		return sel, 0, unsupported(t.pos, t.text, "leave it out")
	}
	if !t.is("-P") {
		return sel, 0, p.unexpected("the policy comes here: -P DIRECTION ...")
	}
	p.policy = true
	p.next()
	dir, err = p.direction()
	return sel, dir, err
}

func (p *parser) direction() (Dir, error) {
	t, err := p.word("the direction comes here: in or out")
	switch {
	case err != nil:
		return 0, err
	case t.text == "in":
		return In, nil
	case t.text == "out":
		return Out, nil
	case t.text == "fwd":
		return 0, unsupported(t.pos, "the direction fwd", "a policy in judges all that arrives: write in")
	}
	return 0, unknown(t, "direction", words{"in", "out"}, nil)
}

// treatment parses what a policy does with the packets of a selector: its
// action, with the rules of ipsec.
func (p *parser) treatment(sel *Selector) (a Action, rules []Rule, err error) {
	if a, err = p.action(); err != nil {
		return a, nil, err
	}
	if a == IPsec {
		rules, err = p.rules(sel)
		return a, rules, err
	}
	if t := p.peek(); t.kind == word && !statementWords.has(t.text) {
		return a, nil, fail(t.pos, "a rule does not go with "+a.String(), "write ipsec before it, or leave it out")
	}
	return a, nil, nil
}

func (p *parser) action() (Action, error) {
	t, err := p.word("the action comes here: ipsec, none or discard")
	if err != nil {
		return 0, err
	}
	switch t.text {
	case "discard":
		return Discard, nil
	case "none":
		return None, nil
	case "ipsec":
		return IPsec, nil
	case "entrust", "bypass":
		return 0, fail(t.pos, t.text+" is for policies of sockets, which ipsecd has none of", "write none, ipsec or discard")
	case "prio", "priority":
		return 0, unsupported(t.pos, t.text, "leave it out: policies are tried in the order they are added")
	}
	return 0, unknown(t, "action", words{"ipsec", "none", "discard"}, nil)
}

// rules parses what follows ipsec: one rule in this version.
func (p *parser) rules(sel *Selector) ([]Rule, error) {
	r, err := p.rule(sel)
	if err != nil {
		return nil, err
	}
	t := p.peek()
	if t.kind == word && (t.is("esp") || rulesElsewhere.has(t.text)) {
		return nil, unsupported(t.pos, "a bundle of several rules", "write one rule to a policy")
	}
	return []Rule{r}, nil
}

// forms are what a rule looks like.
var forms = map[Mode]string{
	ModeTunnel:    "esp/tunnel/SRC-DST/LEVEL",
	ModeTransport: "esp/transport//LEVEL",
}

func (p *parser) rule(sel *Selector) (r Rule, err error) {
	form := "a rule is " + forms[ModeTunnel] + " or " + forms[ModeTransport]
	t, err := p.word(form)
	if err != nil {
		return r, err
	}
	if t.text != "esp" {
		return r, unknown(t, "protocol of a rule", words{"esp"}, rulesElsewhere)
	}
	r.Proto = ProtoESP
	if !p.accept("/") {
		return r, p.unexpected(form)
	}
	if r.Mode, err = p.ruleMode(form); err != nil {
		return r, err
	}
	if sel != nil && r.Mode == ModeTransport && (AllMulticast(sel.Src) || AllMulticast(sel.Dst)) {
		return r, unsupported(t.pos, "transport mode of multicast", "give ranges of hosts, or use a tunnel")
	}
	slash := p.peek()
	if p.accept("/") && p.peek().kind == word && !p.atEnd() {
		err = p.ends(&r, sel)
	} else if r.Mode == ModeTunnel {
		err = fail(slash.pos, "a tunnel needs its two ends", "write "+forms[ModeTunnel])
	}
	if err != nil {
		return r, err
	}
	return r, p.level(&r)
}

func (p *parser) ruleMode(form string) (Mode, error) {
	t, err := p.word(form)
	switch {
	case err != nil:
		return 0, err
	case t.text == "tunnel":
		return ModeTunnel, nil
	case t.text == "transport":
		return ModeTransport, nil
	}
	return 0, unknown(t, "mode of a rule", modeWords, nil)
}

// ends parses SRC-DST.
func (p *parser) ends(r *Rule, sel *Selector) (err error) {
	t := p.peek()
	if name, _, _ := strings.Cut(t.text, ":"); levelWords.has(name) || name == "use" {
		return fail(t.pos, "the level "+t.shown()+" stands where the ends do", "write "+forms[r.Mode])
	}
	src := p.peek().pos
	if r.Src, err = p.ruleEnd(r.Mode); err != nil {
		return err
	}
	if !p.accept("-") {
		return p.unexpected("a - comes here, and the other end of the " + endsOf(r.Mode))
	}
	dst := p.peek().pos
	if r.Dst, err = p.ruleEnd(r.Mode); err != nil {
		return err
	}
	switch {
	case r.Src.Is4() != r.Dst.Is4():
		return mixed(src, r.Src, r.Dst)
	case sel == nil || r.Mode != ModeTransport:
		return nil
	case !sel.Src.Contains(r.Src):
		return outside(src, r.Src, sel.Src)
	case !sel.Dst.Contains(r.Dst):
		return outside(dst, r.Dst, sel.Dst)
	}
	return nil
}

// outside is the error about an end in transport mode that no packet has.
func outside(at Pos, end netip.Addr, hosts netip.Prefix) error {
	return fail(at, fmt.Sprintf("in transport mode packets keep their addresses, and %s is none of %s", end, hosts),
		"leave out the ends, as in "+forms[ModeTransport]+", or give hosts of the ranges")
}

// endsOf is what has the ends of a rule.
func endsOf(m Mode) string {
	if m == ModeTunnel {
		return "tunnel"
	}
	return "rule"
}

func (p *parser) ruleEnd(m Mode) (netip.Addr, error) {
	t := p.peek()
	if t.is("me") || t.is("any") {
		return netip.Addr{}, unsupported(t.pos, t.shown()+" as the end of a "+endsOf(m), "give its address")
	}
	at, a, err := p.address(0)
	if err != nil {
		return a, err
	}
	if p.peek().is("[") {
		return a, unsupported(p.peek().pos, "a port at the end of a "+endsOf(m), "give the ports by the SA, with esp-udp or -natt")
	}
	return a, oneHost(at, a, "an end of a "+endsOf(m))
}

// level parses [/[LEVEL]].
func (p *parser) level(r *Rule) error {
	if !p.accept("/") || p.peek().is(";") {
		return nil
	}
	const want = "the level comes here: require, unique, unique:N or default"
	t, err := p.word(want)
	if err != nil {
		return err
	}
	name, id, numbered := strings.Cut(t.text, ":")
	if name == "unique" {
		id, numbered = p.uniqueNumber(id, numbered)
	}
	switch {
	case name == "unique":
		r.Level = LevelUnique
	case numbered:
		return fail(t.pos, "the level "+t.shown()+" is not right", "only unique takes a number, as in unique:7")
	case name == "default":
		r.Level = LevelDefault
	case name == "require":
		r.Level = LevelRequire
	case name == "use":
		return unsupported(t.pos, "the level use, which lets packets out in clear when there is no SA,", "write require")
	default:
		return unknown(t, "level", levelWords, nil)
	}
	if !numbered {
		return nil
	}
	n, ok := number(id, maxReqid)
	if !ok {
		return fail(t.pos, fmt.Sprintf("the level %q is not right", name+":"+id), "the number of unique is 0 to 16383")
	}
	r.Reqid = uint32(n)
	return nil
}

// uniqueNumber reads on behind unique: the colon and the number may stand apart.
func (p *parser) uniqueNumber(id string, numbered bool) (string, bool) {
	if t := p.peek(); !numbered && t.kind == word && t.text[0] == ':' {
		id, numbered = p.next().text[1:], true
	}
	if numbered && id == "" && p.peek().kind == word && !p.atEnd() {
		id = p.next().text
	}
	return id, numbered
}
