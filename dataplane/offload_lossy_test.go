package dataplane_test

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"flag"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"ipsecd/packet"
)

var (
	lossySeed   = flag.Uint64("lossy.seed", 0, "run TestOffloadLossyWire with this seed alone")
	lossyRounds = flag.Int("lossy.rounds", 2, "seeds that TestOffloadLossyWire tries of each way")
)

// lossyWire is what happens to packets on the way, each with a chance in 256.
type lossyWire struct {
	*rand.Rand
	lose, twice, flip int
	depth             int // by how many places a packet comes late at most
}

// arrival is a copy of packet i; spoilt says that a bit of it changed.
type arrival struct {
	pkt    []byte
	i      int
	due    int
	spoilt bool
}

func (l *lossyWire) chance(of int) bool { return l.IntN(256) < of }

// carry returns what arrives of pkts, in order, how many copies were made and how
// many lost.
func (l *lossyWire) carry(w *way, pkts [][]byte) (all []arrival, copied, lost int) {
	for i, p := range pkts {
		more := 0
		for l.chance(l.twice) {
			more++
		}
		copied += more
		for range 1 + more {
			if l.chance(l.lose) {
				lost++
				continue
			}
			a := arrival{pkt: bytes.Clone(p), i: i, due: i + l.IntN(l.depth+1), spoilt: l.chance(l.flip)}
			if a.spoilt {
				esp := w.espOf(a.pkt)
				bit := l.IntN(8 * len(esp))
				esp[bit/8] ^= 1 << (bit % 8)
			}
			all = append(all, a)
		}
	}
	slices.SortStableFunc(all, func(a, b arrival) int { return cmp.Compare(a.due, b.due) })
	return all, copied, lost
}

// conversation is bursts of several flows, and their packets, no two the same.
func (w *way) conversation(t *testing.T, r *rand.Rand, packets int) (bursts []packet.Burst, plain [][]byte) {
	flows := make([]talk, 4)
	for i := range flows {
		flows[i] = talk{way: w, udp: i%2 == 0, tos: uint8(4 * i), df: r.IntN(2) == 0, id: uint16(r.Uint32()), seq: r.Uint32(), port: uint16(i + 1)}
	}
	for len(plain) < packets {
		f := &flows[r.IntN(len(flows))]
		k, size := 1+r.IntN(min(64, packets-len(plain))), 20+r.IntN(200) // 20 random octets tell packets apart
		less := r.IntN(size - 19)
		b, pkts := f.say(t, r, k, size, less, tcpFlags{psh: r.IntN(2) == 0})
		if r.IntN(4) == 0 {
			bursts = append(bursts, alone(pkts)...)
		} else {
			bursts = append(bursts, b)
		}
		plain = append(plain, pkts...)
	}
	return bursts, plain
}

// Whatever the wire loses, delays, doubles and spoils, each packet that comes out
// was sent, is unchanged and comes once; and each that went in is accounted for.
// With a window as wide as the wire's disorder, none is lost but those that the
// wire lost or spoilt.
func TestOffloadLossyWire(t *testing.T) {
	for _, w := range ways() {
		t.Run(w.String(), func(t *testing.T) {
			t.Parallel()
			if *lossySeed != 0 {
				lossy(t, &w, *lossySeed)
				return
			}
			for range *lossyRounds {
				lossy(t, &w, rand.Uint64())
			}
		})
	}
}

func lossy(t *testing.T, w *way, seed uint64) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("again by -lossy.seed %d", seed)
		}
	}()
	r := rand.New(rand.NewPCG(seed, 0))
	window := []uint32{32, 64, 100, 256}[r.IntN(4)]
	wide := r.IntN(4) > 0 // the window, for the wire
	l := &lossyWire{Rand: r, lose: r.IntN(40), twice: r.IntN(60), flip: r.IntN(40), depth: int(window) - 1}
	if !wide {
		l.depth = 3 * int(window)
	}
	start := uint64(r.IntN(1000))
	if w.esn {
		start = (1+r.Uint64N(100))<<32 - r.Uint64N(800) - 1
	}
	const packets = 600
	bursts, plain := w.conversation(t, r, packets)
	from, to := w.end(t, start, window), w.end(t, start, window)
	sealed := from.seal(t, bursts...)
	w.checkNumbers(t, sealed, start)
	if len(sealed) != packets || from.dropped() != 0 || from.sa.Usage().Packets != packets {
		t.Fatalf("%d of %d sealed, %d dropped, %d counted", len(sealed), packets, from.dropped(), from.sa.Usage().Packets)
	}
	arrivals, copied, lost := l.carry(w, sealed)
	var in [][]byte
	for _, a := range arrivals {
		in = append(in, a.pkt)
	}
	out, _ := to.open(t, r, in)
	w.checkDelivered(t, out, plain, arrivals, wide)
	checkAccounts(t, to, len(out), len(arrivals))
	if packets+copied != len(out)+to.dropped()+lost {
		t.Errorf("%d sent, %d copied; %d delivered, %d dropped, %d lost", packets, copied, len(out), to.dropped(), lost)
	}
}

// checkNumbers wants sequence numbers one behind the other from start+1 on.
func (w *way) checkNumbers(t *testing.T, sealed [][]byte, start uint64) {
	t.Helper()
	for i, p := range sealed {
		if got, want := binary.BigEndian.Uint32(w.espOf(p)[4:]), uint32(start)+uint32(i)+1; got != want {
			t.Fatalf("packet %d has number %d, want %d", i, got, want)
		}
	}
}

// checkDelivered compares what came out with what was sent.
func (w *way) checkDelivered(t *testing.T, out, plain [][]byte, arrivals []arrival, all bool) {
	t.Helper()
	left := map[string]int{} // packet -> its place
	for i, p := range w.comparable(slices.Clone(plain)) {
		left[string(p)] = i
	}
	if len(left) != len(plain) {
		t.Fatalf("%d of %d packets are the same as others", len(plain)-len(left), len(plain))
	}
	for _, p := range w.comparable(out) {
		if _, ok := left[string(p)]; !ok {
			t.Fatalf("came out twice, or was never sent: %.100x", p)
		}
		delete(left, string(p))
	}
	if !all {
		return
	}
	for _, a := range arrivals {
		if p := w.comparable([][]byte{bytes.Clone(plain[a.i])})[0]; !a.spoilt {
			if _, missing := left[string(p)]; missing {
				t.Fatalf("packet %d arrived and did not come out", a.i)
			}
		}
	}
}

// checkAccounts wants every arrival delivered or dropped for one reason, in the
// engine's counters and in the SA's.
func checkAccounts(t *testing.T, e half, delivered, arrived int) {
	t.Helper()
	if delivered+e.dropped() != arrived {
		t.Errorf("%d arrived, %d delivered, %d dropped", arrived, delivered, e.dropped())
	}
	if n := e.sa.Usage().Packets; n != uint64(delivered) {
		t.Errorf("the SA counts %d packets, %d came out", n, delivered)
	}
	under := &packet.Counters{}
	if d := e.sa.Drops(); d != nil {
		under = d
	}
	for reason, n := range e.Drops.All() {
		switch reason {
		case packet.Replayed, packet.BadICV:
			if under.Get(reason) != n {
				t.Errorf("%d %v, of which the SA counts %d", n, reason, under.Get(reason))
			}
		case packet.UnknownSPI: // of no SA
			if under.Get(reason) != 0 {
				t.Errorf("the SA counts %d %v", under.Get(reason), reason)
			}
		default:
			t.Errorf("%d %v: a bit in ESP does not do that", n, reason)
		}
	}
}

// One flipped bit anywhere in the ESP packet, of each suite and with ESN: nothing
// comes out, one reason counts it, and nothing has changed: the packet itself
// still opens.
func TestOffloadLossyEveryBit(t *testing.T) {
	for _, w := range ways() {
		if w.outer6 || w.inner6 || w.encap {
			continue
		}
		r := rand.New(rand.NewPCG(5, 6))
		f := talk{way: &w, udp: true, port: 9, df: true}
		b, plain := f.say(t, r, 1, 17, 0, tcpFlags{})
		start := uint64(100)
		if w.esn {
			start = 1<<32 - 1
		}
		sealed := w.end(t, start, 64).seal(t, b)[0]
		to := w.end(t, start, 64)
		var spoilt [][]byte
		for bit := range 8 * len(w.espOf(sealed)) {
			p := bytes.Clone(sealed)
			w.espOf(p)[bit/8] ^= 1 << (bit % 8)
			spoilt = append(spoilt, p)
		}
		if out, _ := to.open(t, r, spoilt); len(out) != 0 {
			t.Errorf("%v: %d of %d spoilt packets came out", &w, len(out), len(spoilt))
		}
		if top := to.sa.Window.Top(); top != start {
			t.Errorf("%v: the window moved to %d", &w, top)
		}
		checkAccounts(t, to, 0, len(spoilt))
		out, _ := to.open(t, r, [][]byte{sealed})
		samePackets(t, w.String(), w.comparable(out), w.comparable(plain))
	}
}

// Two SAs in one read, whose packets alternate, keep apart what they count.
func TestOffloadLossyTwoSAs(t *testing.T) {
	one, two := suites[0], suites[0]
	two.spi = 0x4321
	r := rand.New(rand.NewPCG(7, 8))
	f, g := talk{way: &one, udp: true, port: 1}, talk{way: &two, udp: true, port: 2}
	b, plain := f.say(t, r, 40, 50, 0, tcpFlags{})
	c, others := g.say(t, r, 40, 50, 0, tcpFlags{})
	p, q := one.end(t, 0, 64).seal(t, b), two.end(t, 500, 64).seal(t, c)
	to, other := one.end(t, 0, 64), two.newSA(t, 500, 64)
	if err := to.SAD.Add(other); err != nil {
		t.Fatal(err)
	}
	var in, want [][]byte
	for i := range p {
		in, want = append(in, p[i], q[i], q[i]), append(want, plain[i], others[i])
	}
	out, _ := to.open(t, r, in)
	samePackets(t, "two SAs", one.comparable(out), one.comparable(want))
	if a, b := to.sa.Usage().Packets, other.Usage().Packets; a != 40 || b != 40 {
		t.Errorf("counted %d and %d packets", a, b)
	}
	if to.sa.Drops() != nil || other.Drops().Get(packet.Replayed) != 40 {
		t.Errorf("dropped %v and %v", to.sa.Drops(), other.Drops())
	}
}

// Two workers that read the same packets at once, as from two sockets, let each
// through once between them.
func TestOffloadLossyTwoWorkers(t *testing.T) {
	for _, w := range ways() {
		if w.transport || w.encap || w.outer6 != w.inner6 {
			continue
		}
		r := rand.New(rand.NewPCG(1, 1))
		bursts, plain := w.conversation(t, r, 2000)
		start := uint64(1<<32 - 1000)
		if !w.esn {
			start = 7
		}
		sealed := w.end(t, start, 4096).seal(t, bursts...)
		to := w.end(t, start, 4096)
		var outs [2][][]byte
		var wg sync.WaitGroup
		for i := range outs {
			wg.Go(func() { outs[i], _ = to.open(t, rand.New(rand.NewPCG(2, 2)), sealed) })
		}
		wg.Wait()
		w.checkDelivered(t, slices.Concat(outs[:]...), plain, nil, false)
		if n := len(outs[0]) + len(outs[1]); n != len(plain) || to.Drops.Get(packet.Replayed) != uint64(n) {
			t.Errorf("%v: %d of %d came out, %d replayed", &w, n, len(plain), to.Drops.Get(packet.Replayed))
		}
	}
}
