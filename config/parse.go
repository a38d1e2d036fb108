// Package config is the setkey language: text to statements and back.
//
// The grammar is that of setkey(8) as FreeBSD and NetBSD have it, as far as
// this version can carry it out. What it cannot do is refused by name, never
// skipped, and never reported as a mere syntax error. The package owns no
// state, opens nothing and resolves nothing: addresses are numeric, names of
// ports and protocols come from built-in tables. All functions may be called
// concurrently; statements belong to the caller.
//
// Errors read `file:line:col: what; what would be right` and never hold an
// octet of a key.
package config

import "fmt"

// Parse reads a whole setkey file. The first line may be a `#!` line, which is
// a comment like any other; `exit`, `quit` and `bye` end the input. Where the
// error is not nil it is an Errors, and the statements are those that were
// right, in order.
func Parse(file string, src []byte) ([]Statement, error) {
	stmts, _, err := ParseFrom(file, 1, src)
	return stmts, err
}

// ParseFrom is Parse for a piece of a longer input that starts at a line; exit
// tells that the piece ended the input by `exit`, `quit` or `bye`.
func ParseFrom(file string, line int, src []byte) (stmts []Statement, exit bool, err error) {
	p := parser{lexer: newLexer(file, line, string(src))}
	for p.peek().kind != eof && !p.exit {
		s, err := p.statement()
		switch {
		case err != nil:
			p.report(err)
		case s != nil:
			stmts = append(stmts, s)
		}
	}
	if len(p.errs) > 0 {
		return stmts, p.exit, p.errs
	}
	return stmts, p.exit, nil
}

// Complete reports whether src ends between two statements: a reader of lines
// may hand it over.
func Complete(src []byte) bool {
	l := newLexer("", 1, string(src))
	for last := (token{kind: punct, text: ";"}); ; {
		t := l.scan()
		if t.kind == eof {
			return last.is(";")
		}
		last = t
	}
}

// parser is a recursive descent with one token of look-ahead. Its methods
// consume a token only once it is the right one, so that after an error the
// `;` that ends the statement is still ahead.
type parser struct {
	lexer
	ahead  token
	loaded bool
	end    Pos  // right after the token consumed last
	hide   int  // the line whose words may be pieces of a key
	resume bool // the error stands before a statement: skip nothing
	exit   bool
	errs   Errors
}

func (p *parser) peek() token {
	if !p.loaded {
		p.ahead, p.loaded = p.scan(), true
		p.ahead.hidden = p.ahead.pos.Line == p.hide
	}
	return p.ahead
}

// conceal keeps the word ahead and the rest of its line out of messages: it
// stands where a key may stand, and a key without quotes goes on behind its
// blanks and semicolons.
func (p *parser) conceal() token {
	p.peek()
	p.ahead.hidden, p.hide = true, p.line
	return p.ahead
}

func (p *parser) next() token {
	t := p.peek()
	p.loaded, p.end = false, p.pos()
	return t
}

// accept consumes the token if it reads so.
func (p *parser) accept(text string) bool {
	if !p.peek().is(text) {
		return false
	}
	p.next()
	return true
}

// word consumes a word; want says what it should be.
func (p *parser) word(want string) (token, error) {
	if p.peek().kind != word {
		return token{}, p.unexpected(want)
	}
	return p.next(), nil
}

// unexpected is the error about the token ahead.
func (p *parser) unexpected(want string) error {
	t := p.peek()
	switch {
	case t.kind == unclosed:
		return fail(t.pos, "the quote that opens here is never closed", `close it with "`)
	case t.kind == eof:
		return fail(p.end, "the input ends inside a statement", want)
	case t.is(";"):
		return fail(t.pos, "the statement ends too early", want)
	}
	return fail(t.pos, "unexpected "+t.shown(), want)
}

func (p *parser) report(err error) {
	p.errs = p.errs.add(err.(*Error))
	if !p.resume {
		p.skip()
		p.hide = p.line
	}
	p.resume, p.policy = false, false
}

// skip resynchronises behind the next `;`.
func (p *parser) skip() {
	for t := p.next(); t.kind != eof && !t.is(";"); t = p.next() {
	}
}

// statement parses one statement with its `;`. It returns neither a statement
// nor an error at the end of the input by word.
func (p *parser) statement() (Statement, error) {
	t := p.peek()
	if t.is(";") {
		return nil, fail(t.pos, "no statement stands before this semicolon", "remove it")
	}
	if t.kind != word {
		return nil, p.unexpected("a statement starts with " + statementWords.list())
	}
	s, err := p.body(t)
	if err != nil {
		return nil, err
	}
	p.policy = false
	return s, p.semicolon()
}

func (p *parser) body(t token) (Statement, error) {
	if !statementWords.has(t.text) {
		return nil, unknown(t, "statement", statementWords, statementsElsewhere)
	}
	p.next()
	switch t.text {
	case "add":
		return p.add(t)
	case "update":
		return p.update(t)
	case "get":
		id, err := p.said(t)
		return Get{id}, err
	case "delete":
		id, err := p.said(t)
		return Delete{id}, err
	case "deleteall":
		id, err := p.saidWithoutSPI(t)
		return DeleteAll{id}, err
	case "flush":
		proto, err := p.anyProto(t)
		return Flush{t.pos, proto}, err
	case "dump":
		proto, err := p.anyProto(t)
		return Dump{t.pos, proto}, err
	case "spdadd":
		return p.spdadd(t.pos)
	case "spdupdate":
		return p.spdupdate(t.pos)
	case "spddelete":
		return p.spddelete(t.pos)
	case "spdflush":
		return SPDFlush{t.pos}, nil
	case "spddump":
		return SPDDump{t.pos}, nil
	}
	p.exit = true // exit, quit, bye
	return nil, nil
}

// atEnd reports whether the statement is complete here, or lacks its semicolon
// alone.
func (p *parser) atEnd() bool {
	t := p.peek()
	return t.is(";") || t.kind == eof || t.kind == word && statementWords.has(t.text)
}

// semicolon ends a statement. After exit the end of the input does, too.
func (p *parser) semicolon() error {
	t := p.peek()
	switch {
	case t.is(";"):
		p.next()
		return nil
	case t.kind == eof && p.exit:
		return nil
	case t.kind == eof:
		return fail(p.end, "the last statement does not end", "put a ; behind it")
	case t.kind == word && statementWords.has(t.text):
		p.resume = true
		return fail(p.end, fmt.Sprintf("the statement does not end before the %q that follows", t.text), "put a ; here")
	}
	return p.unexpected("the statement is complete here: end it with ;")
}
