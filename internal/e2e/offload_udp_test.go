package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// digest is what came of a connection.
type digest struct {
	n   int64
	sum [32]byte
	err error
}

// digestOf reads the next connection to its end.
func digestOf(l net.Listener) digest {
	c, err := l.Accept()
	if err != nil {
		return digest{err: err}
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(3 * patience))
	h := sha256.New()
	n, err := io.Copy(h, c)
	return digest{n, [32]byte(h.Sum(nil)), err}
}

// send writes n octets and the end.
func send(t *testing.T, c net.Conn, n int64) digest {
	t.Helper()
	h := sha256.New()
	sendRandom(t, c, h, n, nil)
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	return digest{n, [32]byte(h.Sum(nil)), nil}
}

// Trains of datagrams that a program sends in one call arrive as those datagrams,
// for a receiver that takes trains and for one that does not.
func TestOffloadUDPTrains(t *testing.T) {
	a, b := newPair(t)
	startTunnels(a, b, offloadTunnels...)
	atA, atB := tapTUN(t, a), tapTUN(t, b)
	for _, tun := range offloadTunnels {
		for _, takes := range []int{0, 1} {
			t.Run(fmt.Sprintf("%s, UDP_GRO %d", tun.name, takes), func(t *testing.T) {
				from := packetConn(t, a, net.JoinHostPort(tun.innerA, "0")).(*net.UDPConn)
				defer from.Close()
				to := packetConn(t, b, net.JoinHostPort(tun.innerB, "0")).(*net.UDPConn)
				defer to.Close()
				sockopt(t, to, unix.IPPROTO_UDP, unix.UDP_GRO, takes)
				for _, tt := range []struct{ size, count, last int }{
					{1000, 1, 1000}, {1000, 2, 1}, {1000, 40, 999}, {1300, 45, 1300}, {17, 64, 5}, {500, 64, 500}, {1, 30, 1},
				} {
					sockopt(t, from, unix.IPPROTO_UDP, unix.UDP_SEGMENT, tt.size)
					data := sequence((tt.count-1)*tt.size + tt.last)
					if _, err := from.WriteTo(data, to.LocalAddr()); err != nil {
						t.Fatal(err)
					}
					got := datagrams(t, to, tt.count)
					for i, d := range got {
						if want := data[i*tt.size : min(len(data), (i+1)*tt.size)]; !bytes.Equal(d, want) {
							t.Fatalf("datagram %d of %d has %d octets, want %d, or others", i, tt.count, len(d), len(want))
						}
					}
				}
			})
		}
	}
	if sent, _ := atA.longest(); sent <= 1500 {
		t.Errorf("host A hands over datagrams one by one: the longest packet has %d octets", sent)
	}
	if _, got := atB.longest(); got <= 1500 {
		t.Errorf("host B gets datagrams one by one: the longest packet has %d octets", got)
	}
}

func sequence(n int) (p []byte) {
	for i := range (n + 3) / 4 {
		p = binary.BigEndian.AppendUint32(p, uint32(i)*2654435761)
	}
	return p[:n]
}

func sockopt(t *testing.T, c *net.UDPConn, level, name, value int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), level, name, value) }); err != nil || failed != nil {
		t.Fatalf("socket option %d of %d: %v, %v", name, level, err, failed)
	}
}

// datagrams reads n of them, however the kernel joined them.
func datagrams(t *testing.T, c *net.UDPConn, n int) (all [][]byte) {
	t.Helper()
	buf, oob := make([]byte, 1<<16), make([]byte, 128)
	c.SetReadDeadline(time.Now().Add(patience))
	for len(all) < n {
		k, oobn, _, _, err := c.ReadMsgUDP(buf, oob)
		if err != nil {
			t.Fatalf("%d of %d datagrams: %v", len(all), n, err)
		}
		size, p := max(1, k), bytes.Clone(buf[:k])
		msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range msgs {
			if m.Header.Level == unix.IPPROTO_UDP && m.Header.Type == unix.UDP_GRO {
				size = int(binary.NativeEndian.Uint32(m.Data))
			}
		}
		for len(p) > size {
			all, p = append(all, p[:size]), p[size:]
		}
		all = append(all, p)
	}
	return all
}
