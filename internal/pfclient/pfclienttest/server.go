// Package pfclienttest is a PF_KEY server for tests of clients.
package pfclienttest

import (
	"net"
	"path/filepath"
	"sync"
	"testing"

	"ipsecd/pfkey"
)

// Server answers each request with what a handler returns, and keeps the
// requests.
type Server struct {
	Path string // of the socket

	handle func(*pfkey.Message) []*pfkey.Message
	done   sync.WaitGroup

	mu   sync.Mutex
	seen []*pfkey.Message // [m]
	conn []net.Conn       // [m]
}

// Start listens on a new socket until the test ends. A handler that returns
// nothing leaves the request without an answer; a nil message among what it
// returns closes the connection.
func Start(t testing.TB, handle func(*pfkey.Message) []*pfkey.Message) *Server {
	t.Helper()
	s := &Server{Path: filepath.Join(t.TempDir(), "s"), handle: handle}
	l, err := net.Listen("unixpacket", s.Path)
	if err != nil {
		t.Fatal(err)
	}
	s.done.Go(func() { s.accept(t, l) })
	t.Cleanup(func() {
		l.Close()
		s.closeAll()
		s.done.Wait()
	})
	return s
}

// Seen returns the requests so far.
func (s *Server) Seen() []*pfkey.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*pfkey.Message(nil), s.seen...)
}

// Echo answers a request with itself, without keys.
func Echo(m *pfkey.Message) []*pfkey.Message {
	r := *m
	r.EncKey, r.AuthKey = nil, nil
	return []*pfkey.Message{&r}
}

// Refuse answers a request with its header and an errno.
func Refuse(m *pfkey.Message, errno uint8) []*pfkey.Message {
	return []*pfkey.Message{{Type: m.Type, Errno: errno, SAType: m.SAType, Seq: m.Seq, PID: m.PID}}
}

func (s *Server) accept(t testing.TB, l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conn = append(s.conn, c)
		s.mu.Unlock()
		s.done.Go(func() { s.serve(t, c) })
	}
}

func (s *Server) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conn {
		c.Close()
	}
}

func (s *Server) serve(t testing.TB, c net.Conn) {
	defer c.Close()
	buf := make([]byte, pfkey.MaxMessage)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		m, err := pfkey.Decode(buf[:n])
		if err != nil {
			t.Errorf("request: %v", err)
			return
		}
		s.mu.Lock()
		s.seen = append(s.seen, m)
		s.mu.Unlock()
		for _, r := range s.handle(m) {
			if !s.send(t, c, r) {
				return
			}
		}
	}
}

func (s *Server) send(t testing.TB, c net.Conn, m *pfkey.Message) bool {
	if m == nil {
		return false
	}
	b, err := m.Append(nil)
	if err != nil {
		t.Errorf("answer: %v", err)
		return false
	}
	_, err = c.Write(b)
	return err == nil
}
