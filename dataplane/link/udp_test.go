package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ipsecd/packet"
)

const natT = 4500

// datagram is a whole packet of UDP from port natT of src.
// ttl is another than the kernel's own.
const ttl = 61

func datagram(src, dst packet.Addr, v6 bool, tos uint8, port uint16, payload []byte) []byte {
	hlen := packet.IPv4HeaderLen
	if v6 {
		hlen = packet.IPv6HeaderLen
	}
	p := append(make([]byte, hlen+packet.UDPHeaderLen), payload...)
	if v6 {
		h := packet.IPv6{TOS: tos, HopLimit: ttl, Next: packet.ProtoUDP, Src: src, Dst: dst}
		h.Put(p, len(p))
	} else {
		h := packet.IPv4{TOS: tos, TTL: ttl, Proto: packet.ProtoUDP, ID: 1, Src: src, Dst: dst}
		h.Put(p, len(p))
	}
	packet.PutUDP(p[hlen:], natT, port, len(p)-hlen)
	return p
}

// checkHead checks the headers that a train came with: classified, they are
// those of one UDP packet of the train's length.
func checkHead(t *testing.T, b *packet.Burst, src, dst packet.Addr, sport, dport uint16, tos uint8) {
	t.Helper()
	if b.Seg != packet.UDP || b.Partial {
		t.Fatalf("segmentation %d, partial %v", b.Seg, b.Partial)
	}
	if d := b.Classify(); d != packet.Kept {
		t.Fatal(d)
	}
	h := b.H
	if h.Src != src || h.Dst != dst || h.SrcPort != sport || h.DstPort != dport || packet.TOS(b.Head) != tos {
		t.Errorf("from %s %d to %s %d, TOS %#x; want %s %d, %s %d, %#x",
			h.Src, h.SrcPort, h.Dst, h.DstPort, packet.TOS(b.Head), src, sport, dst, dport, tos)
	}
	n := len(bytes.Join(b.Segs, nil)) + packet.UDPHeaderLen
	if udp := int(binary.BigEndian.Uint16(b.Head[h.L4+4:])); udp != n {
		t.Errorf("UDP length %d, want %d", udp, n)
	}
	whole := append(bytes.Clone(b.Head), make([]byte, n-packet.UDPHeaderLen)...)
	if k, d := packet.IPLength(whole); d != packet.Kept || k != len(whole) {
		t.Errorf("IP length %d of %d, %s", k, len(whole), d)
	}
}

// Datagrams arrive in order, of their own lengths, however Write and the kernel
// put them together and took them apart.
func TestUDPTrains(t *testing.T) {
	forFamilies(t, func(t *testing.T, v6 bool) {
		a, b := wired(t)
		out, in := a.udp(v6, natT), b.udp(v6, natT)
		w := out.Writer()
		sizes := func(n, size int, more ...int) (s []int) {
			for range n {
				s = append(s, size)
			}
			return append(s, more...)
		}
		for _, tt := range []struct {
			name  string
			sizes []int
			train bool // the kernel delivers at least two as one
		}{
			{"one", sizes(1, 700), false},
			{"equal", sizes(20, 1000), true},
			{"last is shorter", sizes(20, 1000, 17), true},
			{"of different sizes", []int{100, 100, 200, 200, 50, 300, 1, 1, 1400, 1399, 1400}, false},
			{"more than a call takes", sizes(3*maxSegments, 40, 39), true},
			{"more than a datagram holds", sizes(100, 1400), true},
			{"keepalive", sizes(1, 1), false},
		} {
			var pkts, want [][]byte
			for i, n := range tt.sizes {
				want = append(want, pattern(n, byte(i)))
				pkts = append(pkts, datagram(a.addr(v6), b.addr(v6), v6, 0xb9, natT, want[i]))
			}
			if n, err := w.Write(pkts); n != len(pkts) || err != nil {
				t.Fatalf("%s: %d written: %v", tt.name, n, err)
			}
			got, train := [][]byte(nil), false
			for _, g := range receive(t, in, len(pkts)) {
				checkHead(t, &g, a.addr(v6), b.addr(v6), natT, natT, 0xb9)
				if h := g.Head; h[0]>>4 == 4 && h[8] != ttl || h[0]>>4 == 6 && h[7] != ttl {
					t.Errorf("%s: TTL of %x", tt.name, h)
				}
				got, train = append(got, g.Segs...), train || len(g.Segs) > 1
			}
			if len(got) != len(want) {
				t.Fatalf("%s: %d datagrams, want %d", tt.name, len(got), len(want))
			}
			for i := range want {
				if !bytes.Equal(got[i], want[i]) {
					t.Fatalf("%s: datagram %d has %d octets, want %d, or others", tt.name, i, len(got[i]), len(want[i]))
				}
			}
			if tt.train && !train {
				t.Errorf("%s: nothing was sent or delivered as a train", tt.name)
			}
		}
	})
}

// Source address and destination port of the packet are used, and those that
// it came with are told.
func TestUDPAddresses(t *testing.T) {
	a, b := wired(t)
	out, in := a.udp(false, natT), b.udp(false, 4501)
	w := out.Writer()
	for _, src := range []netip.Addr{a.a4, a.also} {
		for _, dst := range []netip.Addr{b.a4, b.also} {
			from, to := packet.AddrFrom(src), packet.AddrFrom(dst)
			if _, err := w.Write([][]byte{datagram(from, to, false, 1, 4501, []byte("hello"))}); err != nil {
				t.Fatal(err)
			}
			checkHead(t, &receive(t, in, 1)[0], from, to, natT, 4501, 1)
		}
	}
	foreign := packet.AddrFrom(netip.MustParseAddr("203.0.113.1"))
	if n, err := w.Write([][]byte{datagram(foreign, b.addr(false), false, 0, 4501, []byte("x"))}); n != 0 || err == nil {
		t.Errorf("%d sent from an address that is not ours: %v", n, err)
	}
}

// A datagram without octets, which our Write never makes, is delivered as such.
func TestUDPEmpty(t *testing.T) {
	forFamilies(t, func(t *testing.T, v6 bool) {
		a, b := wired(t)
		in := b.udp(v6, natT)
		to := netip.AddrPortFrom(b.addr(v6).Netip(), natT)
		a.do(func() error {
			c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
			if err != nil {
				return err
			}
			defer c.Close()
			if _, err = c.Write(nil); err != nil {
				return err
			}
			_, err = c.Write([]byte{0xff})
			return err
		})
		got := receive(t, in, 2)
		if len(got) != 2 || len(got[0].Segs) != 1 || len(got[0].Segs[0]) != 0 || !bytes.Equal(got[1].Segs[0], []byte{0xff}) {
			t.Errorf("got %+v", got)
		}
	})
}

// A datagram too long for the path is told as such, alone, in front of a train
// and in it; trains go on after it.
func TestUDPTooBig(t *testing.T) {
	forFamilies(t, func(t *testing.T, v6 bool) {
		a, b := wired(t)
		out, in := a.udp(v6, natT), b.udp(v6, natT)
		w := out.Writer()
		one := func(n int) []byte { return datagram(a.addr(v6), b.addr(v6), v6, 0, natT, pattern(n, 1)) }
		small, big := one(100), one(mtu)
		for _, tt := range []struct {
			name string
			pkts [][]byte
			sent int
		}{
			{"alone", [][]byte{big}, 0},
			{"before others", [][]byte{big, small}, 0},
			{"a train of them", [][]byte{big, big, big}, 0},
			{"behind others", [][]byte{small, small, big, small}, 2},
		} {
			if n, err := w.Write(tt.pkts); n != tt.sent || !errors.Is(err, ErrTooBig) {
				t.Errorf("%s: %d written: %v", tt.name, n, err)
			}
			receive(t, in, tt.sent)
		}
		if n, err := w.Write([][]byte{small, small, small}); n != 3 || err != nil {
			t.Fatalf("%d written: %v", n, err)
		}
		if got := receive(t, in, 3); len(got) != 1 {
			t.Errorf("three come as %d trains: are they sent singly now?", len(got))
		}
	})
}

func TestUDPPortInUse(t *testing.T) {
	a := newHost(t, "a", 1)
	forFamilies(t, func(t *testing.T, v6 bool) {
		a.udp(v6, natT)
		a.do(func() error {
			if _, err := OpenUDP(v6, natT, 0); err == nil || err.Error() != "UDP port 4500: bind: address already in use" {
				t.Errorf("opened again: %v", err)
			}
			return nil
		})
	})
}

func TestUDPClose(t *testing.T) {
	forFamilies(t, func(t *testing.T, v6 bool) {
		a := newHost(t, "a", 1)
		l := a.udp(v6, natT)
		bs, w := make([]packet.Burst, ReadBatch), l.Writer()
		checkClose(t, l.Close, func() error { _, err := l.Read(bs); return err },
			func() error {
				_, err := w.Write([][]byte{datagram(a.addr(v6), a.addr(v6), v6, 0, natT, []byte("x"))})
				return err
			})
	})
}

func TestUDPNoAllocations(t *testing.T) {
	forFamilies(t, func(t *testing.T, v6 bool) {
		a, _ := wired(t)
		l := a.udp(v6, natT)
		w, bs := l.Writer(), make([]packet.Burst, ReadBatch)
		var pkts [][]byte
		for i := range 10 {
			pkts = append(pkts, datagram(a.addr(v6), a.addr(v6), v6, 0, natT, pattern(1000, byte(i))))
		}
		pkts[9] = pkts[9][:900] // two kinds of call
		checkNoAllocations(t, l, func() error {
			if _, err := w.Write(pkts); err != nil {
				return err
			}
			_, err := l.Read(bs)
			return err
		})
	})
}

// Sockets open with a mark; the error of an option names it.
func TestSocketOptions(t *testing.T) {
	a := newHost(t, "a", 1)
	const mark = 0x1b5ec
	a.open(func() (Outside, error) { return OpenRaw(false, packet.ProtoESP, mark) })
	a.open(func() (Outside, error) { return OpenUDP(true, natT, mark) })
	a.open(func() (Outside, error) { return OpenBypass(true, mark) })
	a.do(func() error {
		_, err := openSocket(unix.AF_INET, unix.SOCK_DGRAM, 0, mark, []sockopt{{-1, -1, 1, "IP_NOTHING"}})
		if err == nil || !strings.HasPrefix(err.Error(), "setsockopt IP_NOTHING: ") {
			t.Errorf("no such option: %v", err)
		}
		return nil
	})
}
