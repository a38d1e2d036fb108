package dataplane

import (
	"bytes"
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
`

// worker is an engine with one worker of each kind, driven by hand.
type worker struct {
	*Engine
	control    *control.Engine
	in         *Inside
	out        *Outside
	wire, host counting // what left on each side
	clear      counting
}

func newWorker(t testing.TB) *worker {
	w := new(worker)
	w.Engine = New(Config{SAD: sad.New(), SPD: spd.New(), Now: func() int64 { return 1 }})
	w.control = control.New(control.Config{SAD: w.SAD, SPD: w.SPD, NATTPort: 4500})
	w.in = w.NewInside(nil, Wires{Raw4: countingWire{to: &w.wire}, Bypass4: countingWire{to: &w.clear}})
	w.out = w.NewOutside(nil, countingHost{to: &w.host})
	w.load(t, workerScript)
	return w
}

func (w *worker) load(t testing.TB, script string) {
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
	w := newWorker(t)
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
	w := newWorker(t)
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

// A packet allocates nothing on its way, by either suite.
func TestNoAllocs(t *testing.T) {
	w := newWorker(t)
	for third, suite := range map[byte]string{1: "gcm", 2: "cbc"} {
		plain := datagramFrom(third, 1000)
		buf := make([]byte, 2048)
		in := lone(plain)
		bursts := make([]packet.Burst, 1)
		n := testing.AllocsPerRun(200, func() {
			w.in.handle(&in)
			bursts[0].Head = buf[:copy(buf, w.wire.last[:w.wire.len])]
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
}

// FuzzOutside throws anything at the inbound path of an engine with live SAs:
// it does not panic, and each packet comes through or is counted once.
func FuzzOutside(f *testing.F) {
	w := newWorker(f)
	for third := byte(1); third < 3; third++ {
		b := lone(datagramFrom(third, 64))
		w.in.handle(&b)
		f.Add(bytes.Clone(w.wire.last[:w.wire.len]), false)
		f.Add(bytes.Clone(w.wire.last[packet.IPv4HeaderLen:w.wire.len]), true)
	}
	f.Fuzz(func(t *testing.T, p []byte, udp bool) {
		w := newWorker(t)
		in := lone(bytes.Clone(p))
		if udp {
			h := packet.IPv4{TTL: 1, Proto: packet.ProtoUDP, Dst: packet.AddrFrom4([]byte{192, 0, 2, 2})}
			head := make([]byte, packet.IPv4HeaderLen+packet.UDPHeaderLen)
			h.Put(head, len(head)+len(p))
			in = packet.Burst{Seg: packet.UDP, Head: head, Segs: [][]byte{bytes.Clone(p)}}
		}
		w.out.handle([]packet.Burst{in})
		if dropped := total(w); w.host.n+dropped != 1 {
			t.Fatalf("%d through, %d dropped, of one packet", w.host.n, dropped)
		}
	})
}

func total(w *worker) (n int) {
	for _, c := range w.Drops.All() {
		n += int(c)
	}
	return n
}

func BenchmarkSealOpen(b *testing.B) {
	w := newWorker(b)
	for _, c := range []struct {
		name  string
		third byte
		n     int
	}{{"gcm/64", 1, 36}, {"gcm/1400", 1, 1372}, {"cbc/64", 2, 36}, {"cbc/1400", 2, 1372}} {
		b.Run(c.name, func(b *testing.B) {
			in := lone(datagramFrom(c.third, c.n))
			buf := make([]byte, 2048)
			bursts := make([]packet.Burst, 1)
			b.SetBytes(int64(len(in.Head)))
			b.ReportAllocs()
			for b.Loop() {
				w.in.handle(&in)
				bursts[0].Head = buf[:copy(buf, w.wire.last[:w.wire.len])]
				w.out.handle(bursts)
			}
		})
	}
}
