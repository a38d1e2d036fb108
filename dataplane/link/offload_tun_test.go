package link

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ipsecd/internal/routes"
	"ipsecd/packet"
)

// router is a host with a second TUN, to which it forwards what comes from the
// first.
type router struct {
	*tunHost
	far *tunHost // the same host
}

// newRouter makes one. Unless the second TUN offloads, the kernel takes apart and
// finishes what it hands over there.
func newRouter(t *testing.T, offloads bool) *router {
	t.Helper()
	r := &router{tunHost: newTUNHost(t, "router", 1)}
	r.do(func() (err error) {
		second, err := OpenTUN("ipsec%d")
		if err != nil {
			return err
		}
		t.Cleanup(func() { second.Close() })
		r.far = &tunHost{host: r.host, tun: second}
		if !offloads {
			if err := noOffload(second.(*tunDevice)); err != nil {
				return err
			}
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
		return r.far.awaitReady()
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
		b := r.far.next(func(b *packet.Burst) bool { return b.H.SrcPort == 40000 })
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
	r := newRouter(t, false)
	udp := r.tun.(TakesUDP).TakesUDP()
	for name, s := range shapes {
		if s.ext != nil || s.ipOptions != nil {
			continue // never joined, and no host forwards source routes
		}
		t.Run(name, func(t *testing.T) {
			r.t, r.far.t = t, t
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

// A train goes through a host, from TUN to TUN, without an allocation: written as
// it is joined, forwarded in one piece and read so.
func TestOffloadTrainDoesNotAllocate(t *testing.T) {
	r := newRouter(t, true)
	for _, tt := range []struct {
		name string
		shape
	}{
		{"TCP4", shape{flags: ack, df: true}},
		{"TCP6", shape{v6: true, flags: ack}},
		{"UDP4", shape{udp: true, df: true}},
		{"UDP6", shape{v6: true, udp: true}},
	} {
		if tt.udp && !r.tun.(TakesUDP).TakesUDP() {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			s := tt.shape
			s.ttl, s.port, s.payload = 64, 443, pattern(40*1000, 1)
			var b, got packet.Burst
			fromVirtio(&b, s.offloaded(t, 1000))
			if d := b.Classify(); d != packet.Kept {
				t.Fatal(d)
			}
			w := r.tun.Writer()
			checkNoAllocations(t, r.far.tun, func() error {
				if err := w.Write(&b); err != nil {
					return err
				}
				for {
					if err := r.far.tun.Read(&got); err != nil {
						return err
					}
					if got.Classify() == packet.Kept && got.H.SrcPort == 40000 {
						break
					}
				}
				if got.Len() != 40 {
					return fmt.Errorf("%d packets", got.Len())
				}
				return nil
			})
		})
	}
}

// A TCP connection whose segments bear a routing header: the checksum covers the
// address where the route ends, which no destination field of what the kernel
// hands over holds.
func TestOffloadRoutedTCP(t *testing.T) {
	a, b := newTUNHost(t, "a", 1), newTUNHost(t, "b", 2)
	end := netip.MustParseAddr("fd00:9::99") // at b as well, but the route leads over b's other address
	b.do(func() error {
		for _, device := range []string{"all", b.tun.Name()} {
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+device+"/seg6_enabled", []byte("1"), 0); err != nil {
				return err
			}
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: end.AsSlice(), Mask: net.CIDRMask(128, 128)}, Flags: unix.IFA_F_NODAD})
	})
	c := connect(t, a, b)
	l, err := b.ns.Listen("tcp", netip.AddrPortFrom(end, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	want := pattern(1<<20, 1)
	var out net.Conn
	a.do(func() (err error) {
		d := net.Dialer{Timeout: patience, Control: func(_, _ string, raw syscall.RawConn) (err error) {
			raw.Control(func(fd uintptr) {
				err = unix.SetsockoptString(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RTHDR, routeOver(b.addr(true)))
			})
			return err
		}}
		out, err = d.Dial("tcp", l.Addr().String())
		return err
	})
	defer out.Close()
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	go func() {
		out.Write(want)
		out.Close()
	}()
	in.SetReadDeadline(time.Now().Add(patience))
	got, err := io.ReadAll(in)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d of %d octets, or others: %v", len(got), len(want), err)
	}
	if c.bursts[packet.TCP].Load() == 0 {
		t.Error("the kernel hands over no trains with a routing header")
	}
}

// routeOver is a routing header (RFC 8754 2) of two segments; the first, where
// the route ends, the kernel fills in.
func routeOver(a packet.Addr) string {
	h := append([]byte{0, 4, 4, 1, 1, 0, 0, 0}, make([]byte, 16)...)
	return string(append(h, a[:]...))
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
