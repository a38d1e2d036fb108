package control_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ipsecd/control"
	"ipsecd/pfkey"
)

// serve runs b's server and returns the path of its socket. When the test ends
// the server must have ended cleanly.
func serve(t *testing.T, b *bench) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "control.sock")
	l, err := control.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("the socket is still there: %v", err)
		}
	})
	return path
}

// client is a PF_KEY client of a test.
type client struct {
	t *testing.T
	c net.Conn
}

func dial(t *testing.T, path string) client {
	t.Helper()
	c, err := net.Dial("unixpacket", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return client{t, c}
}

func (c client) send(m *pfkey.Message) {
	c.t.Helper()
	b, err := m.Append(nil)
	if err != nil {
		c.t.Fatal(err)
	}
	c.sendBytes(b)
}

func (c client) sendBytes(b []byte) {
	c.t.Helper()
	if _, err := c.c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

func (c client) receive() *pfkey.Message {
	c.t.Helper()
	b := make([]byte, pfkey.MaxMessage)
	n, err := c.c.Read(b)
	if err != nil {
		c.t.Fatal(err)
	}
	m, err := pfkey.Decode(b[:n])
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

func (c client) must(m *pfkey.Message) *pfkey.Message {
	c.t.Helper()
	c.send(m)
	r := c.receive()
	if r.Errno != 0 {
		c.t.Fatalf("%s: %v %s", pfkey.TypeName(m.Type), syscall.Errno(r.Errno), r.Text)
	}
	return r
}

func TestServerAnswers(t *testing.T) {
	b := newBench(t)
	path := serve(t, b)
	c := dial(t, path)
	c.must(add(0x1000, a4, b4))
	c.must(add(0x1001, a6, b6))
	c.must(spdadd(pfkey.DirOut, "10.1.0.0/16", "10.2.0.0/16"))
	c.send(bare(pfkey.DUMP))
	if first, second := c.receive(), c.receive(); first.SA.SPI != 0x1000 || second.SA.SPI != 0x1001 || second.Seq != 0 {
		t.Errorf("dumped %+v, %+v", first, second)
	}
	c.send(add(0x1000, a4, b4))
	if r := c.receive(); syscall.Errno(r.Errno) != syscall.EEXIST || r.Seq != 7 || r.PID != 4242 {
		t.Errorf("got %+v", r)
	}
}

func TestServerAnswersMalformedMessages(t *testing.T) {
	good, err := add(0x1000, a4, b4).Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	change := func(i int, v byte) []byte {
		b := append([]byte{}, good...)
		b[i] = v
		return b
	}
	// What a buffer of 64 KiB would hold of it is a good message.
	long, err := (&pfkey.Message{Type: pfkey.FLUSH, Text: strings.Repeat("x", pfkey.MaxMessage-20)}).Append(nil)
	if err != nil || len(long) != pfkey.MaxMessage {
		t.Fatal(len(long), err)
	}
	long = append(long, make([]byte, 8)...)
	tests := []struct {
		name  string
		bytes []byte
		want  syscall.Errno
	}{
		{"another version", change(0, 3), syscall.EINVAL},
		{"wrong length", change(4, good[4]+1), syscall.EINVAL},
		{"unknown extension", change(18, 99), syscall.EINVAL},
		{"cut short", good[:len(good)-1], syscall.EINVAL},
		{"no header", good[:5], syscall.EINVAL},
		{"too long", long, syscall.EINVAL},
		{"unknown type, whatever it holds", append(change(1, 77), 1, 2, 3), syscall.EOPNOTSUPP},
	}
	b := newBench(t)
	c := dial(t, serve(t, b))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c.sendBytes(tt.bytes)
			if r := c.receive(); syscall.Errno(r.Errno) != tt.want || r.Text == "" {
				t.Errorf("got %+v", r)
			}
		})
	}
	c.must(add(0x1000, a4, b4))
}

// A peer that does not read its dump neither ends it early nor stops others.
func TestSlowReader(t *testing.T) {
	b := newBench(t)
	path := serve(t, b)
	const n = 5000
	for i := range uint32(n) {
		b.must(t, add(0x1000+i, a4, b4))
	}
	slow, other := dial(t, path), dial(t, path)
	slow.send(bare(pfkey.DUMP))
	slow.receive()
	other.must(add(0x100000, a4, b4))
	other.must(bare(pfkey.FLUSH))
	for want := n - 2; want >= 0; want-- {
		if m := slow.receive(); m.Errno != 0 || m.Seq != uint32(want) {
			t.Fatalf("got %+v, want seq %d", m, want)
		}
	}
}

// The end of a connection ends its transaction.
func TestHangUpForgetsTransaction(t *testing.T) {
	b := newBench(t)
	path := serve(t, b)
	c := dial(t, path)
	c.must(bare(pfkey.BEGIN))
	c.must(add(0x1000, a4, b4))
	c.c.Close()
	again := dial(t, path)
	again.must(add(0x1000, a4, b4))
	if got := b.spis(); len(got) != 1 {
		t.Errorf("SPIs %#x", got)
	}
}

// A peer that is neither root nor our user gets EPERM for its first request, or,
// without one, nothing. The test connects as nobody, on a thread that ends with
// its goroutine.
func TestPeerOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	flush := bare(pfkey.FLUSH)
	flush.SAType = pfkey.SATypeESP
	denied := *flush
	denied.Errno = uint8(syscall.EPERM)
	tests := []struct {
		name string
		send []byte
		want []byte
	}{
		{"a request", wire(t, flush), wire(t, &denied)},
		{"a request that cannot be decoded", append(wire(t, flush), 1, 2, 3), wire(t, &denied)},
		{"no header", []byte("?"), nil},
		{"silence", nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.must(t, add(0x1000, a4, b4))
			path := serve(t, b)
			for _, p := range []string{filepath.Dir(filepath.Dir(path)), filepath.Dir(path), path} {
				if err := os.Chmod(p, 0o777); err != nil {
					t.Fatal(err)
				}
			}
			got, err := askAsNobody(path, tt.send)
			if !errors.Is(err, io.EOF) || !bytes.Equal(got, tt.want) {
				t.Errorf("got %x, then %v; want %x and the end", got, err, tt.want)
			}
			if !strings.Contains(b.log.String(), "user 65534") {
				t.Errorf("log: %s", b.log.String())
			}
			if b.sad.Len() != 1 {
				t.Error("the request was granted")
			}
		})
	}
}

func wire(t *testing.T, m *pfkey.Message) []byte {
	t.Helper()
	b, err := m.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// askAsNobody sends one datagram, unless it is nil, and returns what comes back
// and the error that ends it.
func askAsNobody(path string, send []byte) (got []byte, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		const nobody = 65534
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
			err = errno
			return
		}
		got, err = exchange(path, send)
	}()
	<-done
	return got, err
}

func exchange(path string, send []byte) (got []byte, err error) {
	c, err := net.Dial("unixpacket", path)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if send != nil {
		if _, err := c.Write(send); err != nil {
			return nil, err
		}
	}
	b := make([]byte, pfkey.MaxMessage)
	for {
		n, err := c.Read(b)
		if err != nil {
			return got, err
		}
		got = append(got, b[:n]...)
	}
}

// Serve ends with its context, whatever clients are connected.
func TestServeEndsWithIdleClients(t *testing.T) {
	b := newBench(t)
	l, err := control.Listen(filepath.Join(t.TempDir(), "control.sock"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- b.Serve(ctx, l) }()
	idle := dial(t, l.Addr().String())
	idle.must(bare(pfkey.SPDFLUSH)) // it is being served
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Serve waits for an idle client")
	}
	if n, err := idle.c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the client read %d octets, %v", n, err)
	}
}

// failing is a listener whose Accept fails with one error after another.
type failing struct {
	net.Listener
	errs   []error
	closed atomic.Bool
}

func (f *failing) Accept() (net.Conn, error) {
	err := f.errs[0]
	f.errs = f.errs[1:]
	return nil, err
}

func (f *failing) Close() error {
	f.closed.Store(true)
	return nil
}

func TestServeReturnsWhyItCannotAccept(t *testing.T) {
	opErr := func(errno syscall.Errno) error {
		return &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", errno)}
	}
	for _, last := range []error{net.ErrClosed, opErr(syscall.EINVAL)} {
		b := newBench(t)
		l := &failing{errs: []error{opErr(syscall.EMFILE), last}}
		if err := b.Serve(context.Background(), l); err != last {
			t.Errorf("got %v, want %v", err, last)
		}
		if !l.closed.Load() {
			t.Error("the listener is open")
		}
	}
}

func TestListenIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	l, err := control.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestListenRefuses(t *testing.T) {
	dir := t.TempDir()
	held := filepath.Join(dir, "held.sock")
	l, err := control.Listen(held)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	foreign := filepath.Join(dir, "foreign.sock") // served by somebody without the lock
	f, err := net.Listen("unixpacket", foreign)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ path, want string }{
		{held, "another ipsecd answers on " + held + "; stop it, or give this one its own --run-dir"},
		{foreign, "another ipsecd answers on " + foreign + "; stop it, or give this one its own --run-dir"},
		{file, file + " exists and is no socket; remove it, or choose another --run-dir"},
		{filepath.Join(dir, strings.Repeat("x", 108)), "choose a shorter --run-dir"},
		{filepath.Join(dir, "missing", "control.sock"), "no such file or directory"},
	}
	for _, tt := range tests {
		l, err := control.Listen(tt.path)
		if err == nil {
			l.Close()
			t.Errorf("%s: no error", tt.path)
			continue
		}
		if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %q, want %q", tt.path, err, tt.want)
		}
	}
	os.Remove(held) // the lock speaks where the socket cannot
	if l, err := control.Listen(held); err == nil {
		l.Close()
		t.Error("two listeners hold one lock")
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("the file is %q, %v", b, err)
	}
}

// A socket that its process did not live to remove is replaced.
func TestListenReplacesStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	old, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	old.Close()
	for range 2 { // the second time after a clean end
		l, err := control.Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}
