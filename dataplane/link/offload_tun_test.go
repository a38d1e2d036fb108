package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ipsecd/internal/routes"
	"ipsecd/packet"
)

// router is a host with a second TUN, to which it forwards what comes from the
// first. The second one offloads nothing: the kernel takes apart and finishes
// what it hands over there.
type router struct {
	*tunHost
	plain *tunHost // the same host
}

func newRouter(t *testing.T) *router {
	t.Helper()
	r := &router{tunHost: newTUNHost(t, "router", 1)}
	r.do(func() (err error) {
		second, err := OpenTUN("ipsec%d")
		if err != nil {
			return err
		}
		t.Cleanup(func() { second.Close() })
		r.plain = &tunHost{host: r.host, tun: second}
		if err := noOffload(second.(*tunDevice)); err != nil {
			return err
		}
		if err := routes.SetupLink(second.Name(), mtu, nil, GSOSize, GSOSegs); err != nil {
			return err
		}
		for _, path := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
			if err := os.WriteFile("/proc/sys/net/"+path, []byte("1"), 0); err != nil {
				return err
			}
		}
		for _, n := range []struct {
			tun TUN
			net string
		}{{r.tun, "192.0.2.0/24"}, {r.tun, "2001:db8::/64"}, {second, "198.51.100.0/24"}, {second, "2001:db8:ffff::/64"}} {
			if err := addRoute(n.tun.Name(), n.net); err != nil {
				return err
			}
		}
		return r.plain.awaitReady()
	})
	return r
}

func noOffload(t *tunDevice) (err error) {
	if e := t.raw.conn.Control(func(fd uintptr) { err = unix.IoctlSetInt(int(fd), unix.TUNSETOFFLOAD, 0) }); e != nil {
		return e
	}
	return err
}

func addRoute(name, prefix string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	p := netip.MustParsePrefix(prefix)
	return netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index,
		Dst: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}})
}

// forwarded writes frames that a Coalescer made of pkts and returns what the
// kernel forwards of them.
func (r *router) forwarded(c *packet.Coalescer, pkts [][]byte) (out [][]byte) {
	r.t.Helper()
	w := r.tun.Writer()
	flush := func() {
		if b, ok := c.Burst(); ok {
			if err := w.Write(b); err != nil {
				r.t.Fatalf("%d packets in a frame: %v", b.Len(), err)
			}
		}
	}
	for _, p := range pkts {
		b := packet.Burst{Head: bytes.Clone(p)}
		if d := b.Classify(); d != packet.Kept {
			r.t.Fatal(d)
		}
		if !c.Join(b.Head, &b.H) {
			flush()
			c.Start(b.Head, &b.H)
		}
	}
	flush()
	for len(out) < len(pkts) {
		b := r.plain.next(func(b *packet.Burst) bool { return b.H.SrcPort == 40000 })
		if b.Seg != packet.Lone || b.Partial {
			r.t.Fatalf("segmentation %d, partial %v", b.Seg, b.Partial)
		}
		out = append(out, bytes.Clone(b.Head))
	}
	return out
}

// The kernel itself takes apart what was joined for it, here to forward it: the
// packets that come out are those that went in, their TTL one less. So are the
// slow segmenter's.
func TestOffloadKernelTakesApart(t *testing.T) {
	r := newRouter(t)
	udp := r.tun.(TakesUDP).TakesUDP()
	for name, s := range shapes {
		if s.ext != nil || s.ipOptions != nil {
			continue // never joined, and no host forwards source routes
		}
		t.Run(name, func(t *testing.T) {
			r.t, r.plain.t = t, t
			s.ttl, s.port = 63, 443
			for _, k := range []int{2, 3, 40} {
				for _, last := range []int{1000, 999, 1} {
					s.payload = pattern((k-1)*1000+last, byte(k))
					in := s.packets(t, 1000)
					s.ttl--
					want := s.packets(t, 1000)
					s.ttl++
					equal(t, fmt.Sprintf("%d packets, the last %d", k, last), r.forwarded(&packet.Coalescer{UDP: udp}, in), want)
				}
			}
		})
	}
}

// What the kernel hands over of a train that bears a routing header has the
// checksum that the end of the route expects.
func TestOffloadRoutedTrain(t *testing.T) {
	h := newTUNHost(t, "host", 1)
	via := packet.AddrFrom(netip.MustParseAddr("fd00:9::50"))
	// RFC 8754 2: two segments; where the route ends, the first, the kernel
	// fills in.
	header := append([]byte{0, 4, 4, 1, 1, 0, 0, 0}, make([]byte, 16)...)
	header = append(header, via[:]...)
	h.do(func() error {
		c, err := net.Dial("udp", "[fd00:9::99]:4433")
		if err != nil {
			return err
		}
		defer c.Close()
		return sendRoutedTrain(c.(*net.UDPConn), string(header), pattern(4321, 1), 1000)
	})
	for got := 0; got < 5; {
		b := h.next(func(b *packet.Burst) bool { return b.H.DstPort == 4433 })
		if b.H.Dst != via {
			t.Fatalf("bound for %s, want %s", b.H.Dst, via)
		}
		for i, p := range whole(b) {
			l4 := p[b.H.L4:]
			if sum := slowSum(append(pseudoHeader(p, packet.ProtoUDP, len(l4)), l4...)); sum != 0xffff {
				t.Errorf("packet %d of %d: the checksum is wrong by %#x", i, b.Len(), ^sum)
			}
			got++
		}
	}
}

// sendRoutedTrain sends data in datagrams of size octets by one UDP_SEGMENT
// call, with a routing header.
func sendRoutedTrain(c *net.UDPConn, header string, data []byte, size int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		if failed = unix.SetsockoptString(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RTHDR, header); failed == nil {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, size)
		}
	})
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	_, err = c.Write(data)
	return err
}

// The header of datagrams over IPv4, of which the socket does not tell the ID, is
// one that needs none: packets that are made with it, in transport mode, join.
func TestOffloadDatagramHeadersJoin(t *testing.T) {
	a, b := wired(t)
	in := b.udp(false, natT)
	var pkts [][]byte
	for i := range 5 {
		pkts = append(pkts, datagram(a.addr(false), b.addr(false), false, 0, natT, pattern(100, byte(i))))
	}
	if _, err := a.udp(false, natT).Writer().Write(pkts); err != nil {
		t.Fatal(err)
	}
	var made [][]byte
	s := shape{flags: ack, payload: pattern(100, 1)}
	for _, g := range receive(t, in, len(pkts)) {
		for range g.Segs {
			p := append(bytes.Clone(g.Head[:packet.IPv4HeaderLen]), s.upper(t)...)
			p[9] = packet.ProtoTCP
			binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
			clear(p[10:12])
			binary.BigEndian.PutUint16(p[10:], ^slowSum(p[:20]))
			clear(p[36:38])
			binary.BigEndian.PutUint16(p[36:], ^slowSum(append(pseudoHeader(p, packet.ProtoTCP, len(p)-20), p[20:]...)))
			made = append(made, p)
			s.seq += 100
		}
	}
	if frames := joined(t, made, false); len(frames) != 1 {
		t.Errorf("%d frames of %d packets", len(frames), len(made))
	}
}
