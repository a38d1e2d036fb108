package control

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"ipsecd/pfkey"
)

// acceptPause is how long the server waits after a failed accept, for lack of
// descriptors say, before it tries again.
const acceptPause = 100 * time.Millisecond

// refusalWait is how long a peer that may not use the socket has to send the
// request that its refusal answers.
const refusalWait = time.Second

// Serve answers each connection that l accepts in a goroutine of its own, until
// ctx ends, which is no error, or l fails for good, net.ErrClosed where somebody
// else closed it. It closes l and the connections, and returns when the last
// goroutine is gone. A slow reader slows only its own answers.
func (e *Engine) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel()
	defer l.Close()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if err == nil {
			conns.Go(func() { e.serveConn(ctx, c) })
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		if !passes(err) {
			return err
		}
		e.cfg.Log.Error("cannot accept on the control socket", "err", err)
		select {
		case <-time.After(acceptPause):
		case <-ctx.Done():
		}
	}
}

// passes reports whether accepting may succeed later, with the same listener:
// nobody closed it.
func passes(err error) bool {
	return !errors.Is(err, net.ErrClosed) && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.EBADF)
}

// serveConn answers one peer until it hangs up or ctx ends.
func (e *Engine) serveConn(ctx context.Context, c net.Conn) {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if u, ok := c.(*net.UnixConn); ok {
		if err := checkPeer(u); err != nil {
			e.cfg.Log.Warn("refused a connection to the control socket", "err", err)
			turnAway(u)
			return
		}
	}
	err := e.converse(c)
	if err != nil && !errors.Is(err, io.EOF) && ctx.Err() == nil && !hungUp(err) {
		e.cfg.Log.Warn("a control connection broke", "err", err)
	}
}

// turnAway answers the first request of a peer that may not use the socket with
// EPERM. Of the request nothing but the header is read. A peer that sends none,
// or takes no answer, is just hung up on.
func turnAway(c *net.UnixConn) {
	var in [16]byte
	if c.SetDeadline(time.Now().Add(refusalWait)) != nil {
		return
	}
	n, err := c.Read(in[:])
	if err != nil {
		return
	}
	m, err := pfkey.DecodeHeader(in[:n])
	if err != nil {
		return
	}
	r := reply(&m)
	r.Errno = uint8(syscall.EPERM)
	if out, err := r.Append(nil); err == nil {
		c.Write(out)
	}
}

func hungUp(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

// converse reads one message a datagram. The buffer has room for more than the
// longest, so that one that was cut off fails its length check. No key stays in
// either buffer.
func (e *Engine) converse(c net.Conn) error {
	in, out := make([]byte, pfkey.MaxMessage+8), make([]byte, 0, pfkey.MaxMessage)
	var s Session
	defer s.forget()
	for {
		n, err := c.Read(in)
		if err != nil {
			return err
		}
		answers := e.answerBytes(&s, in[:n])
		clear(in[:n])
		for r := range answers {
			if err := e.send(c, out, r); err != nil {
				return err
			}
		}
	}
}

// send writes r by way of an empty buffer.
func (e *Engine) send(c net.Conn, buf []byte, r *pfkey.Message) error {
	out, err := e.encode(buf, r)
	r.ClearKeys()
	if err != nil {
		return err
	}
	_, err = c.Write(out)
	clear(out)
	return err
}

// encode appends r, or, where the wire has no room for it, a refusal.
func (e *Engine) encode(out []byte, r *pfkey.Message) ([]byte, error) {
	b, err := r.Append(out)
	if err == nil {
		return b, nil
	}
	e.cfg.Log.Error("an answer cannot be expressed", "type", pfkey.TypeName(r.Type), "err", err)
	bare := reply(r)
	bare.Errno = uint8(syscall.EMSGSIZE)
	return bare.Append(out)
}
