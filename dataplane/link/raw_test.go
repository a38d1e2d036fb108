package link

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"ipsecd/packet"
)

// forFamilies runs f for IPv4 and IPv6.
func forFamilies(t *testing.T, f func(t *testing.T, v6 bool)) {
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("IPv%d", map[bool]int{false: 4, true: 6}[v6]), func(t *testing.T) { f(t, v6) })
	}
}

// espPacket is a whole packet of protocol 50 whose header fields are all set.
func espPacket(from, to *host, v6 bool, n int, seed byte) []byte {
	if v6 {
		h := packet.IPv6{TOS: 0xb9, FlowLabel: 0xabcde, HopLimit: 33, Next: packet.ProtoESP, Src: from.addr(true), Dst: to.addr(true)}
		p := append(make([]byte, packet.IPv6HeaderLen), pattern(n, seed)...)
		h.Put(p, len(p))
		return p
	}
	h := packet.IPv4{TOS: 0xb9, TTL: 33, Proto: packet.ProtoESP, DF: true, ID: 0xbeef, Src: from.addr(false), Dst: to.addr(false)}
	p := append(make([]byte, packet.IPv4HeaderLen), pattern(n, seed)...)
	h.Put(p, len(p))
	return p
}

// A packet arrives as it was sent, octet for octet: TOS, ID, DF, TTL; of IPv6
// the whole header is rebuilt.
func TestRawRoundTrip(t *testing.T) {
	forFamilies(t, func(t *testing.T, v6 bool) {
		a, b := wired(t)
		out, in := a.raw(v6), b.raw(v6)
		const n = packet.MaxBurst + 40 // more than one call takes
		var sent [][]byte
		for i := range n {
			sent = append(sent, espPacket(a, b, v6, 8+i*8, byte(i)))
		}
		if k, err := out.Writer().Write(sent); k != n || err != nil {
			t.Fatalf("%d written: %v", k, err)
		}
		got := receive(t, in, n)
		for i, g := range got {
			if g.Seg != packet.Lone || g.Segs != nil || g.Partial || !bytes.Equal(g.Head, sent[i]) {
				t.Fatalf("packet %d: segmentation %d\ngot  %.60x\nsent %.60x", i, g.Seg, g.Head, sent[i])
			}
			if d := g.Classify(); d != packet.Kept || g.H.Proto != packet.ProtoESP || g.H.Dst != b.addr(v6) {
				t.Fatalf("packet %d: %s, %+v", i, d, g.H)
			}
		}
	})
}

// The packet that the kernel refuses is named by how many went before it, and
// the link works on.
func TestRawTooBig(t *testing.T) {
	forFamilies(t, func(t *testing.T, v6 bool) {
		a, b := wired(t)
		out, in := a.raw(v6), b.raw(v6)
		small := espPacket(a, b, v6, 64, 0)
		fits := espPacket(a, b, v6, mtu-len(small)+64, 1)
		big := espPacket(a, b, v6, mtu-len(small)+65, 2)
		w := out.Writer()
		if n, err := w.Write([][]byte{small, fits, big, small}); n != 2 || !errors.Is(err, ErrTooBig) {
			t.Fatalf("%d written: %v", n, err)
		}
		if n, err := w.Write([][]byte{small}); n != 1 || err != nil {
			t.Fatalf("%d written: %v", n, err)
		}
		for i, got := range receive(t, in, 3) {
			if !bytes.Equal(got.Head, [][]byte{small, fits, small}[i]) {
				t.Errorf("packet %d: %d octets", i, len(got.Head))
			}
		}
	})
}

// A socket for another protocol announces that one in the header it rebuilds.
func TestRawProtocol(t *testing.T) {
	forFamilies(t, func(t *testing.T, v6 bool) {
		a, b := wired(t)
		const proto = 253 // RFC 3692: for experiments
		in := b.open(func() (Outside, error) { return OpenRaw(v6, proto, 0) })
		out := a.open(func() (Outside, error) { return OpenBypass(v6, 0) })
		pkt := espPacket(a, b, v6, 64, 0)
		if v6 {
			pkt[6] = proto
		} else {
			h := packet.IPv4{TTL: 9, Proto: proto, ID: 5, Src: a.addr(v6), Dst: b.addr(v6)}
			h.Put(pkt, len(pkt))
		}
		if _, err := out.Writer().Write([][]byte{pkt}); err != nil {
			t.Fatal(err)
		}
		if got := receive(t, in, 1); !bytes.Equal(got[0].Head, pkt) {
			t.Errorf("got  %x\nsent %x", got[0].Head, pkt)
		}
	})
}

func TestRawClose(t *testing.T) {
	forFamilies(t, func(t *testing.T, v6 bool) {
		a := newHost(t, "a", 1)
		l := a.raw(v6)
		bs, w := make([]packet.Burst, ReadBatch), l.Writer()
		checkClose(t, l.Close, func() error { _, err := l.Read(bs); return err },
			func() error { _, err := w.Write([][]byte{espPacket(a, a, v6, 8, 0)}); return err })
	})
}

// What a packet without a route, or a socket without a right, says.
func TestRawErrors(t *testing.T) {
	a, b := newHost(t, "a", 1), newHost(t, "b", 2)
	forFamilies(t, func(t *testing.T, v6 bool) {
		n, err := a.raw(v6).Writer().Write([][]byte{espPacket(a, b, v6, 8, 0)})
		if n != 0 || err == nil || !strings.Contains(err.Error(), "unreachable") || errors.Is(err, ErrTooBig) {
			t.Errorf("%d written without a route: %v", n, err)
		}
	})
	a.do(func() error {
		if _, err := OpenRaw(false, -1, 0); err == nil || !strings.HasPrefix(err.Error(), "raw socket for protocol -1: socket: ") {
			t.Errorf("no protocol: %v", err)
		}
		return nil
	})
}

// A packet to oneself is there when Write returns, so that one goroutine may
// read it.
func TestRawNoAllocations(t *testing.T) {
	forFamilies(t, func(t *testing.T, v6 bool) {
		a, _ := wired(t)
		l := a.raw(v6)
		w, bs := l.Writer(), make([]packet.Burst, ReadBatch)
		pkts := [][]byte{espPacket(a, a, v6, 64, 0), espPacket(a, a, v6, 640, 1)}
		checkNoAllocations(t, l, func() error {
			if _, err := w.Write(pkts); err != nil {
				return err
			}
			_, err := l.Read(bs)
			return err
		})
	})
}

func checkNoAllocations(t *testing.T, l interface{ Close() error }, f func() error) {
	t.Helper()
	n, err := awaited(t, l, func() (float64, error) {
		var err error
		n := testing.AllocsPerRun(100, func() {
			if e := f(); e != nil {
				err = e
			}
		})
		return n, err
	})
	if n != 0 || err != nil {
		t.Errorf("%v allocations, %v", n, err)
	}
}
