package pfclient

import (
	"bytes"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ipsecd/internal/pfclient/pfclienttest"
	"ipsecd/pfkey"
)

func dial(t *testing.T, handle func(*pfkey.Message) []*pfkey.Message) (*Client, *pfclienttest.Server) {
	t.Helper()
	s := pfclienttest.Start(t, handle)
	c, err := Dial(s.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, s
}

func TestDo(t *testing.T) {
	c, s := dial(t, pfclienttest.Echo)
	for range 2 {
		req := &pfkey.Message{Type: pfkey.BEGIN}
		replies, err := c.Do(req)
		if err != nil || len(replies) != 1 || replies[0].Type != pfkey.BEGIN {
			t.Fatalf("%v, %v", replies, err)
		}
		if req.Seq != 0 || req.PID != 0 {
			t.Error("the request was changed")
		}
	}
	seen := s.Seen()
	if seen[0].PID == 0 || seen[0].Seq == seen[1].Seq {
		t.Errorf("pid %d, sequence numbers %d and %d", seen[0].PID, seen[0].Seq, seen[1].Seq)
	}
}

// TestDoSkipsOthers puts messages to all before the answer.
func TestDoSkipsOthers(t *testing.T) {
	c, _ := dial(t, func(m *pfkey.Message) []*pfkey.Message {
		return []*pfkey.Message{
			{Type: m.Type, Seq: m.Seq, PID: m.PID + 1},
			{Type: m.Type, Seq: m.Seq + 1, PID: m.PID},
			{Type: pfkey.EXPIRE, Seq: m.Seq, PID: m.PID},
			{Type: m.Type, Seq: m.Seq, PID: m.PID, Reserved: 7},
		}
	})
	replies, err := c.Do(&pfkey.Message{Type: pfkey.FLUSH})
	if err != nil || len(replies) != 1 || replies[0].Reserved != 7 {
		t.Errorf("%v, %v", replies, err)
	}
}

func TestDoDump(t *testing.T) {
	const n = 3000
	c, _ := dial(t, func(m *pfkey.Message) (out []*pfkey.Message) {
		for i := range n {
			out = append(out, &pfkey.Message{Type: m.Type, Seq: uint32(n - 1 - i), PID: m.PID, SA: &pfkey.SA{SPI: uint32(i)}})
		}
		return out
	})
	replies, err := c.Do(&pfkey.Message{Type: pfkey.DUMP})
	if err != nil || len(replies) != n {
		t.Fatalf("%d replies, %v", len(replies), err)
	}
	for i, r := range replies {
		if r.SA.SPI != uint32(i) {
			t.Fatalf("reply %d is %d", i, r.SA.SPI)
		}
	}
}

func TestDoLongMessage(t *testing.T) {
	c, _ := dial(t, pfclienttest.Echo)
	req := &pfkey.Message{Type: pfkey.REGISTER, SupEnc: make([]pfkey.SupportedAlg, 8000)}
	if b, err := req.Append(nil); err != nil || len(b) < 60<<10 {
		t.Fatalf("%d octets, %v", len(b), err)
	}
	replies, err := c.Do(req)
	if err != nil || len(replies) != 1 || len(replies[0].SupEnc) != 8000 {
		t.Errorf("%v", err)
	}
}

func TestDoRefused(t *testing.T) {
	c, _ := dial(t, func(m *pfkey.Message) []*pfkey.Message {
		r := pfclienttest.Refuse(m, uint8(syscall.EEXIST))
		if m.Type == pfkey.SPDADD {
			r[0].Text = "because"
		}
		return r
	})
	for typ, want := range map[uint8]string{pfkey.ADD: "ADD: file exists", pfkey.SPDADD: "because", pfkey.DUMP: "DUMP: file exists"} {
		_, err := c.Do(&pfkey.Message{Type: typ})
		if !errors.Is(err, syscall.EEXIST) || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestDoClosed(t *testing.T) {
	c, _ := dial(t, func(*pfkey.Message) []*pfkey.Message { return []*pfkey.Message{nil} })
	_, err := c.Do(&pfkey.Message{Type: pfkey.FLUSH})
	if err == nil || !strings.Contains(err.Error(), "it closed the connection; is it running?") {
		t.Errorf("%v", err)
	}
}

func TestDialNobody(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "s")
	dead := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: dead, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for path, reason := range map[string]string{missing: "no such file or directory", dead: "connection refused"} {
		_, err := Dial(path)
		want := "ipsecd does not answer on " + path + ": " + reason +
			"; is it running? start it with `ipsecd run`, or name its socket by -S or $IPSECD_SOCKET"
		if err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

// wire is a connection that keeps the slices it was given to write, and answers
// with what was written last.
type wire struct {
	net.Conn
	written       [][]byte
	readDeadlines []time.Time
	readEarly     bool // without a deadline of its own
}

func (w *wire) SetWriteDeadline(time.Time) error { return nil }

func (w *wire) SetReadDeadline(t time.Time) error {
	w.readDeadlines = append(w.readDeadlines, t)
	return nil
}

func (w *wire) Write(b []byte) (int, error) {
	w.written = append(w.written, b)
	return len(b), nil
}

func (w *wire) Read(b []byte) (int, error) {
	w.readEarly = w.readEarly || len(w.readDeadlines) < len(w.written)
	return copy(b, w.written[len(w.written)-1]), nil
}

// secret is a request that comes back as it is, with its key.
func secret(c *Client) ([]*pfkey.Message, error) {
	return c.Do(&pfkey.Message{Type: pfkey.ADD, EncKey: &pfkey.Key{Bits: 160, Data: []byte("0123456789abcdefsalt")}})
}

func TestDoLeavesNoKeysBehind(t *testing.T) {
	w := &wire{}
	c := &Client{conn: w, buf: make([]byte, pfkey.MaxMessage+1)}
	replies, err := secret(c)
	if err != nil || len(replies) != 1 || string(replies[0].EncKey.Data) != "0123456789abcdefsalt" {
		t.Fatalf("%v, %v", replies, err)
	}
	if zero := make([]byte, len(w.written[0])); !bytes.Equal(w.written[0], zero) {
		t.Errorf("the request is still there: %x", w.written[0])
	}
	if zero := make([]byte, len(c.buf)); !bytes.Equal(c.buf, zero) {
		t.Error("the answer is still there")
	}
}

func TestEveryReadHasADeadline(t *testing.T) {
	w := &wire{}
	c := &Client{conn: w, buf: make([]byte, pfkey.MaxMessage+1)}
	for range 2 {
		if _, err := secret(c); err != nil {
			t.Fatal(err)
		}
	}
	if w.readEarly || len(w.readDeadlines) != 2 || w.readDeadlines[0].IsZero() {
		t.Errorf("deadlines %v, a read before its own: %v", w.readDeadlines, w.readEarly)
	}
}
