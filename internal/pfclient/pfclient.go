// Package pfclient is a client of ipsecd's control socket: PF_KEY messages over
// a Unix SOCK_SEQPACKET socket, one message a datagram.
//
// A Client sends one request at a time; it is for one goroutine.
package pfclient

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"ipsecd/pfkey"
)

// patience is how long one message of an answer may take: a daemon that works
// answers in milliseconds.
const patience = 30 * time.Second

// Client is a connection to the daemon.
type Client struct {
	conn net.Conn
	path string
	pid  uint32
	seq  uint32
	buf  []byte
}

// Refused is the daemon's answer that it did not do what was asked.
type Refused struct {
	Type  uint8 // of the request
	Errno syscall.Errno
	Text  string // the daemon's explanation; may be empty
}

func (r *Refused) Error() string {
	if r.Text != "" {
		return r.Text
	}
	return fmt.Sprintf("%s: %v", pfkey.TypeName(r.Type), r.Errno)
}

func (r *Refused) Unwrap() error { return r.Errno }

// Dial connects to the socket at a path.
func Dial(path string) (*Client, error) {
	conn, err := net.Dial("unixpacket", path)
	if err != nil {
		return nil, silent(path, err)
	}
	return &Client{conn: conn, path: path, pid: uint32(os.Getpid()), buf: make([]byte, pfkey.MaxMessage+1)}, nil
}

// silent is the one line about a daemon that does not answer, for whatever
// reason.
func silent(path string, err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		err = op.Err
	}
	if call := (*os.SyscallError)(nil); errors.As(err, &call) {
		err = call.Err
	}
	if errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("ipsecd does not let this user in on %s: %w; try as root", path, err)
	}
	return fmt.Errorf("ipsecd does not answer on %s: %w; is it running? start it with `ipsecd run`,"+
		" or name its socket by -S or $IPSECD_SOCKET", path, err)
}

// Close ends the connection; a transaction that was begun and not committed is
// forgotten.
func (c *Client) Close() error { return c.conn.Close() }

// Do sends a request, whose Seq and PID it sets by itself, and returns what
// answers it: one message, or one for each entry of a dump. A request that the
// daemon refused gives a *Refused, which wraps the errno; after any other error
// the connection is of no more use.
func (c *Client) Do(req *pfkey.Message) (replies []*pfkey.Message, err error) {
	err = c.Each(req, func(m *pfkey.Message) { replies = append(replies, m) })
	return replies, err
}

// Each is Do for dumps of any length: it hands over each message as it comes.
func (c *Client) Each(req *pfkey.Message, f func(*pfkey.Message)) error {
	m := *req
	c.seq++
	m.Seq, m.PID = c.seq, c.pid
	b, err := m.Append(nil)
	if err != nil {
		return fmt.Errorf("%s: %w", pfkey.TypeName(m.Type), err)
	}
	defer clear(b)
	if err := c.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := c.conn.Write(b); err != nil {
		return silent(c.path, err)
	}
	return c.answer(&m, f)
}

func (c *Client) answer(req *pfkey.Message, f func(*pfkey.Message)) error {
	for {
		m, err := c.read()
		if err != nil {
			return err
		}
		if !answers(m, req) {
			continue
		}
		if m.Errno != 0 {
			return &Refused{Type: req.Type, Errno: syscall.Errno(m.Errno), Text: m.Text}
		}
		f(m)
		if !isDump(req.Type) || m.Seq == 0 {
			return nil
		}
	}
}

// answers tells an answer from a message that the daemon sends to all. The
// entries of a dump count down to 0 in Seq.
func answers(m, req *pfkey.Message) bool {
	if m.Type != req.Type || m.PID != req.PID {
		return false
	}
	return isDump(req.Type) || m.Seq == req.Seq
}

func isDump(typ uint8) bool { return typ == pfkey.DUMP || typ == pfkey.SPDDUMP }

func (c *Client) read() (*pfkey.Message, error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	n, err := c.conn.Read(c.buf)
	if errors.Is(err, io.EOF) {
		err = errors.New("it closed the connection")
	}
	if err != nil {
		return nil, silent(c.path, err)
	}
	m, err := pfkey.Decode(c.buf[:n])
	clear(c.buf[:n])
	if err != nil {
		return nil, fmt.Errorf("ipsecd on %s answers with a message that cannot be read: %w", c.path, err)
	}
	return m, nil
}
