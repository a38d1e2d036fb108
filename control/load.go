package control

import (
	"errors"
	"fmt"
	"os"

	"ipsecd/config"
	"ipsecd/internal/command"
	"ipsecd/pfkey"
)

// LoadFile is Load of a file's contents.
func (e *Engine) LoadFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	src, err := config.Read(f)
	defer clear(src)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return e.Load(path, src)
}

// Load runs a setkey script, called name in errors, as one transaction. It
// installs all of the script or, when it returns an error, nothing; the error
// joins one line of the form file:line:col: text for each statement that is
// wrong. Statements that only print are passed over.
func (e *Engine) Load(name string, src []byte) error {
	statements, err := config.Parse(name, src)
	if err != nil {
		return err
	}
	e.mu.Lock()
	s := &Session{txn: e.begin()}
	e.mu.Unlock()
	defer s.forget()
	var wrong []error
	for _, statement := range statements {
		if err := e.run(s, statement); err != nil {
			wrong = append(wrong, err)
		}
	}
	if len(wrong) > 0 {
		return errors.Join(wrong...)
	}
	if _, err := e.dispatch(s, &pfkey.Message{Type: pfkey.COMMIT}); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (e *Engine) run(s *Session, statement config.Statement) error {
	m, err := command.Message(statement)
	if err != nil {
		return err
	}
	defer m.ClearKeys()
	switch m.Type {
	case pfkey.GET, pfkey.DUMP, pfkey.SPDDUMP:
		e.cfg.Log.Info("passed over a statement that only prints; setkey prints it", "at", statement.Pos().String())
		return nil
	}
	if _, err := e.dispatch(s, m); err != nil {
		return fmt.Errorf("%v: %w", statement.Pos(), err)
	}
	return nil
}
