package dataplane

import (
	"bytes"
	"fmt"
	"testing"

	"ipsecd/control"
	"ipsecd/dataplane/link"
	"ipsecd/packet"
	"ipsecd/sad"
	"ipsecd/spd"
)

// counting is both sides of an engine: it keeps what passes in buffers of its
// own and allocates nothing.
type counting struct {
	link.Inside
	link.Outside
	last [2048]byte
	n    int // packets
	len  int // of the last
}

type countingBurst struct{ *counting }

func (c countingBurst) Write(b *packet.Burst) error {
	c.n += b.Len()
	c.len = copy(c.last[:], b.Head)
	return nil
}

type countingWire struct {
	link.Outside
	to *counting
}

func (c countingWire) Writer() link.PacketWriter { return c }
func (c countingWire) Write(pkts [][]byte) (int, error) {
	c.to.n += len(pkts)
	c.to.len = copy(c.to.last[:], pkts[len(pkts)-1])
	return len(pkts), nil
}

type countingHost struct {
	link.Inside
	to *counting
}

func (c countingHost) Writer() link.BurstWriter { return countingBurst{c.to} }

const workerScript = `
add 192.0.2.1 192.0.2.2 esp 0x1001 -m tunnel -u 1 -r 32 -E aes-gcm-16 0x6b87c452e0602b13e1925c2962e635ad7b9d3f7b;
add 192.0.2.1 192.0.2.2 esp 0x1002 -m tunnel -u 2 -r 32 -E aes-cbc 0x73bb90ac97e947c7bbc0f55c6b3e17bd -A hmac-sha2-256 0x6734dc7dbbcdb6256bbac5ea53d3a259aca9e3e10562873837e36c56dc8ec1be;
spdadd 10.1.1.0/24 10.2.0.0/24 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/unique:1;
spdadd 10.1.2.0/24 10.2.0.0/24 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/unique:2;
spdadd 10.1.1.0/24 10.2.0.0/24 any -P in ipsec esp/tunnel/192.0.2.1-192.0.2.2/unique:1;
spdadd 10.1.2.0/24 10.2.0.0/24 any -P in ipsec esp/tunnel/192.0.2.1-192.0.2.2/unique:2;
add 10.1.3.1 10.2.0.1 esp 0x1003 -m transport -esn -r 32 -E aes-gcm-16 0x8b87c452e0602b13e1925c2962e635ad7b9d3f7b;
spdadd 10.1.3.0/24 10.2.0.0/24 any -P out ipsec esp/transport//require;
spdadd 10.1.3.0/24 10.2.0.0/24 any -P in ipsec esp/transport//require;
add 192.0.2.1 192.0.2.2 esp 0x1004 -m tunnel -u 4 -esn -r 32 -f random-pad -E null -A hmac-sha1 0x8b87c452e0602b13e1925c2962e635ad7b9d3f7b;
spdadd 10.1.4.0/24 10.2.0.0/24 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/unique:4;
spdadd 10.1.4.0/24 10.2.0.0/24 any -P in ipsec esp/tunnel/192.0.2.1-192.0.2.2/unique:4;
add 10.1.5.1[4500] 10.2.0.1[4500] esp-udp 0x1005 -r 32 -E aes-gcm-16 0x9b87c452e0602b13e1925c2962e635ad7b9d3f7b;
spdadd 10.1.5.0/24 10.2.0.0/24 any -P out ipsec esp/transport//require;
spdadd 10.1.5.0/24 10.2.0.0/24 any -P in ipsec esp/transport//require;
`

// suites names what the third octet of an address selects in workerScript; those
// from encapsulated on travel in UDP.
var suites = map[byte]string{1: "gcm", 2: "cbc", 3: "gcm-transport-esn", 4: "null-esn", encapsulated: "gcm-transport-udp"}

const encapsulated = 5

// handDriven is an engine with one worker of each kind, whose bursts the test
// hands over.
type handDriven struct {
	*Engine
	control    *control.Engine
	in         *Inside
	out        *Outside
	wire, host counting // what left on each side
	clear      counting
}

func newHandDriven(t testing.TB) *handDriven {
	w := new(handDriven)
	w.Engine = New(Config{SAD: sad.New(), SPD: spd.New(), Now: func() int64 { return 1 }})
	w.control = control.New(control.Config{SAD: w.SAD, SPD: w.SPD, NATTPort: 4500})
	wire := countingWire{to: &w.wire}
	w.in = w.NewInside(nil, Wires{Raw4: wire, UDP4: wire, UDPPort: 4500, Bypass4: countingWire{to: &w.clear}})
	w.out = w.NewOutside(nil, countingHost{to: &w.host})
	w.load(t, workerScript)
	return w
}

func (w *handDriven) load(t testing.TB, script string) {
	t.Helper()
	if err := w.control.Load("test", []byte(script)); err != nil {
		t.Fatal(err)
	}
}

func lone(p []byte) packet.Burst { return packet.Burst{Seg: packet.Lone, Head: p} }

func datagramFrom(third byte, n int) []byte {
	p := make([]byte, packet.IPv4HeaderLen+packet.UDPHeaderLen+n)
	h := packet.IPv4{TTL: 64, Proto: packet.ProtoUDP, ID: 7,
		Src: packet.AddrFrom4([]byte{10, 1, third, 1}), Dst: packet.AddrFrom4([]byte{10, 2, 0, 1})}
	h.Put(p, len(p))
	packet.PutUDP(p[packet.IPv4HeaderLen:], 9, 9, len(p)-packet.IPv4HeaderLen)
	return p
}

// What a worker remembers of a flow does not outlive a change of the databases,
// in either direction.
func TestCachesFollowChanges(t *testing.T) {
	const suite = " -m tunnel -u 1 -r 32 -E aes-gcm-16 0x6b87c452e0602b13e1925c2962e635ad7b9d3f7b;"
	w := newHandDriven(t)
	for _, step := range []struct {
		name, script            string
		sealed, inClear, opened int
	}{
		{"loaded", "", 1, 0, 1},
		{"again, from the cache", "", 1, 0, 1},
		{"SA replaced", "delete 192.0.2.1 192.0.2.2 esp 0x1001; add 192.0.2.1 192.0.2.2 esp 0x1001" + suite, 1, 0, 1},
		{"SAs flushed", "flush;", 0, 0, 0},
		{"SA back", "add 192.0.2.1 192.0.2.2 esp 0x1001" + suite, 1, 0, 1},
		{"newer SA", "add 192.0.2.1 192.0.2.2 esp 0x1003" + suite, 1, 0, 1},
		{"inbound policy discards", "spddelete 10.1.1.0/24 10.2.0.0/24 any -P in; spdadd 10.1.1.0/24 10.2.0.0/24 any -P in discard;", 1, 0, 0},
		{"policies flushed", "spdflush;", 0, 1, 0},
		{"outbound policy discards", "spdadd 10.1.1.0/24 10.2.0.0/24 any -P out discard;", 0, 0, 0},
	} {
		w.load(t, step.script)
		w.wire.n, w.clear.n, w.host.n = 0, 0, 0
		b := lone(datagramFrom(1, 100))
		w.in.handle(&b)
		if w.wire.n > 0 {
			w.out.handle([]packet.Burst{lone(bytes.Clone(w.wire.last[:w.wire.len]))})
		}
		if w.wire.n != step.sealed || w.clear.n != step.inClear || w.host.n != step.opened {
			t.Errorf("%s: %d sealed, %d in clear, %d opened; want %d, %d, %d",
				step.name, w.wire.n, w.clear.n, w.host.n, step.sealed, step.inClear, step.opened)
		}
	}
}

// A worker that still holds an SA which was replaced goes on with the new one,
// and the numbers go on with it.
func TestSuccessor(t *testing.T) {
	w := newHandDriven(t)
	b := lone(datagramFrom(1, 100))
	w.in.handle(&b)
	old := w.in.cache.outbound(w.Engine, &b.H.Flow)
	stale := *old
	w.load(t, "delete 192.0.2.1 192.0.2.2 esp 0x1001; add 192.0.2.1 192.0.2.2 esp 0x1001 -m tunnel -u 1 -E aes-gcm-16 0x6b87c452e0602b13e1925c2962e635ad7b9d3f7b;")
	w.in.protect(&stale, &b, 1)
	if w.wire.n != 2 || stale.sa.Retired() || stale.sa.Usage().Seq != 2 {
		t.Errorf("%d sealed, sequence number %d", w.wire.n, stale.sa.Usage().Seq)
	}
	w.load(t, "flush;")
	w.in.protect(&stale, &b, 1)
	if w.Drops.Get(packet.NoSA) != 1 {
		t.Error("a packet without an SA is not counted so")
	}
}

// A read of trains has more datagrams in transport mode than there is room for at
// once, of two flows in turn, so that none is joined to the one before.
func TestTransportTrains(t *testing.T) {
	w := newHandDriven(t)
	w.load(t, `add 192.0.2.1[4500] 192.0.2.2[4500] esp-udp 0x1003 -m transport -r 512 -E aes-gcm-16 0x7b87c452e0602b13e1925c2962e635ad7b9d3f7b;
		spdadd 192.0.2.1 192.0.2.2 any -P out ipsec esp/transport//require;`)
	w.in.wires.udp4, w.in.wires.port = countingWire{to: &w.wire}, 4500
	bursts := make([]packet.Burst, 4)
	sent := 0
	for i := range bursts {
		bursts[i].Seg = packet.UDP
		for range 64 {
			p := datagramFrom(0, 20+sent%2)
			copy(p[12:20], []byte{192, 0, 2, 1, 192, 0, 2, 2})
			p[packet.IPv4HeaderLen] = byte(sent % 2) // the source port
			packet.SetNext(p, 9, packet.ProtoUDP)
			b := lone(p)
			w.in.handle(&b)
			bursts[i].Head = bytes.Clone(w.wire.last[:28])
			bursts[i].Segs = append(bursts[i].Segs, bytes.Clone(w.wire.last[28:w.wire.len]))
			sent++
		}
	}
	w.out.handle(bursts)
	if w.host.n != sent || total(w) != 0 {
		t.Errorf("%d of %d came out, %d dropped", w.host.n, sent, total(w))
	}
}

// arrived is a sealed packet as its socket delivers it, in b, whose slices are
// used again.
func arrived(b *packet.Burst, p []byte, udp bool) {
	b.Seg, b.Head, b.Segs = packet.Lone, p, b.Segs[:0]
	if udp {
		const front = packet.IPv4HeaderLen + packet.UDPHeaderLen
		b.Seg, b.Head, b.Segs = packet.UDP, p[:front:front], append(b.Segs, p[front:])
	}
}

// A packet allocates nothing on its way, by any suite and mode.
func TestNoAllocs(t *testing.T) {
	w := newHandDriven(t)
	for third, suite := range suites {
		plain := datagramFrom(third, 1000)
		buf := make([]byte, 2048)
		in := lone(plain)
		bursts := make([]packet.Burst, 1)
		n := testing.AllocsPerRun(200, func() {
			w.in.handle(&in)
			arrived(&bursts[0], buf[:copy(buf, w.wire.last[:w.wire.len])], third >= encapsulated)
			w.out.handle(bursts)
		})
		if n != 0 {
			t.Errorf("%s: %v allocations a packet", suite, n)
		}
		if !bytes.Equal(w.host.last[:w.host.len], plain) {
			t.Errorf("%s: what came out is not what went in", suite)
		}
	}
	for d, n := range w.Drops.All() {
		t.Errorf("%d dropped as %v", n, d)
	}
	f := packet.Flow{V: 4, Src: packet.AddrFrom4([]byte{10, 1, 1, 1}), Dst: packet.AddrFrom4([]byte{10, 2, 0, 1})}
	sa := w.in.cache.outbound(w.Engine, &f).sa
	if n := testing.AllocsPerRun(200, func() {
		f.SrcPort++ // a flow that the caches do not know
		w.in.cache.outbound(w.Engine, &f)
		w.out.cache.inbound(w.Engine, &f, sa, sad.ModeTunnel)
	}); n != 0 {
		t.Errorf("%v allocations for a new flow", n)
	}
}

func total(w *handDriven) (n int) {
	for _, c := range w.Drops.All() {
		n += int(c)
	}
	return n
}

func BenchmarkSealOpen(b *testing.B) {
	w := newHandDriven(b)
	for third := range byte(len(suites) + 1) {
		for _, n := range []int{64, 1400} {
			if suites[third] == "" {
				continue
			}
			b.Run(fmt.Sprintf("%s/%d", suites[third], n), func(b *testing.B) {
				in := lone(datagramFrom(third, n-28))
				buf := make([]byte, 2048)
				bursts := make([]packet.Burst, 1)
				b.SetBytes(int64(len(in.Head)))
				b.ReportAllocs()
				for b.Loop() {
					w.in.handle(&in)
					arrived(&bursts[0], buf[:copy(buf, w.wire.last[:w.wire.len])], third >= encapsulated)
					w.out.handle(bursts)
				}
			})
		}
	}
}

// BenchmarkFlowCache finds what is known of a flow, and asks the databases for
// one that is not.
func BenchmarkFlowCache(b *testing.B) {
	w := newHandDriven(b)
	p := lone(datagramFrom(1, 30))
	p.Classify()
	f := p.H.Flow
	sa := w.in.cache.outbound(w.Engine, &f).sa
	b.Run("out/hit", func(b *testing.B) {
		for b.Loop() {
			w.in.cache.outbound(w.Engine, &f)
		}
	})
	b.Run("out/miss", func(b *testing.B) {
		for b.Loop() {
			w.in.cache.slot(&f).filled = false
			w.in.cache.outbound(w.Engine, &f)
		}
	})
	b.Run("in/hit", func(b *testing.B) {
		for b.Loop() {
			w.out.cache.inbound(w.Engine, &f, sa, sad.ModeTunnel)
		}
	})
	b.Run("in/miss", func(b *testing.B) {
		for b.Loop() {
			w.out.cache.slot(&f).filled = false
			w.out.cache.inbound(w.Engine, &f, sa, sad.ModeTunnel)
		}
	})
}
