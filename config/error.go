package config

import "strings"

// Error is one mistake in a setkey text.
type Error struct {
	Pos
	Msg  string // what is wrong
	Want string // what would be right; may be empty where Msg says it
}

func (e *Error) Error() string {
	s := e.Pos.String() + ": " + e.Msg
	if e.Want == "" {
		return s
	}
	return s + "; " + e.Want
}

// Errors are the mistakes of one text in order, at most maxErrors.
type Errors []*Error

// maxErrors bounds what one text reports: after so many the reader corrects
// and tries again.
const maxErrors = 10

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives each mistake to errors.As.
func (e Errors) Unwrap() []error {
	out := make([]error, len(e))
	for i, err := range e {
		out[i] = err
	}
	return out
}

func (e Errors) add(err *Error) Errors {
	if len(e) == maxErrors {
		return e
	}
	return append(e, err)
}

func fail(at Pos, msg, want string) error { return &Error{at, msg, want} }

// unsupported refuses by name what setkey knows elsewhere.
func unsupported(at Pos, what, want string) error {
	return fail(at, what+" is not supported by this version", want)
}
