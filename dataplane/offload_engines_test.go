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

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

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

// talk is one flow of a way.
type talk struct {
	*way
	udp  bool
	tos  uint8
	df   bool
	id   uint16
	seq  uint32
	port uint16
}

// TCP flags of what is said: FIN, PSH and CWR on all of a burst, of which the
// first and the last packet keep some.
type tcpFlags struct{ fin, psh, cwr bool }

// packet is one packet of the flow, all checksums right.
func (f *talk) packet(t testing.TB, data []byte, flags tcpFlags) []byte {
	t.Helper()
	src, dst := f.inner()
	proto := layers.IPProtocolTCP
	if f.udp {
		proto = layers.IPProtocolUDP
	}
	var ip interface {
		gopacket.NetworkLayer
		gopacket.SerializableLayer
	} = &layers.IPv6{Version: 6, TrafficClass: f.tos, FlowLabel: 0xbeef, HopLimit: 63, NextHeader: proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
	if !f.inner6 {
		v4 := &layers.IPv4{Version: 4, TOS: f.tos, TTL: 63, Id: f.id, Protocol: proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
		if f.df {
			v4.Flags = layers.IPv4DontFragment
		}
		ip = v4
	}
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	udp := &layers.UDP{SrcPort: 1000, DstPort: layers.UDPPort(f.port)}
	tcp := &layers.TCP{SrcPort: 1000, DstPort: layers.TCPPort(f.port), Seq: f.seq, Ack: 77, Window: 500,
		ACK: true, FIN: flags.fin, PSH: flags.psh, CWR: flags.cwr}
	udp.SetNetworkLayerForChecksum(ip)
	tcp.SetNetworkLayerForChecksum(ip)
	var l4 gopacket.SerializableLayer = tcp
	if f.udp {
		l4 = udp
	}
	if err := gopacket.SerializeLayers(buf, opts, ip, l4, gopacket.Payload(data)); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(buf.Bytes())
}

// say is a burst of k segments of size octets, the last shorter by less, and the
// packets that a sender without offload would have sent. The flow goes on
// behind them.
func (f *talk) say(t testing.TB, r *rand.Rand, k, size, less int, flags tcpFlags) (packet.Burst, [][]byte) {
	t.Helper()
	data := make([]byte, k*size-less)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	b := f.burst(t, data, size, flags)
	var pkts [][]byte
	for at := 0; at < len(data); at += size {
		last := at+size >= len(data)
		pkts = append(pkts, f.packet(t, data[at:min(at+size, len(data))],
			tcpFlags{flags.fin && last, flags.psh && last, flags.cwr && at == 0}))
		f.seq += uint32(min(size, len(data)-at))
		f.id++
	}
	return b, pkts
}

// burst is what a TUN hands over of data, or would if that were longer than IP
// allows.
func (f *talk) burst(t testing.TB, data []byte, size int, flags tcpFlags) packet.Burst {
	t.Helper()
	fits := data[:min(len(data), 65000)]
	pkt := f.packet(t, fits, flags)
	b := packet.Burst{Seg: packet.TCP, Partial: true, CsumStart: outerLen(pkt), CsumOff: 16}
	proto := uint8(packet.ProtoTCP)
	if f.udp {
		b.Seg, b.CsumOff, proto = packet.UDP, 6, packet.ProtoUDP
	}
	head := len(pkt) - len(fits)
	sum := packet.Fold(packet.PseudoSum(pkt, proto, head-b.CsumStart+len(data)))
	binary.BigEndian.PutUint16(pkt[b.CsumStart+b.CsumOff:], sum)
	b.Head = pkt[:head:head]
	if !b.Split(data, size) {
		t.Fatalf("%d octets do not split by %d", len(data), size)
	}
	return b
}

// alone are packets as bursts of one.
func alone(pkts [][]byte) (bs []packet.Burst) {
	for _, p := range pkts {
		bs = append(bs, packet.Burst{Head: bytes.Clone(p)})
	}
	return bs
}

// samePackets compares octet for octet.
func samePackets(t testing.TB, what string, got, want [][]byte) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("%s: packet %d of %d is\n%.100x, want\n%.100x", what, i, len(want), got[i], want[i])
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%s: %d packets, want %d", what, len(got), len(want))
	}
}

// comparable blanks what does not come through: IDs with DF, which mean nothing
// (RFC 6864 4.1), where packets are joined; and in transport mode in UDP, whose
// socket does not tell them, any ID and DF itself.
func (w *way) comparable(pkts [][]byte) [][]byte {
	for i, p := range pkts {
		untold := w.transport && w.encap
		if p[0]>>4 == 6 || p[6]&0x40 == 0 && !untold {
			continue
		}
		p = bytes.Clone(p)
		clear(p[4:6])
		if untold {
			p[6] &^= 0x40
		}
		clear(p[10:12])
		pkts[i] = p
	}
	return pkts
}
