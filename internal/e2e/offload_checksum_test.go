package e2e

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// end is one side of a tunnel: a host and its inner address.
type end struct {
	*host
	addr netip.Addr
	tap  *tap
}

// bothWays runs f for each direction of each form of ESP.
func bothWays(t *testing.T, f func(t *testing.T, from, to end)) {
	a, b := newPair(t)
	startTunnels(a, b, offloadTunnels...)
	atA, atB := tapTUN(t, a), tapTUN(t, b)
	for _, tun := range offloadTunnels {
		one := end{a, netip.MustParseAddr(tun.innerA), atA}
		two := end{b, netip.MustParseAddr(tun.innerB), atB}
		t.Run(tun.name+" A to B", func(t *testing.T) { f(t, one, two) })
		t.Run(tun.name+" B to A", func(t *testing.T) { f(t, two, one) })
	}
}

// A datagram whose checksum is wrong arrives wrong, octet for octet: its
// receiver's kernel finds it out and counts it. Good ones of the same flow in
// front of it and behind it are delivered, and one without a checksum is.
func TestOffloadCorruptUDP(t *testing.T) {
	bothWays(t, func(t *testing.T, from, to end) {
		server := packetConn(t, to.host, net.JoinHostPort(to.addr.String(), "0")).(*net.UDPConn)
		defer server.Close()
		port := uint16(server.LocalAddr().(*net.UDPAddr).Port)
		errors := to.checksumErrors("Udp", to.addr)
		var pkts, corrupt [][]byte
		var good []string
		for i := range 40 {
			data := fmt.Sprintf("datagram %02d", i)
			p := from.datagram(to, port, uint16(100+i), []byte(data))
			switch {
			case i%10 == 5:
				p[len(p)-len(data)-1] ^= 0x5a // the low octet of the checksum
				corrupt = append(corrupt, p)
			case i == 33 && to.addr.Is4():
				clear(p[len(p)-len(data)-2 : len(p)-len(data)])
				fallthrough
			default:
				good = append(good, data)
			}
			pkts = append(pkts, p)
		}
		from.sendRaw(pkts...)
		for i, d := range datagrams(t, server, len(good)) {
			if string(d) != good[i] {
				t.Fatalf("datagram %d of %d is %q, want %q", i, len(good), d, good[i])
			}
		}
		to.eventually("counting checksum errors", func() bool { return to.checksumErrors("Udp", to.addr) >= errors+len(corrupt) })
		to.sees(t, corrupt...)
		if n := to.checksumErrors("Udp", to.addr); n != errors+len(corrupt) {
			t.Errorf("%d checksum errors, want %d", n-errors, len(corrupt))
		}
	})
}

// A segment whose checksum is wrong arrives wrong in the middle of a connection,
// which goes on without it.
func TestOffloadCorruptTCP(t *testing.T) {
	bothWays(t, func(t *testing.T, from, to end) {
		l, err := to.ns.Listen("tcp", net.JoinHostPort(to.addr.String(), "0"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c := dialFrom(t, from.host, from.addr.String(), l.Addr().String())
		defer c.Close()
		peer, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		exchange := func(say string) {
			t.Helper()
			if _, err := c.Write([]byte(say)); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 99)
			peer.SetReadDeadline(time.Now().Add(patience))
			if n, err := peer.Read(buf); err != nil || string(buf[:n]) != say {
				t.Fatalf("got %q, %v, want %q", buf[:n], err, say)
			}
		}
		exchange("before")
		errors := to.checksumErrors("Tcp", to.addr)
		corrupt := from.next(t, c, "before", "FORGED")
		from.sendRaw(corrupt)
		to.eventually("counting a checksum error", func() bool { return to.checksumErrors("Tcp", to.addr) > errors })
		to.sees(t, corrupt)
		exchange("behind")
	})
}

// checksumErrors is the kernel's count of them for a protocol and the family of
// an address.
func (e *end) checksumErrors(proto string, addr netip.Addr) int {
	e.Helper()
	text := e.counter(proto, "InCsumErrors")
	if addr.Is6() && proto == "Udp" { // TCP counts both families together
		all, _ := e.run("cat", "/proc/net/snmp6")
		for line := range strings.Lines(all) {
			if f := strings.Fields(line); f[0] == "Udp6InCsumErrors" {
				text = f[1]
			}
		}
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		e.Fatal(err)
	}
	return n
}

// sees wants each packet to have come out of the TUN once, as it is.
func (e *end) sees(t *testing.T, pkts ...[]byte) {
	t.Helper()
	for _, p := range pkts {
		e.eventually("seeing a packet", func() bool { return e.tap.saw(p) > 0 })
		if n := e.tap.saw(p); n != 1 {
			t.Errorf("seen %d times: %x", n, p)
		}
	}
}

// sendRaw sends whole IP packets from the host.
func (e *end) sendRaw(pkts ...[]byte) {
	e.Helper()
	err := e.ns.Do(func() error {
		family := unix.AF_INET
		if e.addr.Is6() {
			family = unix.AF_INET6
		}
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		defer unix.Close(fd)
		for _, p := range pkts {
			var to unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte(p[16:20])}
			if e.addr.Is6() {
				to = &unix.SockaddrInet6{Addr: [16]byte(p[24:40])}
			}
			if err := unix.Sendto(fd, p, 0, to); err != nil {
				return os.NewSyscallError("sendto", err)
			}
		}
		return nil
	})
	if err != nil {
		e.Fatal(err)
	}
}

// datagram is a whole UDP packet to a port, its checksum right.
func (e *end) datagram(to end, port, id uint16, data []byte) []byte {
	udp := binary.BigEndian.AppendUint16(nil, 4321)
	udp = binary.BigEndian.AppendUint16(udp, port)
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(data)))
	udp = append(append(udp, 0, 0), data...)
	return e.packet(to.addr, unix.IPPROTO_UDP, id, udp, 6)
}

// next is what the connection would send behind the segment with the data
// "last", if its checksum were right.
func (e *end) next(t *testing.T, c net.Conn, last, data string) []byte {
	t.Helper()
	to, local := c.RemoteAddr().(*net.TCPAddr), c.LocalAddr().(*net.TCPAddr)
	ipLen := 20
	if e.addr.Is6() {
		ipLen = 40
	}
	var tcp []byte
	e.eventually("seeing its own segment", func() bool {
		e.tap.mu.Lock()
		defer e.tap.mu.Unlock()
		for _, p := range e.tap.pkts {
			if p.fromHost && strings.HasSuffix(string(p.octets), last) && binary.BigEndian.Uint16(p.octets[ipLen:]) == uint16(local.Port) {
				tcp = append([]byte(nil), p.octets[ipLen:len(p.octets)-len(last)]...)
			}
		}
		return tcp != nil
	})
	binary.BigEndian.PutUint32(tcp[4:], binary.BigEndian.Uint32(tcp[4:])+uint32(len(last)))
	tcp[16], tcp[17] = 0, 0
	p := e.packet(to.AddrPort().Addr().Unmap(), unix.IPPROTO_TCP, 77, append(tcp, data...), 16)
	p[len(p)-1] ^= 1
	return p
}

// packet is an IP packet of an upper layer whose checksum stands at off.
func (e *end) packet(to netip.Addr, proto byte, id uint16, l4 []byte, off int) []byte {
	src, dst := e.addr.AsSlice(), to.AsSlice()
	sum := ^onesSum(src, dst, []byte{0, proto, byte(len(l4) >> 8), byte(len(l4))}, l4)
	binary.BigEndian.PutUint16(l4[off:], sum)
	if to.Is6() {
		h := append([]byte{0x60, 0, 0, 0, byte(len(l4) >> 8), byte(len(l4)), proto, 64}, src...)
		return append(append(h, dst...), l4...)
	}
	n := 20 + len(l4)
	h := append([]byte{0x45, 0, byte(n >> 8), byte(n), byte(id >> 8), byte(id), 0x40, 0, 64, proto, 0, 0}, src...)
	h = append(h, dst...)
	binary.BigEndian.PutUint16(h[10:], ^onesSum(h))
	return append(h, l4...)
}
