package dataplane_test

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"testing"

	"ipsecd/crypto/alg"
	"ipsecd/dataplane"
	"ipsecd/dataplane/link"
	"ipsecd/packet"
	"ipsecd/sad"
	"ipsecd/spd"
)

// way is how packets of one family get from one engine to another: mode,
// families, encapsulation, suite.
type way struct {
	transport, outer6, inner6, encap bool
	enc, auth                        uint8
	encKey, authKey                  int // octets
	esn                              bool
	spi                              uint32 // 0 stands for 0x1234
}

var suites = []way{
	{enc: alg.AESGCM16, encKey: 20},
	{enc: alg.AESCBC, encKey: 16, auth: alg.HMACSHA2_256, authKey: 32},
	{enc: alg.NullEnc, auth: alg.HMACSHA1, authKey: 20},
}

// ways are all there are: 4in4, 4in6, 6in4, 6in6 and transport of both
// families, raw and in UDP, each suite, with ESN and without.
func ways() (all []way) {
	for _, w := range suites {
		for bits := range 16 {
			w.encap, w.esn, w.outer6, w.inner6 = bits&1 != 0, bits&2 != 0, bits&4 != 0, bits&8 != 0
			w.transport = false
			all = append(all, w)
			if w.outer6 == w.inner6 {
				w.transport = true
				all = append(all, w)
			}
		}
	}
	return all
}

func (w *way) String() string {
	family := map[bool]int{false: 4, true: 6}
	s := fmt.Sprintf("%din%d", family[w.inner6], family[w.outer6])
	if w.transport {
		s = fmt.Sprintf("transport%d", family[w.inner6])
	}
	if w.encap {
		s += " udp"
	}
	s += " " + alg.ByID(alg.Enc, w.enc).Name
	if w.esn {
		s += " esn"
	}
	return s
}

// mode is that of the SA and of the policy.
func (w *way) mode() sad.Mode {
	if w.transport {
		return sad.ModeTransport
	}
	return sad.ModeTunnel
}

// outer are the ends of the SA, inner those of the packets.
func (w *way) outer() (src, dst netip.Addr) {
	if w.outer6 {
		return netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	}
	return netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
}

func (w *way) inner() (src, dst netip.Addr) {
	switch {
	case w.transport:
		return w.outer()
	case w.inner6:
		return netip.MustParseAddr("fd00:a::1"), netip.MustParseAddr("fd00:b::1")
	}
	return netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.1")
}

// half is an engine at one end of a way, with its SA.
type half struct {
	*dataplane.Engine
	sa *sad.SA
}

// newSA makes the SA of a way, which goes on behind sequence number seq, with a
// window of so many packets.
func (w *way) newSA(t testing.TB, seq uint64, window uint32) *sad.SA {
	t.Helper()
	src, dst := w.outer()
	s := sad.Spec{ID: sad.ID{SPI: cmp.Or(w.spi, 0x1234), Proto: sad.ProtoESP, Dst: dst}, Src: src, Mode: w.mode(), Replay: window, ESN: w.esn,
		Enc: w.enc, Auth: w.auth, EncKey: numbered(w.encKey), AuthKey: numbered(w.authKey)}
	if w.encap {
		s.Encap = sad.Encap{SrcPort: 4500, DstPort: 4500}
	}
	sa, err := sad.NewSA(s)
	if err != nil {
		t.Fatal(err)
	}
	sa.Resume(seq, seq)
	return sa
}

// end makes an engine with such an SA and the policies of both directions.
func (w *way) end(t testing.TB, seq uint64, window uint32) half {
	t.Helper()
	e := dataplane.New(dataplane.Config{SAD: sad.New(), SPD: spd.New(), Now: func() int64 { return 1 }})
	sa := w.newSA(t, seq, window)
	if err := e.SAD.Add(sa); err != nil {
		t.Fatal(err)
	}
	src, dst := w.outer()
	from, to := w.inner()
	txn := e.SPD.Begin()
	for id, dir := range []spd.Dir{spd.In, spd.Out} {
		p := &spd.Policy{ID: uint32(id + 1), Dir: dir, Action: spd.IPsec,
			Sel:      spd.Selector{Src: netip.PrefixFrom(from, from.BitLen()), Dst: netip.PrefixFrom(to, to.BitLen()), Proto: spd.ProtoAny},
			Requests: []spd.Request{{Proto: sad.ProtoESP, Mode: spd.Mode(w.mode()), Level: spd.LevelRequire, Src: src, Dst: dst}}}
		if err := txn.Add(p); err != nil {
			t.Fatal(err)
		}
	}
	if !txn.Commit() {
		t.Fatal("not committed")
	}
	return half{e, sa}
}

// numbered are n octets 1, 2, 3...
func numbered(n int) (b []byte) {
	for i := range n {
		b = append(b, byte(i+1))
	}
	return b
}

// hostSide is a host that sends bursts and keeps the packets it gets. It takes
// UDP bursts.
type hostSide struct {
	link.MemoryInside
	bursts []packet.Burst
	joined *int // packets that came in bursts of more than one
}

func (h *hostSide) Read(b *packet.Burst) error {
	if len(h.bursts) == 0 {
		return os.ErrClosed
	}
	*b, h.bursts = h.bursts[0], h.bursts[1:]
	return nil
}

func (h *hostSide) TakesUDP() bool { return true }

func (h *hostSide) Writer() link.BurstWriter { return h }

func (h *hostSide) Write(b *packet.Burst) error {
	if b.Len() > 1 {
		*h.joined += b.Len()
	}
	return h.MemoryInside.Write(b)
}

// seal takes bursts from the host and returns what goes on the wire.
func (e half) seal(t testing.TB, bursts ...packet.Burst) [][]byte {
	t.Helper()
	wire := link.MemoryOutside{Memory: link.NewMemory(0)}
	w := dataplane.Wires{UDPPort: 4500}
	src, encap := e.sa.Spec().Src, e.sa.Encap() != sad.Encap{}
	switch {
	case src.Is4() && encap:
		w.UDP4 = wire
	case src.Is4():
		w.Raw4 = wire
	case encap:
		w.UDP6 = wire
	default:
		w.Raw6 = wire
	}
	if err := e.NewInside(&hostSide{bursts: bursts}, w).Run(); err != nil {
		t.Fatal(err)
	}
	return wire.Written()
}

// wireSide yields packets that arrived, many in a read: raw ones alone, those in
// UDP in trains.
type wireSide struct {
	link.MemoryOutside
	pkts  [][]byte
	encap bool
	train func() int // how many datagrams the next train has at most
}

func (w *wireSide) Read(bs []packet.Burst) (int, error) {
	if len(w.pkts) == 0 {
		return 0, os.ErrClosed
	}
	n := 0
	for ; n < len(bs) && len(w.pkts) > 0; n++ {
		b, first := &bs[n], bytes.Clone(w.pkts[0])
		w.pkts = w.pkts[1:]
		b.Seg, b.Head, b.Segs, b.Partial = packet.Lone, first, b.Segs[:0], false
		if !w.encap {
			continue
		}
		hlen := outerLen(first) + packet.UDPHeaderLen
		b.Seg, b.Head, b.Segs = packet.UDP, asSocketTells(first[:hlen]), append(b.Segs, first[hlen:])
		for k := w.train(); k > 1 && len(w.pkts) > 0 && follows(w.pkts[0], first); k-- {
			b.Segs, w.pkts = append(b.Segs, bytes.Clone(w.pkts[0][hlen:])), w.pkts[1:]
			if len(b.Segs[len(b.Segs)-1]) < len(b.Segs[0]) {
				break
			}
		}
	}
	return n, nil
}

// asSocketTells is the header of a train as a UDP socket knows it: not its ID,
// nor DF.
func asSocketTells(head []byte) []byte {
	if head = bytes.Clone(head); head[0]>>4 == 4 {
		head[4], head[5], head[6] = 0, 0, 0x40
		head[10], head[11] = 0, 0
		binary.BigEndian.PutUint16(head[10:], packet.Checksum(head[:packet.IPv4HeaderLen], 0))
	}
	return head
}

// follows reports whether the kernel may put pkt into a train behind first: its
// header differs in length, ID and checksum alone, and it is no longer.
func follows(pkt, first []byte) bool {
	a, b := bytes.Clone(pkt[:outerLen(pkt)]), bytes.Clone(first[:outerLen(first)])
	for _, h := range [][]byte{a, b} {
		if h[0]>>4 == 6 {
			clear(h[4:6])
			continue
		}
		clear(h[2:6])
		clear(h[10:12])
	}
	return bytes.Equal(a, b) && len(pkt) <= len(first)
}

func outerLen(pkt []byte) int {
	if pkt[0]>>4 == 6 {
		return packet.IPv6HeaderLen
	}
	return packet.IPv4HeaderLen
}

// open takes packets from the wire and returns what the host gets, and how many
// of those came joined.
func (e half) open(t testing.TB, r *rand.Rand, pkts [][]byte) (out [][]byte, joined int) {
	t.Helper()
	host := &hostSide{MemoryInside: link.MemoryInside{Memory: link.NewMemory(0)}, joined: &joined}
	wire := &wireSide{pkts: pkts, encap: e.sa.Encap() != sad.Encap{}, train: func() int { return 1 + r.IntN(packet.MaxBurst/2) }}
	if err := e.NewOutside(wire, host).Run(); err != nil {
		t.Fatal(err)
	}
	return host.Written(), joined
}

// dropped is how many packets an engine dropped, for whatever reason.
func (e half) dropped() (n int) {
	for _, c := range e.Drops.All() {
		n += int(c)
	}
	return n
}

// espOf is the ESP header of a packet on the wire.
func (w *way) espOf(pkt []byte) []byte {
	if w.encap {
		return pkt[outerLen(pkt)+packet.UDPHeaderLen:]
	}
	return pkt[outerLen(pkt):]
}
