package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"ipsecd/config"
	"ipsecd/internal/command"
	"ipsecd/internal/pfclient"
	"ipsecd/internal/setkeyfmt"
	"ipsecd/pfkey"
)

// session is a conversation with the daemon. Its methods return errors that
// end it; what the daemon refuses is reported and remembered in ok.
type session struct {
	streams
	client *pfclient.Client
	now    func() time.Time
	ok     bool
}

// complain writes an error, a line for each mistake, and is false.
func (s *session) complain(err error) bool {
	fmt.Fprintln(s.err, err)
	s.ok = false
	return false
}

// transaction installs the statements of a text: policies change all at once, at
// its end. That the daemon refuses the whole is reported under the text's name.
func (s *session) transaction(name string, stmts []config.Statement) error {
	if _, err := s.client.Do(&pfkey.Message{Type: pfkey.BEGIN}); err != nil {
		return err
	}
	for _, stmt := range stmts {
		if err := s.statement(stmt); err != nil {
			return err
		}
	}
	_, err := s.client.Do(&pfkey.Message{Type: pfkey.COMMIT})
	if refused := (*pfclient.Refused)(nil); errors.As(err, &refused) {
		s.complain(fmt.Errorf("%s: %w", name, refused))
		return nil
	}
	return err
}

// statement carries out one statement, and reports under its position what the
// daemon refuses of it.
func (s *session) statement(stmt config.Statement) error {
	m, err := command.Message(stmt)
	if err == nil {
		err = s.request(m)
	}
	if refused := (*pfclient.Refused)(nil); errors.As(err, &refused) {
		s.complain(fmt.Errorf("%v: %s", stmt.Pos(), refusal(refused)))
		return nil
	}
	if err != nil {
		return fmt.Errorf("%v: %w", stmt.Pos(), err)
	}
	return nil
}

// request sends one message and prints what it asks for.
func (s *session) request(m *pfkey.Message) error {
	switch m.Type {
	case pfkey.GET:
		return s.print(m, setkeyfmt.AppendSA, "")
	case pfkey.DUMP:
		return s.print(m, setkeyfmt.AppendSA, setkeyfmt.NoSAs)
	case pfkey.SPDDUMP:
		return s.print(m, setkeyfmt.AppendPolicy, setkeyfmt.NoPolicies)
	}
	_, err := s.client.Do(m)
	return err
}

func (s *session) dump(policies bool) error {
	if policies {
		return s.request(&pfkey.Message{Type: pfkey.SPDDUMP})
	}
	return s.request(&pfkey.Message{Type: pfkey.DUMP})
}

func (s *session) flush(policies bool) error {
	if policies {
		return s.request(&pfkey.Message{Type: pfkey.SPDFLUSH})
	}
	return s.request(&pfkey.Message{Type: pfkey.FLUSH})
}

type layout func([]byte, *pfkey.Message, time.Time) []byte

// print writes the answers to m; empty, where given, stands for a database
// without entries.
func (s *session) print(m *pfkey.Message, format layout, empty string) error {
	w := bufio.NewWriter(s.out)
	var block []byte
	err := s.client.Each(m, func(r *pfkey.Message) {
		block = format(block[:0], r, s.now())
		w.Write(block)
	})
	if empty != "" && isMissing(err) {
		io.WriteString(w, empty)
		err = nil
	}
	return errors.Join(err, w.Flush())
}

func isMissing(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ESRCH)
}

// refusal says in setkey's words why the daemon refused a statement, or else in
// the daemon's.
func refusal(r *pfclient.Refused) string {
	switch {
	case isMissing(r) && r.Type == pfkey.UPDATE:
		return "no SA has this SPI, protocol, source and destination; add it"
	case isMissing(r):
		return "No entry"
	case r.Text != "":
		return r.Text
	case r.Errno == syscall.EEXIST && r.Type == pfkey.ADD:
		return "an SA with this SPI, protocol and destination exists already; delete it first, or take another SPI"
	case r.Errno == syscall.EEXIST && r.Type == pfkey.SPDADD:
		return "a policy with this selector and direction exists already; spddelete it first"
	case r.Errno == syscall.EINVAL:
		return "ipsecd finds the statement invalid"
	}
	return r.Error()
}

// converse reads statements from a terminal, and installs them whenever a line
// ends with a `;` that ends a statement.
func (s *session) converse() error {
	lines := bufio.NewReader(s.in)
	var piece []byte
	for start, line := 1, 1; ; line++ {
		text, err := lines.ReadBytes('\n')
		piece = append(piece, text...)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("standard input: %w", err)
		}
		if err == nil && !config.Complete(piece) {
			continue
		}
		exit, applyErr := s.group(start, piece)
		if applyErr != nil || exit || err != nil {
			return applyErr
		}
		piece, start = piece[:0], line+1
	}
}

// group installs one piece of a terminal's input that starts at a line, or
// nothing of it if it has a mistake.
func (s *session) group(line int, src []byte) (exit bool, err error) {
	stmts, exit, err := config.ParseFrom(stdin, line, src)
	if err != nil {
		s.complain(err)
		return exit, nil
	}
	if len(stmts) == 0 {
		return exit, nil
	}
	return exit, s.transaction(stdin, stmts)
}
