package e2e

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"
)

// transfer moves n octets from host a at address src to host b at dst over TCP
// and compares their SHA-256. step, unless nil, is called on the way, some
// times.
func transfer(t *testing.T, a, b *host, src, dst string, n int64, step func(part int)) {
	t.Helper()
	l, err := b.ns.Listen("tcp", net.JoinHostPort(dst, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	type result struct {
		n   int64
		sum [32]byte
		err error
	}
	received := make(chan result, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			received <- result{err: err}
			return
		}
		defer c.Close()
		h := sha256.New()
		got, err := io.Copy(h, c)
		received <- result{got, [32]byte(h.Sum(nil)), err}
	}()
	c := dialFrom(t, a, src, l.Addr().String())
	defer c.Close()
	sent := sha256.New()
	sendRandom(t, c, sent, n, step)
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	select {
	case r := <-received:
		if r.err != nil || r.n != n || r.sum != [32]byte(sent.Sum(nil)) {
			t.Errorf("%d of %d octets arrived, SHA-256 equal: %v, %v", r.n, n, r.sum == [32]byte(sent.Sum(nil)), r.err)
		}
	case <-time.After(3 * patience):
		t.Errorf("the transfer does not end; logs:\n%s\n%s", a.log, b.log)
	}
}

func dialFrom(t *testing.T, h *host, src, to string) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var c net.Conn
	err := h.ns.Do(func() (err error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: netip.MustParseAddr(src).AsSlice()}}
		c, err = d.DialContext(ctx, "tcp", to)
		return err
	})
	if err != nil {
		t.Fatalf("host %s: %v; log:\n%s", h.name, err, h.log)
	}
	return c
}

const parts = 16

// sendRandom writes n octets in parts, step after each.
func sendRandom(t *testing.T, c net.Conn, sum hash.Hash, n int64, step func(part int)) {
	t.Helper()
	buf := make([]byte, 256<<10)
	r := rand.NewChaCha8([32]byte{1})
	for part := range parts {
		for left := n/parts + n%parts*int64(part/(parts-1)); left > 0; {
			p := buf[:min(left, int64(len(buf)))]
			r.Read(p)
			sum.Write(p)
			c.SetWriteDeadline(time.Now().Add(3 * patience))
			if _, err := c.Write(p); err != nil {
				t.Fatal(err)
			}
			left -= int64(len(p))
		}
		if step != nil {
			step(part)
		}
	}
}

// ask sends one UDP datagram from a at src to b at dst, which is answered, and
// reports whether the answer came within the time.
func ask(t *testing.T, a, b *host, src, dst string, wait time.Duration) bool {
	t.Helper()
	return askPort(t, a, b, src, dst, "0", wait)
}

// askPort is ask at a port.
func askPort(t *testing.T, a, b *host, src, dst, port string, wait time.Duration) bool {
	t.Helper()
	return askPorts(t, a, b, src, dst, "0", port, wait)
}

// askPorts is ask from a port to another.
func askPorts(t *testing.T, a, b *host, src, dst, srcPort, dstPort string, wait time.Duration) bool {
	t.Helper()
	server := packetConn(t, b, net.JoinHostPort(dst, dstPort))
	defer server.Close()
	client := packetConn(t, a, net.JoinHostPort(src, srcPort))
	defer client.Close()
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			server.WriteTo(buf[:n], from)
		}
	}()
	client.WriteTo([]byte("are you there?"), server.LocalAddr())
	client.SetReadDeadline(time.Now().Add(wait))
	n, _, err := client.ReadFrom(make([]byte, 2048))
	return err == nil && n > 0
}

func packetConn(t *testing.T, h *host, address string) net.PacketConn {
	t.Helper()
	var c net.PacketConn
	err := h.ns.Do(func() (err error) {
		c, err = net.ListenPacket("udp", address)
		return err
	})
	if err != nil {
		t.Fatalf("host %s: %v", h.name, err)
	}
	return c
}

// chatter sends a datagram from each side to the other all the time until the
// test ends.
func chatter(t *testing.T, a, b *host, addrA, addrB string, every time.Duration) {
	t.Helper()
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	for _, way := range []struct {
		h        *host
		src, dst string
	}{{a, addrA, addrB}, {b, addrB, addrA}} {
		c := packetConn(t, way.h, net.JoinHostPort(way.src, "7"))
		to := &net.UDPAddr{IP: netip.MustParseAddr(way.dst).AsSlice(), Port: 7}
		go func() {
			defer c.Close()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(every):
				}
				fmt.Fprintf(writerTo{c, to}, "chatter %d", i)
			}
		}()
	}
}

type writerTo struct {
	c  net.PacketConn
	to net.Addr
}

func (w writerTo) Write(p []byte) (int, error) { return w.c.WriteTo(p, w.to) }
