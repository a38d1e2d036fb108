package config

import (
	"fmt"
	"strings"
)

type kind uint8

const (
	eof      kind = iota
	word          // a run of anything that ends none
	quoted        // "...", without its quotes; may span lines, has no escapes
	unclosed      // a quote that the input does not close
	punct         // ; [ ] / and, inside a policy, -
)

type token struct {
	kind   kind
	text   string
	pos    Pos
	hidden bool // may be a piece of a key
}

// is reports whether the token is a word or a sign that reads so.
func (t token) is(text string) bool {
	return (t.kind == word || t.kind == punct) && t.text == text
}

func (t token) isOption() bool {
	return t.kind == word && len(t.text) > 1 && t.text[0] == '-'
}

// shown is the token for an error message. What could be a key is described
// instead.
func (t token) shown() string {
	switch {
	case t.kind == quoted:
		return "quoted string"
	case t.hidden && t.kind == word, looksLikeKey(t.text):
		return fmt.Sprintf("word of %d characters", len(t.text))
	case len(t.text) > 64:
		return fmt.Sprintf("%.64q...", t.text)
	}
	return fmt.Sprintf("%q", t.text)
}

// looksLikeKey reports whether a word is a number too long for an SPI, or wants
// to be one. An IPv6 address is not: it has colons.
func looksLikeKey(s string) bool {
	digits := strings.TrimPrefix(strings.ToLower(s), "0x")
	return len(digits) > 10 && (len(digits) < len(s) || strings.Trim(digits, "0123456789abcdef") == "")
}

// lexer cuts a text into tokens. Inside a policy `-` stands alone, because it
// joins the ends of a tunnel there; elsewhere it is part of words.
type lexer struct {
	file   string
	src    string
	off    int
	line   int
	start  int // offset of the line's first octet
	policy bool
}

func newLexer(file string, line int, src string) lexer {
	return lexer{file: file, src: src, line: line}
}

func (l *lexer) pos() Pos { return Pos{l.file, l.line, l.off - l.start + 1} }

// advance moves to an offset and counts the lines on the way.
func (l *lexer) advance(to int) {
	for ; l.off < to; l.off++ {
		if l.src[l.off] == '\n' {
			l.line++
			l.start = l.off + 1
		}
	}
}

const blanks = " \t\r\n\v\f"

func (l *lexer) blank() {
	for l.off < len(l.src) {
		switch c := l.src[l.off]; {
		case c == '#':
			l.advance(l.off + length(l.src[l.off:], "\n"))
		case strings.IndexByte(blanks, c) >= 0:
			l.advance(l.off + 1)
		default:
			return
		}
	}
}

func (l *lexer) scan() token {
	l.blank()
	at := l.pos()
	rest := l.src[l.off:]
	if rest == "" {
		return token{kind: eof, pos: at}
	}
	if rest[0] == '"' {
		return l.quote(at, rest[1:])
	}
	ends := blanks + `;#"[]/`
	if l.policy {
		ends += "-"
	}
	if n := length(rest, ends); n > 0 {
		l.advance(l.off + n)
		return token{kind: word, text: rest[:n], pos: at}
	}
	l.advance(l.off + 1)
	return token{kind: punct, text: rest[:1], pos: at}
}

func (l *lexer) quote(at Pos, rest string) token {
	n := strings.IndexByte(rest, '"')
	if n < 0 {
		l.advance(len(l.src))
		return token{kind: unclosed, pos: at}
	}
	l.advance(l.off + n + 2)
	return token{kind: quoted, text: rest[:n], pos: at}
}

// length is that of the part of s before the first of ends.
func length(s, ends string) int {
	if n := strings.IndexAny(s, ends); n >= 0 {
		return n
	}
	return len(s)
}
