package routes

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func (h *host) rawSocket(proto int) (fd int) {
	h.Helper()
	h.do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
		return err
	})
	h.Cleanup(func() { unix.Close(fd) })
	return fd
}

// socket makes one that sends as programs do: the kernel knows the port of
// datagrams by a UDP socket alone.
func (h *host) socket(proto int) (fd int) {
	h.Helper()
	if proto != unix.IPPROTO_UDP {
		return h.rawSocket(proto)
	}
	h.do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrInet4{Port: 4500})
	})
	h.Cleanup(func() { unix.Close(fd) })
	return fd
}

// send is sendPort for encapsulation.
func send(t *testing.T, fd int, dst, text string) {
	t.Helper()
	sendPort(t, fd, 4500, dst, text)
}

// sendPort sends the text behind a UDP header from the port to the same, in which
// other protocols than UDP see eight octets more of payload.
func sendPort(t *testing.T, fd int, port uint16, dst, text string) {
	t.Helper()
	high, low := byte(port>>8), byte(port)
	header := []byte{high, low, high, low, 0, byte(8 + len(text)), 0, 0}
	to := &unix.SockaddrInet4{Port: int(port), Addr: netip.MustParseAddr(dst).As4()}
	if err := unix.Sendto(fd, append(header, text...), 0, to); err != nil {
		t.Fatal(err)
	}
}

// receive waits up to ten seconds for a packet.
func receive(t *testing.T, fd int) string {
	t.Helper()
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, _, err := unix.Recvfrom(fd, b, 0)
	if err != nil {
		t.Fatalf("no packet arrived: %v", err)
	}
	return string(b[:n])
}

// awaitTUN waits up to ten seconds for a packet with the text at its end.
func awaitTUN(t *testing.T, tun *os.File, text string) {
	t.Helper()
	fd := int(tun.Fd())
	b := make([]byte, 2000)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000)
		if err == unix.EINTR {
			continue
		}
		if n == 0 || err != nil {
			t.Fatalf("%q did not come to the TUN: %v", text, err)
		}
		if n, err = unix.Read(fd, b); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(string(b[:n]), text) {
			return
		}
	}
}
