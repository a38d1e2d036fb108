package link

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ipsecd/internal/routes"
	"ipsecd/packet"
)

// tunHost is a namespace whose one link is a TUN.
type tunHost struct {
	*host
	tun TUN
}

// newTUNHost makes a host with 10.9.0.last and fd00:9::last on a TUN that is up.
func newTUNHost(t testing.TB, name string, last byte) *tunHost {
	t.Helper()
	h := &tunHost{host: newHost(t, name, last)}
	h.do(func() (err error) {
		h.tun, err = OpenTUN("ipsec%d")
		return err
	})
	t.Cleanup(func() { h.tun.Close() })
	h.do(func() error {
		addrs := []netip.Prefix{netip.PrefixFrom(h.a4, 24), netip.PrefixFrom(h.a6, 64)}
		if err := routes.SetupLink(h.tun.Name(), mtu, addrs, GSOSize, GSOSegs); err != nil {
			return err
		}
		link, err := netlink.LinkByName(h.tun.Name())
		if err != nil {
			return err
		}
		for _, p := range addrs {
			p = p.Masked()
			dst := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
			if err := netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst}); err != nil {
				return err
			}
		}
		return h.awaitReady()
	})
	return h
}

// awaitReady waits until the kernel has put the link's queue and the route of
// its IPv6 address in place, some time after the link went up. Before that it
// drops what is sent and what arrives.
func (h *tunHost) awaitReady() error {
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		link, err := netlink.LinkByName(h.tun.Name())
		if err != nil {
			return err
		}
		queues, err := netlink.QdiscList(link)
		if err != nil {
			return err
		}
		queue := slices.ContainsFunc(queues, func(q netlink.Qdisc) bool { return q.Type() != "noop" })
		local, err := netlink.RouteGet(h.a6.AsSlice())
		if queue && err == nil && len(local) == 1 && local[0].Type == unix.RTN_LOCAL {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("link %s is not ready after %v: queue %v, %v", link.Attrs().Name, patience, queue, err)
		}
	}
}

// next reads until a burst passes the filter; kernels say things of their own
// on a new link.
func (h *tunHost) next(want func(*packet.Burst) bool) *packet.Burst {
	h.t.Helper()
	b, err := awaited(h.t, h.tun, func() (*packet.Burst, error) {
		b := new(packet.Burst)
		for {
			if err := h.tun.Read(b); err != nil {
				return nil, err
			}
			if d := b.Classify(); d != packet.Kept {
				return nil, fmt.Errorf("the kernel's packet is dropped: %s", d)
			}
			if want(b) {
				return b, nil
			}
		}
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return b
}

// whole are the packets of a burst.
func whole(b *packet.Burst) (out [][]byte) {
	for k := range b.Len() {
		p := make([]byte, b.PacketLen(k))
		b.CopyPacket(p, k)
		out = append(out, p)
	}
	return out
}

// writeOne writes a packet alone.
func writeOne(t *testing.T, w BurstWriter, p []byte) {
	t.Helper()
	b := &packet.Burst{Head: p}
	if d := b.Classify(); d != packet.Kept {
		t.Fatal(d)
	}
	if err := w.Write(b); err != nil {
		t.Fatal(err)
	}
}

func TestOpenTUNErrors(t *testing.T) {
	h := newHost(t, "host", 1)
	h.do(func() error {
		first, err := OpenTUN("ipsec%d")
		if err != nil {
			return err
		}
		defer first.Close()
		if first.Name() != "ipsec0" {
			t.Errorf("the first is %s", first.Name())
		}
		second, err := OpenTUN("ipsec%d")
		if err != nil {
			return err
		}
		defer second.Close()
		if second.Name() != "ipsec1" {
			t.Errorf("the second is %s", second.Name())
		}
		dummy := netlink.NewLinkAttrs()
		dummy.Name = "br0"
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: dummy, PeerName: "br1"}); err != nil {
			return err
		}
		for name, want := range map[string]string{
			"ipsec0":           "TUN name ipsec0 is in use; choose another by --tun",
			"br0":              "TUN name br0 is in use; choose another by --tun",
			"a/b":              "TUN name a/b is in use by another kind of device, or is not a valid name; choose another by --tun",
			"sixteen-octets-0": `TUN name "sixteen-octets-0" is too long; at most 15 characters fit`,
		} {
			if tun, err := OpenTUN(name); err == nil || err.Error() != want {
				t.Errorf("%s: %v, %v\nwant %s", name, tun, err, want)
			}
		}
		if err := first.Close(); err != nil {
			return err
		}
		again, err := OpenTUN("ipsec0") // the name is free again
		if err != nil {
			return err
		}
		return again.Close()
	})
}

func TestTUNErrorTexts(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{tunOpenError(unix.ENOENT), "load the tun module"},
		{tunOpenError(unix.ENODEV), "load the tun module"},
		{tunOpenError(unix.EACCES), "run as root"},
		{tunOpenError(unix.EMFILE), "open /dev/net/tun: too many open files"},
		{tunMakeError("x0", unix.EPERM), "CAP_NET_ADMIN is missing"},
		{tunMakeError("x0", unix.EBUSY), "TUN name x0 is in use"},
		{tunMakeError("x0", unix.ENOMEM), "make TUN x0: cannot allocate memory"},
	} {
		if !strings.Contains(tt.err.Error(), tt.want) {
			t.Errorf("%v\nhas no %q", tt.err, tt.want)
		}
	}
}

// The host answers a ping that is written, and a program's datagram is read.
func TestTUNWriteAndRead(t *testing.T) {
	h := newTUNHost(t, "host", 1)
	w := h.tun.Writer()
	peer := packet.AddrFrom4([]byte{10, 9, 0, 99})
	ping := ipPacket(false, packet.ProtoICMP, 64)
	ip := packet.IPv4{TTL: 64, Proto: packet.ProtoICMP, ID: 7, Src: peer, Dst: h.addr(false)}
	ip.Put(ping, len(ping))
	copy(ping[20:], pattern(64, 3))
	copy(ping[20:], []byte{8, 0, 0, 0, 0x12, 0x34, 0, 1})
	sum := packet.Checksum(ping[20:], 0)
	ping[22], ping[23] = byte(sum>>8), byte(sum)
	writeOne(t, w, ping)
	reply := h.next(func(b *packet.Burst) bool { return b.H.Proto == packet.ProtoICMP && b.H.Dst == peer })
	if reply.H.SrcPort != 0 || !bytes.Equal(reply.Head[24:], ping[24:]) {
		t.Errorf("the reply is %x", reply.Head)
	}

	h.do(func() error {
		c, err := net.Dial("udp", "10.9.0.99:7")
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("hello"))
		return err
	})
	b := h.next(func(b *packet.Burst) bool { return b.H.Dst == peer && b.H.DstPort == 7 })
	p := whole(b)[0]
	if b.Seg != packet.Lone || !b.Partial || !bytes.HasSuffix(p, []byte("hello")) ||
		packet.Checksum(p[20:], packet.PseudoSum(p, packet.ProtoUDP, len(p)-20)) != 0 {
		t.Errorf("segmentation %d, partial %v: %x", b.Seg, b.Partial, p)
	}
}

func TestTUNClose(t *testing.T) {
	h := newTUNHost(t, "host", 1)
	var b packet.Burst
	w := h.tun.Writer()
	read := func() error {
		for {
			if err := h.tun.Read(&b); err != nil {
				return err
			}
		}
	}
	checkClose(t, h.tun.Close, read, func() error { return w.Write(&packet.Burst{Head: ipPacket(false, packet.ProtoUDP, 8)}) })
}

// A device that is down takes nothing.
func TestTUNDown(t *testing.T) {
	h := newHost(t, "host", 1)
	h.do(func() error {
		tun, err := OpenTUN("ipsec0")
		if err != nil {
			return err
		}
		defer tun.Close()
		err = tun.Writer().Write(&packet.Burst{Head: ipPacket(false, packet.ProtoUDP, 8)})
		if !errors.Is(err, unix.EIO) {
			t.Errorf("written to a device that is down: %v", err)
		}
		return nil
	})
}

// cable joins two TUNs: what one host sends is segmented, packet by packet
// checked, joined and given to the other, as the two ends of a tunnel do.
type cable struct {
	t       *testing.T
	bursts  [3]atomic.Int64 // by Segmentation, of more than one packet
	joined  atomic.Int64    // bursts of more than one packet written
	longest atomic.Int64
}

func (c *cable) carry(from, to TUN) {
	w := to.Writer()
	join := packet.Coalescer{UDP: to.(TakesUDP).TakesUDP()}
	flush := func() bool {
		b, ok := join.Burst()
		if !ok {
			return true
		}
		if b.Len() > 1 {
			c.joined.Add(1)
		}
		err := w.Write(b)
		if err != nil && !errors.Is(err, os.ErrClosed) {
			c.t.Errorf("write %d packets: %v", b.Len(), err)
		}
		return err == nil
	}
	var b packet.Burst
	for {
		if err := from.Read(&b); err != nil {
			if !errors.Is(err, os.ErrClosed) {
				c.t.Error(err)
			}
			return
		}
		if d := b.Classify(); d != packet.Kept {
			c.t.Errorf("the kernel's packet is dropped: %s", d)
			continue
		}
		if b.Len() > 1 {
			c.bursts[b.Seg].Add(1)
			c.longest.Store(max(c.longest.Load(), int64(b.Len())))
		}
		if b.Octets() > 64<<10+b.Len()*100 {
			c.t.Errorf("a burst of %d octets", b.Octets())
		}
		for _, p := range whole(&b) {
			var h packet.Headers
			if d := h.Classify(p); d != packet.Kept {
				c.t.Errorf("a segment is %s", d)
			}
			if !join.Join(p, &h) {
				if !flush() {
					return
				}
				join.Start(p, &h)
			}
		}
		if !flush() {
			return
		}
	}
}

// connect lays a cable between a and b that ends with the test.
func connect(t *testing.T, a, b *tunHost) *cable {
	c := &cable{t: t}
	var wg sync.WaitGroup
	wg.Go(func() { c.carry(a.tun, b.tun) })
	wg.Go(func() { c.carry(b.tun, a.tun) })
	t.Cleanup(func() {
		a.tun.Close()
		b.tun.Close()
		wg.Wait()
	})
	return c
}

// Megabytes of TCP between two kernels come over whole, read as TSO bursts and
// written as joined ones.
func TestTUNCarriesTCP(t *testing.T) {
	forFamilies(t, func(t *testing.T, v6 bool) {
		a, b := newTUNHost(t, "a", 1), newTUNHost(t, "b", 2)
		c := connect(t, a, b)
		at := netip.AddrPortFrom(b.addr(v6).Netip(), 5001).String()
		l, err := b.ns.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		data := make([]byte, 8<<20)
		r := rand.NewChaCha8([32]byte{1})
		r.Read(data)
		received := make(chan error, 1)
		go func() {
			received <- func() error {
				conn, err := l.Accept()
				if err != nil {
					return err
				}
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(3 * patience))
				got, err := io.ReadAll(conn)
				if err == nil && sha256.Sum256(got) != sha256.Sum256(data) {
					err = fmt.Errorf("%d octets, want %d, or others", len(got), len(data))
				}
				return err
			}()
		}()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		conn, err := a.ns.Dial(ctx, "tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(3 * patience))
		if _, err := conn.Write(data); err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if err := <-received; err != nil {
			t.Fatal(err)
		}
		if c.bursts[packet.TCP].Load() == 0 || c.joined.Load() == 0 || c.longest.Load() > GSOSegs {
			t.Errorf("%d TSO bursts read, the longest %d; %d written", c.bursts[packet.TCP].Load(), c.longest.Load(), c.joined.Load())
		}
	})
}

// A train of datagrams that a program sends by UDP_SEGMENT comes over, as one
// burst where the kernel gives UDP trains to a TUN.
func TestTUNCarriesUDPTrain(t *testing.T) {
	forFamilies(t, func(t *testing.T, v6 bool) {
		a, b := newTUNHost(t, "a", 1), newTUNHost(t, "b", 2)
		c := connect(t, a, b)
		in := b.udp(v6, natT)
		out := a.udp(v6, natT)
		var pkts, want [][]byte
		for i := range 40 {
			n := 1000
			if i == 39 {
				n = 333
			}
			want = append(want, pattern(n, byte(i)))
			pkts = append(pkts, datagram(a.addr(v6), b.addr(v6), v6, 0x2a, natT, want[i]))
		}
		if n, err := out.Writer().Write(pkts); n != len(pkts) || err != nil {
			t.Fatalf("%d written: %v", n, err)
		}
		defer func() {
			if t.Failed() {
				t.Logf("bursts read %d, written %d", c.bursts[packet.UDP].Load(), c.joined.Load())
			}
		}()
		var got [][]byte
		for _, g := range receive(t, in, len(pkts)) {
			checkHead(t, &g, a.addr(v6), b.addr(v6), natT, natT, 0x2a)
			got = append(got, g.Segs...)
		}
		for i := range want {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("datagram %d: %d octets, want %d, or others", i, len(got[i]), len(want[i]))
			}
		}
		if takes := a.tun.(TakesUDP).TakesUDP(); takes != (c.bursts[packet.UDP].Load() > 0) || takes != (c.joined.Load() > 0) {
			t.Errorf("device takes UDP: %v; bursts read %d, written %d", takes, c.bursts[packet.UDP].Load(), c.joined.Load())
		}
	})
}

// A ping written is answered at once, so that one goroutine may read it.
func TestTUNNoAllocations(t *testing.T) {
	h := newTUNHost(t, "host", 1)
	in, out, w := new(packet.Burst), &packet.Burst{Head: echoRequest(h)}, h.tun.Writer()
	checkNoAllocations(t, h.tun, func() error {
		if err := w.Write(out); err != nil {
			return err
		}
		return h.tun.Read(in)
	})
}

// echoRequest is one that h answers.
func echoRequest(h *tunHost) []byte {
	ping := ipPacket(false, packet.ProtoICMP, 64)
	ip := packet.IPv4{TTL: 64, Proto: packet.ProtoICMP, ID: 7, Src: packet.AddrFrom4([]byte{10, 9, 0, 99}), Dst: h.addr(false)}
	ip.Put(ping, len(ping))
	ping[20] = 8
	sum := packet.Checksum(ping[20:], 0)
	ping[22], ping[23] = byte(sum>>8), byte(sum)
	return ping
}
