package config

import (
	"encoding/hex"
	"fmt"

	"ipsecd/crypto/alg"
)

// algorithms parses -E ALGORITHM KEY [-A ALGORITHM KEY] and refuses what would
// encrypt without authenticating, which RFC 8221 section 4 forbids.
func (p *parser) algorithms(s *Add) error {
	t := p.peek()
	if t.is("-A") {
		return fail(t.pos, "-A stands without -E before it", "write -E ALGORITHM KEY, then -A ALGORITHM KEY")
	}
	if !t.is("-E") {
		p.conceal()
		return p.unexpected("the algorithms come here: -E ALGORITHM KEY [-A ALGORITHM KEY]")
	}
	p.next()
	enc, key, err := p.algorithm(alg.Enc)
	if err != nil {
		return err
	}
	s.Enc, s.EncKey = enc.ID, key
	t = p.peek()
	if t.is("-A") {
		return p.authentication(s, enc)
	}
	if err := p.afterKey(); err != nil {
		return err
	}
	if !enc.Combined() {
		return unauthenticated(p.end, enc.Name+" without -A", "add")
	}
	return nil
}

func unauthenticated(at Pos, what, verb string) error {
	return fail(at, what+" would leave packets unauthenticated",
		verb+" -A ALGORITHM KEY, with one of "+words(alg.Names(alg.Auth)).list())
}

func (p *parser) authentication(s *Add, enc *alg.Info) error {
	t := p.next()
	if enc.Combined() {
		return fail(t.pos, enc.Name+" authenticates by itself", "leave out -A")
	}
	auth, key, err := p.algorithm(alg.Auth)
	if err != nil {
		return err
	}
	s.Auth, s.AuthKey = auth.ID, key
	return p.afterKey()
}

// afterKey refuses what follows a key without showing it, because it may be
// the rest of one.
func (p *parser) afterKey() error {
	t := p.peek()
	switch {
	case p.atEnd(), t.kind == unclosed:
		return nil
	case t.kind == word && algorithmOptions.has(t.text):
		return fail(t.pos, t.text+" is given too late or twice", "write -E ALGORITHM KEY, then -A ALGORITHM KEY, then ;")
	case t.kind == word && (extensionWords.has(t.text) || extensionsElsewhere.has(t.text)):
		return fail(t.pos, t.text+" comes too late", "options such as -m, -r and -u come before -E")
	}
	return fail(t.pos, "something follows the key", "end the statement with ;, or put a key with blanks in quotes")
}

func (p *parser) algorithm(k alg.Kind) (*alg.Info, Key, error) {
	known := words(alg.Names(k))
	p.conceal()
	t, err := p.word("the name of an algorithm comes here: " + known.list())
	if err != nil {
		return nil, nil, err
	}
	a := alg.ByName(k, t.text)
	if a == nil {
		return nil, nil, unknownAlgorithm(t, k, known)
	}
	key, err := p.key(a)
	return a, key, err
}

func unknownAlgorithm(t token, k alg.Kind, known words) error {
	if k == alg.Auth && t.text == "null" {
		return unauthenticated(t.pos, "-A null", "write")
	}
	if k == alg.Auth && alg.ByName(alg.Enc, t.text) != nil {
		return fail(t.pos, t.text+" is for encryption", "give it by -E; for -A there are "+known.list())
	}
	if k == alg.Enc && alg.ByName(alg.Auth, t.text) != nil {
		return fail(t.pos, t.text+" is for authentication", "give it by -A; for -E there are "+known.list())
	}
	return unknown(t.unlessNear(known), k.String()+" algorithm", known, algorithmsElsewhere)
}

// key parses the key of an algorithm, nil for none where it needs none, and
// checks its length. No error shows an octet of it.
func (p *parser) key(a *alg.Info) (Key, error) {
	t := p.conceal()
	var key Key
	switch {
	case a.MinBits() == 0 && (p.atEnd() || t.isOption()):
		return nil, nil
	case t.kind == quoted:
		key = Key(t.text)
	case t.kind == word && len(t.text) > 1 && (t.text[:2] == "0x" || t.text[:2] == "0X"):
		digits := t.text[2:]
		if len(digits)%2 != 0 {
			return nil, fail(t.pos, fmt.Sprintf("the key of %s has an odd number of hexadecimal digits, %d", a.Name, len(digits)),
				"write two for each octet")
		}
		b, err := hex.DecodeString(digits)
		if err != nil {
			return nil, fail(t.pos, "the key of "+a.Name+" has characters that are not hexadecimal", "write 0 to 9 and a to f after 0x")
		}
		key = b
	case t.kind == word && !t.isOption():
		return nil, fail(t.pos, "the key of "+a.Name+" is neither quoted nor hexadecimal", keyForm)
	case t.kind == unclosed:
		return nil, p.unexpected("")
	default:
		return nil, fail(p.end, a.Name+" has no key", keyForm)
	}
	if err := a.CheckKey(8 * len(key)); err != nil {
		return nil, fail(t.pos, err.Error(), "")
	}
	p.next()
	if len(key) == 0 {
		return nil, nil
	}
	return key, nil
}

const keyForm = `write the key as 0x and hexadecimal digits, or "in quotes"`
